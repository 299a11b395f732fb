"""The napari writer: a labels layer to a file that other programs open.

No napari in here: napari gives plain data and a dictionary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_drososeg._widgets.layers.classes import classes_in

if TYPE_CHECKING:
    from napari_drososeg.classes import ClassTable
    from napari_drososeg.io import VoxelSize


def write_labels_layer(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Save a labels layer; the ending of the name chooses the format.

    Parameters
    ----------
    path : str
        ``.tif`` or ``.tiff`` (ImageJ), ``.ome.tif``, ``.zarr`` (OME-Zarr 0.5), ``.png`` (several sections: a folder).
    data : array-like or list of arrays
        (Z, Y, X) or (Y, X), integers 0 to 255; of a multiscale layer the first level is written.
    meta : dict
        What napari knows of the layer: scale, units, metadata.

    Returns
    -------
    list of str
        The path that was written.

    Raises
    ------
    DrososegError
        If there are values above 255 or more than three axes.
    """
    from napari_drososeg.io import as_stack, write_labels

    stack = as_stack(data, name=str(meta.get("name", "labels")))
    written = write_labels(path, stack, classes=classes_of(meta), voxel_size=voxel_size_of(meta))
    return [str(written)]


def classes_of(meta: dict[str, Any]) -> ClassTable:
    """Return the class table kept in the layer's metadata, else that of the shipped networks."""
    from napari_drososeg.classes import DROSOPHILA_CLASSES

    return classes_in(meta.get("metadata") or {}) or DROSOPHILA_CLASSES


def voxel_size_of(meta: dict[str, Any]) -> VoxelSize:
    """Return (z, y, x) in nm from scale and units; None where the unit is not a length."""
    from napari_drososeg.io import to_nanometres

    scale = [float(s) for s in meta.get("scale", ())][-3:]
    units = meta.get("units") or ()
    units = [units] * len(scale) if isinstance(units, str) else list(units)[-3:]
    sizes = [to_nanometres(abs(s), _name(u)) for s, u in zip(scale, units, strict=False)]
    z, y, x = [None] * (3 - len(sizes)) + sizes
    return z, y, x


def _name(unit: Any) -> str:
    # pint writes a unit as "nanometer", a quantity as "1 nanometer".
    return str(unit).split()[-1] if str(unit) else ""
