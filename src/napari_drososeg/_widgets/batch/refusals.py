"""What of a batch job cannot work, and which field is to say so: known before the click. No Qt here."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from napari_drososeg._widgets.batch.job import BatchJob, in_words
from napari_drososeg.errors import DrososegError
from napari_drososeg.inference.rescaling import grid_for

if TYPE_CHECKING:
    from napari_drososeg.batch import Job
    from napari_drososeg.io import Stack

BESIDE = ("overlays", "probabilities")
"""Fields of what may be written beside labels and areas."""


def culprit(job: BatchJob) -> str:
    """Return the field at fault where a job cannot be planned: it is the output if another one would do."""
    with tempfile.TemporaryDirectory(prefix="drososeg-") as elsewhere:
        try:
            replace(job, output=elsewhere).plan()
        except (DrososegError, OSError):
            return "source" if job.one_stack or job.pattern in ("", "*") else "pattern"
    return "output"


def output_problems(job: BatchJob, plan: Job, replaced: Sequence[Path]) -> dict[str, str]:
    """Say which of the outputs cannot be written together, or where they are to go.

    Parameters
    ----------
    job : BatchJob
        What is chosen.
    plan : Job
        The same as it would be done.
    replaced : sequence of Path
        Labels that would be replaced; some will do, where there are many.
    """
    found = _place_problems(job)
    if found:
        return found
    try:
        replace(job, areas=False).config().check(plan)
    except DrososegError as error:
        return {_beside_culprit(job, plan): in_words(str(error))}
    from napari_drososeg.io.targets import check_replaceable

    try:
        for path in replaced:
            check_replaceable(path, plan.format)
    except DrososegError as error:
        return {"output": in_words(str(error))}
    return _area_problem(job)


def _place_problems(job: BatchJob) -> dict[str, str]:
    """Find the folders that nothing can be written to."""
    from napari_drososeg.io.atomic import unwritable

    found = {}
    places = {"output": Path(job.output), "areas": job.areas_path and job.areas_path.parent}
    places |= {"overlays": job.overlays_path, "probabilities": job.probabilities_path}
    for field, place in places.items():
        if place is not None and (reason := unwritable(place)):
            ways_out = "choose another folder" if field == "output" else "untick this, or choose another output folder"
            found[field] = f"{reason}; {ways_out}."
    return found


def _beside_culprit(job: BatchJob, plan: Job) -> str:
    """Return the field without which the places of what is written besides would be good ones."""
    for field in BESIDE:
        try:
            replace(job, areas=False, **{field: False}).config().check(plan)  # type: ignore[arg-type]
        except DrososegError:
            continue
        return field
    return next((field for field in BESIDE if getattr(job, field)), "output")  # both: one after the other


def _area_problem(job: BatchJob) -> dict[str, str]:
    """Refuse to replace a table that is not ours."""
    from napari_drososeg.batch.areas import COLUMNS

    path = job.areas_path
    if path is None or not path.exists():
        return {}
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            ours = file.readline().strip() == ",".join(COLUMNS)
    except OSError:
        ours = False
    problem = f"'{path}' exists and was not written as an area table by this program; move it, or untick this."
    return {} if ours else {"areas": problem}


def header_problems(job: BatchJob, headers: Mapping[str, Stack | str], network: float | None) -> dict[str, str]:
    """Say what cannot work with any of the files; what is wrong with some of them, the table says.

    Parameters
    ----------
    job : BatchJob
        What is chosen.
    headers : mapping of str to Stack or str
        Files to do, or some of many, as they were opened, or why they were not.
    network : float or None
        Pixel size in nm that the network was trained at.
    """
    stacks = [stack for stack in headers.values() if not isinstance(stack, str)]
    if len(headers) == 1 and not stacks:
        return {"source": next(map(str, headers.values()))}
    found = {}
    if job.overlays and (reasons := _undrawable(stacks)) and len(reasons) == len(stacks):
        found["overlays"] = reasons[0]
    if network and job.predict.pixel_size is None:
        reasons = []
        for stack in stacks:
            try:
                grid_for(stack.shape[1:], stack.pixel_size, network, name=stack.name)
            except DrososegError as error:
                reasons.append(in_words(str(error)))
        if reasons and len(reasons) == len(stacks):
            found["pixel_size"] = reasons[0]
    return found


def _undrawable(stacks: Sequence[Stack]) -> list[str]:
    """Say which sections are too large for a picture."""
    from napari_drososeg.batch.overlays import MAX_PIXELS

    return [
        f"Overlays are limited to sections of up to {MAX_PIXELS / 1e6:.0f} megapixels, and those of '{stack.name}' "
        f"have {stack.shape[1] * stack.shape[2] / 1e6:.0f}; untick this."
        for stack in stacks
        if stack.shape[1] * stack.shape[2] > MAX_PIXELS
    ]
