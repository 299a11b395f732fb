"""What becomes of the items of a run, and what happens on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_drososeg.batch.plan import Item
from napari_drososeg.batch.quality import Finding
from napari_drososeg.evaluation import ClassAreas

if TYPE_CHECKING:
    from napari_drososeg.classes import ClassTable
    from napari_drososeg.io import VoxelSize

State = Literal["done", "skipped", "failed", "stopped"]
Kind = Literal["looking", "finding", "started", "progress", "fault", "finished"]


@dataclass(frozen=True)
class Outcome:
    """What became of one item.

    Parameters
    ----------
    source, target : Path
        Input and output.
    state : str
        ``done``, ``skipped`` (done before), ``failed`` or ``stopped`` (not done, at the user's wish).
    seconds : float
        Reading and writing included, loading the network not; summed over workers.
    shape : tuple of int, optional
        (Z, Y, X).
    counts : dict
        Pixels of each label value, by section.
    voxel_size : tuple of float or None
        (z, y, x) in nm.
    areas : list of dict
        Rows of `napari_drososeg.evaluation.ClassAreas`.
    findings : tuple of Finding
        What is wrong with its sections.
    error : str, optional
        Why it failed.
    """

    source: Path
    target: Path
    state: State
    seconds: float = 0.0
    shape: tuple[int, int, int] | None = None
    counts: Mapping[int, list[int]] = field(default_factory=dict)
    voxel_size: VoxelSize = (None, None, None)
    areas: list[dict[str, Any]] = field(default_factory=list)
    findings: tuple[Finding, ...] = ()
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data."""
        return {
            "input": str(self.source),
            "output": str(self.target),
            "state": self.state,
            "seconds": round(self.seconds, 3),
            "shape": None if self.shape is None else list(self.shape),
            "classes": self.areas,
            "findings": [{"section": f.section, "kind": f.kind, "detail": f.detail} for f in self.findings],
            "error": self.error,
        }


@dataclass(frozen=True)
class Event:
    """Something that happened in a run.

    Parameters
    ----------
    kind : str
        ``looking`` (at the sections, before), ``finding``, ``started``, ``progress``, ``fault`` (something went wrong
        and was made good) or ``finished``.
    item : Item, optional
        Of which item; None for all of them.
    text : str
        In words.
    done, total : int
        For ``looking`` and ``progress``: tiles, sections or blocks.
    outcome : Outcome, optional
        For ``finished``.
    finding : Finding, optional
        For ``finding``.
    """

    kind: Kind
    item: Item | None = None
    text: str = ""
    done: int = 0
    total: int = 0
    outcome: Outcome | None = None
    finding: Finding | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data, without what is not there."""
        plain: dict[str, Any] = {"event": self.kind}
        if self.item is not None:
            plain |= {"input": str(self.item.source), "output": str(self.item.target)}
        if self.total:
            plain |= {"done": self.done, "total": self.total}
        if self.text:
            plain["text"] = self.text
        if self.finding is not None:
            plain |= {"section": self.finding.section, "kind": self.finding.kind, "detail": self.finding.detail}
        if self.outcome is not None:
            plain |= self.outcome.to_dict()
        return plain


def areas_of(counts: Mapping[int, list[int]], classes: ClassTable, voxel_size: VoxelSize) -> list[dict[str, Any]]:
    """Return the rows of `ClassAreas` for label counts by section."""
    _, y, x = voxel_size
    known = None if y is None or x is None else y * x
    if not counts:
        return ClassAreas(classes, known).rows()
    return ClassAreas(classes, known, np.sum(list(counts.values()), axis=0, dtype=np.int64)).rows()
