"""How much of each class there is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_drososeg.classes import ClassTable


@dataclass
class ClassAreas:
    """Pixels of each class.

    Parameters
    ----------
    classes : ClassTable
        What the label values mean.
    pixel_area : float, optional
        Area of a pixel in nm², None where the pixel size is unknown.
    counts : ndarray of int64, shape (C + 1,)
        Pixels of each label value, unlabelled first; none unless given.
    """

    classes: ClassTable
    pixel_area: float | None = None
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def __post_init__(self) -> None:
        if self.counts.size == 0:
            self.counts = np.zeros(len(self.classes) + 1, dtype=np.int64)

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
