"""Reading the truth: which values it holds, in strips that need little memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_drososeg.classes import DROSOPHILA_CLASSES, ClassTable
from napari_drososeg.errors import DrososegError
from napari_drososeg.samples.vnc import MITOCHONDRIA, VNC_VALUES

if TYPE_CHECKING:
    from napari_drososeg.io import Stack

TruthFormat = Literal["auto", "classes", "vnc"]

_ODD_EIGHTHS = frozenset({32, 96, 159, 223})
_FEWEST_VALUES = 4  # each labelled section of the data set holds all nine

STRIP_PIXELS = 1 << 22
"""Sections are read in strips of about this many pixels, so that huge ones need little memory."""


def strips(shape: Sequence[int]) -> Iterator[slice]:
    """Cut a section of the shape (..., Y, X) into row slices of about `STRIP_PIXELS` pixels."""
    rows = max(1, STRIP_PIXELS // max(1, shape[-1]))
    for start in range(0, shape[-2], rows):
        yield slice(start, min(start + rows, shape[-2]))


def detect_truth_format(truth: Stack, classes: ClassTable, sections: Sequence[int]) -> Literal["classes", "vnc"]:
    """Tell class values from the raw values of the public VNC data set.

    Parameters
    ----------
    truth : Stack
        Labels.
    classes : ClassTable
        What class values mean.
    sections : sequence of int
        Sections that matter; all of them are read.

    Returns
    -------
    {"classes", "vnc"}
        "vnc" only where values outside the class table occur, every value is one of `VNC_VALUES`, and there are so
        many, mitochondria among them, that it is no mask of a few grey values from 0 to 255.

    Raises
    ------
    DrososegError
        If it is neither.
    """
    values: set[int] = set()
    for z in sections:
        for rows in strips(truth.shape):
            values.update(np.unique(truth.read(z, rows)).tolist())
    beyond = sorted(v for v in values if not 0 <= v <= len(classes))
    if not beyond:
        return "classes"
    # masks of two to five classes are often stretched to 255: their values are quarters of it, never odd eighths
    many = len(values) >= _FEWEST_VALUES and values & set(MITOCHONDRIA) and values & _ODD_EIGHTHS
    if many and values <= VNC_VALUES:
        return "vnc"
    raise DrososegError(
        f"The truth '{truth.name}' contains the value {beyond[0]}, which is not in the class table (0 to "
        f"{len(classes)}), and its values are not clearly those of the public VNC data set: number the classes from 1, "
        f"or use --truth-format vnc if they are."
    )


def vnc_notice(name: str) -> str:
    """Return what users are told of labels that are taken for the raw ones of the public VNC data set."""
    return (
        f"'{name}' contains the raw label values of the public VNC data set; they are mapped to "
        f"{', '.join(DROSOPHILA_CLASSES.names)}."
    )


def truth_reader(
    truth: Stack, classes: ClassTable, truth_format: TruthFormat, sections: Sequence[int]
) -> Callable[[int, slice], NDArray[Any]]:
    """Return ``read(z, rows)`` giving class values whatever the format of the truth; see `evaluate`.

    Raises
    ------
    DrososegError
        If "vnc" is asked for with another class table than the three classes the data set is mapped to, or
        the format cannot be told.
    """
    found = detect_truth_format(truth, classes, sections) if truth_format == "auto" else truth_format
    if found == "classes":
        return lambda z, rows: truth.read(z, rows)
    if classes.names != DROSOPHILA_CLASSES.names:
        raise DrososegError(
            f"The truth '{truth.name}' contains raw VNC values, which are mapped to "
            f"{', '.join(DROSOPHILA_CLASSES.names)}, not to {', '.join(classes.names)}."
        )
    from napari_drososeg.samples import map_vnc_labels

    return lambda z, rows: map_vnc_labels(truth.read(z, rows))
