"""The task of looking at sections before anything is predicted: their quality, and their statistics."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_drososeg.batch.executors import reason
from napari_drososeg.batch.quality import SectionMeasures, Thumbnail, measure_section
from napari_drososeg.batch.tasks import Progress, Receipt, open_input
from napari_drososeg.data.normalisation import Normalisation
from napari_drososeg.errors import DrososegError
from napari_drososeg.inference import PredictConfig
from napari_drososeg.inference.reading import TileReader

SLAB = 32
"""Sections looked at by one task."""


@dataclass(frozen=True)
class Place:
    """Where a section is.

    Parameters
    ----------
    source : Path
        The input.
    fingerprint : str
        Of the input, as the run saw it.
    z : int
        Section in it.
    """

    source: Path
    fingerprint: str
    z: int


@dataclass(frozen=True)
class Surveyed:
    """What was found out about a section.

    Parameters
    ----------
    measures : SectionMeasures or None
        None where it cannot be read.
    statistics : tuple of float or None
        (mean, std) that the network's normalisation takes for it.
    error : str or None
        Why it cannot be read.
    """

    measures: SectionMeasures | None
    statistics: tuple[float, float] | None
    error: str | None


@dataclass(frozen=True)
class SurveyTask:
    """Look at consecutive sections, of one stack or of files of one section each.

    The receipt says ``sections``: for each the measures as `SectionMeasures.to_list`, (mean, std) and the error, each
    or None.

    Parameters
    ----------
    places : tuple of Place
        The sections.
    before : Place or None
        What the first one is compared with.
    normalisation : Normalisation
        Of the network.
    config : PredictConfig
        What to do with NaN.
    """

    places: tuple[Place, ...]
    before: Place | None
    normalisation: Normalisation
    config: PredictConfig

    @property
    def title(self) -> str:
        """See `Task`."""
        return f"looking at {self.places[0].source.name}"

    def steps(self) -> Generator[Progress, None, Receipt]:
        """See `Task`."""
        started = time.monotonic()
        before = None if self.before is None else _thumbnail(self.before)
        reader: TileReader | None = None
        opened: Path | None = None
        rows: list[list[object]] = []
        for k, place in enumerate(self.places, start=1):
            try:
                stack = open_input(place.source, place.fingerprint)
                if reader is None or place.source != opened:
                    reader, opened = TileReader(stack, self.normalisation, self.config, _found_by_quality), place.source
                found = reader.statistics(place.z)
                now = Thumbnail(stack, place.z)
                rows.append([measure_section(now, before).to_list(), [found.mean, found.std], None])
                before = now
            except (DrososegError, OSError) as error:  # one bad file says nothing about the others
                rows.append([None, None, reason(error)])
                before = None
            yield Progress(k, len(self.places))
        return Receipt({"sections": rows}, time.monotonic() - started)


def _found_by_quality(_notice: str) -> None:
    """Say nothing of constant sections: `judge` finds them."""


def _thumbnail(place: Place) -> Thumbnail | None:
    try:
        return Thumbnail(open_input(place.source, place.fingerprint), place.z)
    except (DrososegError, OSError):  # told where it is looked at itself
        return None


def plan_survey(
    series: Iterable[Sequence[Place]], normalisation: Normalisation, config: PredictConfig
) -> list[SurveyTask]:
    """Cut series of neighbouring sections into tasks."""
    return [
        SurveyTask(tuple(places[k : k + SLAB]), places[k - 1] if k else None, normalisation, config)
        for places in series
        for k in range(0, len(places), SLAB)
    ]


def surveyed(task: SurveyTask, receipt: Receipt) -> dict[Place, Surveyed]:
    """Return what a task found out about each of its sections."""
    found = {}
    for place, (measures, pair, error) in zip(task.places, receipt.facts["sections"], strict=True):
        statistics = None if pair is None else (float(pair[0]), float(pair[1]))
        known = None if measures is None else SectionMeasures.from_list(measures)
        found[place] = Surveyed(known, statistics, error)
    return found
