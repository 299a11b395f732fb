"""The area table: how much of each class there is, per file and section, as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_drososeg.batch.outcomes import Outcome, areas_of
from napari_drososeg.io import atomic

if TYPE_CHECKING:
    from napari_drososeg.classes import ClassTable

COLUMNS = ("input", "output", "section", "class", "pixels", "um2", "fraction", "um3")
"""``section`` counts from 0, ``all`` for the whole stack, which alone has a volume; ``fraction`` is of the labelled
pixels. Empty where the pixel size, or the distance of the sections, is not known."""


def area_rows(outcome: Outcome, classes: ClassTable) -> Iterator[dict[str, Any]]:
    """Iterate over the rows of one item: each section and class, then the whole stack."""
    z_size = outcome.voxel_size[0]
    sections = [(str(z), {z: outcome.counts[z]}) for z in sorted(outcome.counts)]
    for section, counts in [*sections, ("all", dict(outcome.counts))]:
        for row in areas_of(counts, classes, outcome.voxel_size):
            volume = None if section != "all" or row["um2"] is None or z_size is None else row["um2"] * z_size * 1e-3
            yield {
                "input": str(outcome.source),
                "output": str(outcome.target),
                "section": section,
                "class": row["name"],
                "pixels": row["pixels"],
                "um2": _number(row["um2"]),
                "fraction": f"{row['fraction']:.6f}",
                "um3": _number(volume),
            }


def write_areas(path: Path, outcomes: Iterable[Outcome], classes: ClassTable) -> Path:
    """Write the table of all items that are done, this time or before.

    Parameters
    ----------
    path : Path
        CSV file; replaced once the new one is complete.
    outcomes : iterable of Outcome
        Of a run.
    classes : ClassTable
        Of its network.
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for outcome in outcomes:
        if outcome.state in ("done", "skipped"):
            writer.writerows(area_rows(outcome, classes))
    return atomic.write_bytes(path, text.getvalue().encode(errors="surrogateescape"))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
