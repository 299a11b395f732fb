"""Read stacks lazily, write labels.

`read_stack` opens a folder of TIFF or PNG sections, a TIFF, an OME-Zarr image or a zarr array without reading its
pixels; `write_labels` and `open_labels_writer` write labels so that any other program opens them.
"""

from __future__ import annotations

from napari_drososeg.io.labels import open_labels_writer, write_labels
from napari_drososeg.io.reading import read_labels, read_stack
from napari_drososeg.io.stack import Stack, as_stack
from napari_drososeg.io.targets import FORMATS, Format, resolve_target
from napari_drososeg.io.units import UNKNOWN_VOXEL_SIZE, VoxelSize, to_nanometres
from napari_drososeg.io.writing import LabelsWriter

__all__ = [
    "FORMATS",
    "UNKNOWN_VOXEL_SIZE",
    "Format",
    "LabelsWriter",
    "Stack",
    "VoxelSize",
    "as_stack",
    "open_labels_writer",
    "read_labels",
    "read_stack",
    "resolve_target",
    "to_nanometres",
    "write_labels",
]
