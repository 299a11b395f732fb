"""The napari reader: any stack that `read_stack` opens becomes an image layer, our own labels a labels layer.

No napari in here: a reader gives plain layer tuples.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_drososeg._widgets.layers.classes import KEY, label_features

if TYPE_CHECKING:
    from napari_drososeg.io import Stack

LayerTuple = tuple[Any, dict[str, Any], str]
Paths = str | Sequence[str]

# Labels up to this size come into memory, where they can be painted; larger ones stay on disk, to be looked at.
EDITABLE_BYTES = 2 * 2**30

FILES_KEY = "drososeg_files"
"""Key in the metadata of a layer under which its files are kept where they were chosen one by one."""


def get_reader(path: Paths) -> Callable[[Paths], list[LayerTuple]] | None:
    """Tell whether a path looks like a stack.

    Parameters
    ----------
    path : str or list of str
        A file, a folder, or the files that are opened together as one stack.

    Returns
    -------
    callable or None
        `read_layers`, or None for what is not ours: other endings, folders without sections.
    """
    from napari_drososeg.io.folder import SECTION_SUFFIXES
    from napari_drososeg.io.zarr_stack import is_zarr

    def ours(name: str) -> bool:
        where = Path(name)
        if where.is_dir():
            return is_zarr(where) or any(p.suffix.lower() in SECTION_SUFFIXES for p in where.iterdir())
        return where.suffix.lower() in SECTION_SUFFIXES

    if isinstance(path, (str, os.PathLike)):
        return read_layers if ours(str(path)) else None
    return read_layers if path and all(Path(p).suffix.lower() in SECTION_SUFFIXES for p in path) else None


def read_layers(path: Paths) -> list[LayerTuple]:
    """Open a stack as one layer.

    Parameters
    ----------
    path : str or list of str
        See `get_reader`.

    Returns
    -------
    list of tuple
        One ``(data, arguments, "image" or "labels")``; data (Z, Y, X), read from disk as it is shown.

    Raises
    ------
    DrososegError
        If a file is damaged or no stack; napari shows it as a notification.
    """
    from napari_drososeg.io import read_stack

    stack = read_stack(path)
    data, arguments, kind = image_tuple(stack) if stack.classes is None else labels_tuple(stack)
    if not isinstance(path, (str, os.PathLike)) and len(path) > 1:
        arguments["metadata"][FILES_KEY] = [str(each) for each in path]  # napari keeps the first only
    return [(data, arguments, kind)]


def space(stack: Stack) -> dict[str, Any]:
    """Scale, units and axis labels; an axis whose size is not known counts in pixels."""
    return {
        "scale": tuple(1.0 if size is None else size for size in stack.voxel_size),
        "units": tuple("pixel" if size is None else "nanometer" for size in stack.voxel_size),
        "axis_labels": ("z", "y", "x"),
    }


def image_tuple(stack: Stack) -> LayerTuple:
    """Return an image layer."""
    metadata: dict[str, Any] = {"notices": list(stack.notices)} if stack.notices else {}
    arguments = {"name": stack.name, "colormap": "gray", "metadata": metadata, **space(stack)}
    if stack.dtype == np.uint8:
        arguments["contrast_limits"] = (0, 255)
    return stack.data, arguments, "image"


def labels_tuple(stack: Stack) -> LayerTuple:
    """Return a labels layer in class colours, with the class names for the status bar."""
    classes = stack.classes
    assert classes is not None
    arguments = {
        "name": stack.name,
        "colormap": classes.color_dict(),
        "features": label_features(classes),
        "metadata": {KEY: {"classes": classes.to_list()}},
        **space(stack),
    }
    fits = int(np.prod(stack.shape)) * stack.dtype.itemsize <= EDITABLE_BYTES
    return np.asarray(stack.data) if fits else stack.data, arguments, "labels"
