"""Classes in the metadata of a labels layer, and in the words of napari's status bar. No napari in here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from napari_drososeg.classes import ClassTable
from napari_drososeg.errors import DrososegError

KEY = "drososeg"
"""Key in a layer's metadata under which what made it is kept: its classes at least."""


def made_by(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is kept of how a layer was made; empty for layers that are not ours."""
    found = metadata.get(KEY)
    return found if isinstance(found, dict) else {}


def classes_in(metadata: Mapping[str, Any]) -> ClassTable | None:
    """Return the class table that a layer's metadata says, None if it says none."""
    rows = made_by(metadata).get("classes")
    try:
        return ClassTable.from_list(rows) if rows else None
    except DrososegError:
        return None


def label_features(classes: ClassTable) -> dict[str, list[Any]]:
    """Return the table that makes napari's status bar say the class under the cursor."""
    return {"index": list(range(len(classes) + 1)), "class": ["unlabelled", *classes.names]}
