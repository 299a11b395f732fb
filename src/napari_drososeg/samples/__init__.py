"""Stacks to try things on: the public one by download, a synthetic one by our own generator."""

from __future__ import annotations

from napari_drososeg.samples.synthetic import synthetic_stack
from napari_drososeg.samples.vnc import (
    ATTRIBUTION,
    drosophila_vnc,
    fetch_vnc,
    find_vnc,
    map_vnc_labels,
    read_vnc_labels,
)

__all__ = [
    "ATTRIBUTION",
    "drosophila_vnc",
    "fetch_vnc",
    "find_vnc",
    "map_vnc_labels",
    "read_vnc_labels",
    "synthetic_stack",
]
