"""How much of each class there is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_drososeg.classes import ClassTable
from napari_drososeg.errors import DrososegError
from napari_drososeg.evaluation.truth import strips

if TYPE_CHECKING:
    from napari_drososeg.io import Stack


@dataclass
class ClassAreas:
    """Counts the pixels of each class; sections are added one after the other.

    Parameters
    ----------
    classes : ClassTable
        What the label values mean.
    pixel_area : float, optional
        Area of a pixel in nm², None where the pixel size is unknown.
    counts : ndarray of int64, shape (C + 1,)
        Pixels of each label value so far, unlabelled first.
    """

    classes: ClassTable
    pixel_area: float | None = None
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def __post_init__(self) -> None:
        if self.counts.size == 0:
            self.counts = np.zeros(len(self.classes) + 1, dtype=np.int64)

    @classmethod
    def of(cls, stack: Stack, classes: ClassTable, sections: Sequence[int] | None = None) -> ClassAreas:
        """Count a stack of labels, or some of its sections."""
        areas = cls(classes, pixel_area(stack))
        for z in range(stack.shape[0]) if sections is None else sections:
            for rows in strips(stack.shape):
                areas.add(stack.read(z, rows))
        return areas

    def add(self, labels: NDArray[Any]) -> None:
        """Count label values 0 to C of an array of any shape; other values raise `DrososegError`."""
        found = np.bincount(labels.ravel(), minlength=self.counts.size)
        if found.size > self.counts.size:
            raise DrososegError(
                f"Value {found.size - 1} in the labels is outside the class table (0 to {len(self.classes)})."
            )
        self.counts += found

    def rows(self) -> list[dict[str, Any]]:
        """Return ``name``, ``pixels``, ``fraction`` of the labelled ones, ``um2`` (or None) per class."""
        total = int(self.counts[1:].sum())
        return [
            {
                "name": c.name,
                "pixels": int(n),
                "fraction": int(n) / total if total else 0.0,
                "um2": None if self.pixel_area is None else int(n) * self.pixel_area * 1e-6,
            }
            for c, n in zip(self.classes, self.counts[1:], strict=True)
        ]


def pixel_area(stack: Stack) -> float | None:
    """Area of a pixel of the stack in nm², None where the pixel size is unknown."""
    _, y, x = stack.voxel_size
    return None if y is None or x is None else y * x
