"""How labels written by this package say so, in every format: one JSON text."""

from __future__ import annotations

import json
from typing import Any

from napari_drososeg.classes import ClassTable
from napari_drososeg.errors import DrososegError

SOFTWARE = "napari-drososeg"
KEY = "drososeg"


def make_mark(classes: ClassTable, voxel_size: tuple[float | None, ...]) -> str:
    """Return one line of ASCII JSON with the class table and the voxel size (z, y, x) in nm."""
    return json.dumps({"labels": True, "classes": classes.to_list(), "voxel_size_nm": list(voxel_size)})


def read_mark(text: Any) -> tuple[ClassTable | None, tuple[float | None, float | None, float | None] | None]:
    """Read what `make_mark` wrote.

    Parameters
    ----------
    text : object
        Anything found where a mark may be, or the dictionary it decodes to.

    Returns
    -------
    classes : ClassTable or None
        None where it is not a mark.
    voxel_size : tuple or None
        (z, y, x) in nm.
    """
    try:
        mark = json.loads(text) if isinstance(text, str) else text
        classes = ClassTable.from_list(mark["classes"])
        z, y, x = (None if v is None else float(v) for v in mark["voxel_size_nm"])
    except (ValueError, KeyError, TypeError, DrososegError):
        return None, None
    return classes, (z, y, x)
