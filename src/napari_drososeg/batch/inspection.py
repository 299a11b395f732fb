"""The first two steps of a run: open every input, and look at its sections."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from napari_drososeg.batch.executors import Executor, reason
from napari_drososeg.batch.fingerprints import fingerprint
from napari_drososeg.batch.outcomes import Event
from napari_drososeg.batch.overlays import check_drawable
from napari_drososeg.batch.plan import Item, Part
from napari_drososeg.batch.quality import Finding, judge
from napari_drososeg.batch.survey import Place, Surveyed, SurveyTask, plan_survey, surveyed
from napari_drososeg.batch.tasks import open_input
from napari_drososeg.data.normalisation import Normalisation
from napari_drososeg.errors import DrososegError
from napari_drososeg.inference import PredictConfig
from napari_drososeg.io import VoxelSize


@dataclass
class Opened:
    """An input whose header was read.

    Parameters
    ----------
    item : Item
        Which.
    fingerprint : str
        Of the input at that moment.
    shape : tuple of int
        (Z, Y, X).
    voxel_size : tuple of float or None
        (z, y, x) in nm.
    notices : tuple of str
        Of its reader.
    sections : tuple of int
        Those to predict.
    """

    item: Item
    fingerprint: str
    shape: tuple[int, int, int]
    voxel_size: VoxelSize
    notices: tuple[str, ...]
    sections: tuple[int, ...]
    statistics: dict[int, tuple[float, float]] = field(default_factory=dict)
    unreadable: dict[int, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


def open_item(item: Item, part: Part, pixel_size: float | None, *, overlays: bool = False) -> Opened | str:
    """Open an input, of which overlays are perhaps to be drawn; returns why not, where it cannot be."""
    try:
        seen = fingerprint(item.source)
        stack = open_input(item.source, seen)
        part.check(stack)
        if overlays:
            check_drawable(stack, part)
    except (DrososegError, OSError) as error:
        return reason(error)
    z, y, x = stack.voxel_size
    size = (z, y, x) if pixel_size is None else (z, pixel_size, pixel_size)  # what was said counts for areas, too
    chosen = tuple(range(stack.n_sections)) if part.sections is None else part.sections
    return Opened(item, seen, stack.shape, size, stack.notices, chosen)


def series_of(inputs: Sequence[Opened]) -> Iterator[list[tuple[Opened, Place]]]:
    """Group sections that are neighbours: those of a stack, and those of consecutive files of one section and size."""
    singles: list[tuple[Opened, Place]] = []
    for each in inputs:
        places = [(each, Place(each.item.source.absolute(), each.fingerprint, z)) for z in each.sections]
        if each.shape[0] > 1:
            yield places
            continue
        if singles and singles[-1][0].shape != each.shape:
            yield singles
            singles = []
        singles += places
    if singles:
        yield singles


def look(
    inputs: Sequence[Opened],
    executor: Executor,
    normalisation: Normalisation,
    config: PredictConfig,
    stop: Callable[[], bool],
) -> Generator[Event, None, None]:
    """Look at the sections of all inputs; fills in what `Opened` says of them."""
    series = list(series_of(inputs))
    tasks = plan_survey([[place for _, place in group] for group in series], normalisation, config)
    total, done = sum(map(len, series)), 0
    found: dict[Place, Surveyed] = {}
    yield Event("looking", None, "", 0, total)
    with closing(executor.run(task for task in tasks if not stop())) as updates:
        for update in updates:
            task = update.task
            assert isinstance(task, SurveyTask)
            if update.fault is not None:
                yield Event("fault", None, f"{task.title}: {update.fault}")
            if update.receipt is not None:
                found |= surveyed(task, update.receipt)
            elif update.error is not None:
                found |= {place: Surveyed(None, None, update.error) for place in task.places}
            if update.final:
                done += len(task.places)
                yield Event("looking", None, "", done, total)
    for group in series:
        _fill_in(group, found)


def _fill_in(group: Sequence[tuple[Opened, Place]], found: Mapping[Place, Surveyed]) -> None:
    readable: list[tuple[Opened, Place, Surveyed]] = []
    for each, place in group:
        known = found.get(place)
        if known is None:  # stopped before
            continue
        if known.error is not None or known.measures is None or known.statistics is None:
            each.unreadable[place.z] = known.error or "not measured"
            continue
        each.statistics[place.z] = known.statistics
        readable.append((each, place, known))
    measures = [known.measures for _, _, known in readable if known.measures is not None]
    edge = max((max(each.shape[1:]) for each, _ in group), default=1)
    for finding in judge(measures, edge):
        each, place, _ = readable[finding.section]
        each.findings.append(Finding(place.z, finding.kind, finding.detail))
