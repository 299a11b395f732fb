"""Labels to a file or folder of any format: at once, or part by part."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from napari_drososeg.classes import DROSOPHILA_CLASSES, ClassTable
from napari_drososeg.errors import DrososegError
from napari_drososeg.io.png_writer import PngWriter
from napari_drososeg.io.stack import as_stack
from napari_drososeg.io.targets import Format, check_replaceable, resolve_target, stem_of
from napari_drososeg.io.tiff_writer import OmeTiffWriter, TiffWriter
from napari_drososeg.io.units import UNKNOWN_VOXEL_SIZE, VoxelSize
from napari_drososeg.io.writing import LabelsWriter
from napari_drososeg.io.zarr_writer import ZarrWriter


def open_labels_writer(
    path: str | os.PathLike[str],
    shape: tuple[int, int, int],
    format: Format | None = None,  # noqa: A002 -- the word the command line uses
    classes: ClassTable = DROSOPHILA_CLASSES,
    voxel_size: VoxelSize = UNKNOWN_VOXEL_SIZE,
) -> LabelsWriter:
    """Start to write labels section by section or tile by tile.

    Parameters
    ----------
    path : path
        Target. Without an ending it gets that of the format; for PNG it is a folder of sections, or one file if
        it ends in ``.png`` and there is one section.
    shape : tuple of three int
        (Z, Y, X).
    format : {"tiff", "ome-tiff", "ome-zarr", "png"} or None
        None takes it from the ending of `path`.
    classes : ClassTable
        Colours and names to store.
    voxel_size : tuple of three float or None
        (z, y, x) in nm.

    Returns
    -------
    LabelsWriter
        Its `path` is the final name.

    Raises
    ------
    DrososegError
        If the format is not known, the target is a folder that is not labels of ours, or cannot be written.
    """
    target, chosen = resolve_target(path, format, int(shape[0]))
    if len(shape) != 3 or min(shape) < 1:
        raise DrososegError(f"Labels of shape {tuple(shape)} cannot be written to {target}: (Z, Y, X) is needed.")
    check_replaceable(target, chosen)
    kinds: dict[Format, type[LabelsWriter]] = {
        "tiff": TiffWriter,
        "ome-tiff": OmeTiffWriter,
        "ome-zarr": ZarrWriter,
        "png": PngWriter,
    }
    z, y, x = (int(n) for n in shape)
    return kinds[chosen](target, (z, y, x), classes, voxel_size, stem_of(target))


def write_labels(
    path: str | os.PathLike[str],
    labels: Any,
    *,
    classes: ClassTable = DROSOPHILA_CLASSES,
    voxel_size: VoxelSize | None = None,
    format: Format | None = None,  # noqa: A002 -- the word the command line uses
) -> Path:
    """Write labels so that other programs open them, in class colours where the format has them.

    Parameters
    ----------
    path : path
        Target; see `open_labels_writer`.
    labels : array-like or Stack
        (Z, Y, X) or (Y, X), integers 0 to 255. Read section by section, so it may be larger than memory.
    classes : ClassTable
        Colours and names to store.
    voxel_size : tuple of three float or None, or None
        (z, y, x) in nm; None takes that of a Stack.
    format : {"tiff", "ome-tiff", "ome-zarr", "png"} or None
        ``tiff``: uncompressed palette TIFF that ImageJ opens as a stack, BigTIFF above 4 GB. ``ome-tiff``: the same
        with OME-XML. ``ome-zarr``: 0.5 (zarr v3) with levels. ``png``: a folder of palette PNG files.

    Returns
    -------
    Path
        What was written.

    Raises
    ------
    DrososegError
        If a value is not an integer from 0 to 255, or the target cannot be written; then nothing is left behind.
    """
    stack = as_stack(labels, name="labels")
    if stack.dtype.kind not in "uib":
        raise DrososegError(f"Labels of type {stack.dtype} cannot be written to {path}: they must be integers.")
    size = stack.voxel_size if voxel_size is None else voxel_size
    with open_labels_writer(path, stack.shape, format, classes, size) as writer:
        for z in range(stack.n_sections):
            writer.write(z, stack.read(z))
    return writer.path
