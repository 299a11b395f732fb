"""Predicting one stack into one output, tile by tile."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from napari_drososeg.cli.console import Bar
from napari_drososeg.cli.items import PROBABILITIES_MARK
from napari_drososeg.errors import DrososegError
from napari_drososeg.evaluation import ClassAreas, pixel_area
from napari_drososeg.inference import Predictor, Result, write_behind
from napari_drososeg.io import Format, LabelsWriter, Stack, atomic
from napari_drososeg.io.marks import KEY

PROBABILITY_CHUNK = 512


@dataclass(frozen=True)
class Outcome:
    """What became of one item.

    Parameters
    ----------
    source, target : Path
        Input and output.
    state : str
        ``done``, ``skipped`` (done before) or ``failed``.
    seconds : float
        Reading and writing included, loading the network not.
    shape : tuple of int, optional
        (Z, Y, X).
    areas : list of dict
        Rows of `napari_drososeg.evaluation.ClassAreas`.
    error : str, optional
        Why it failed.
    """

    source: Path
    target: Path
    state: str
    seconds: float = 0.0
    shape: tuple[int, int, int] | None = None
    areas: list[dict[str, Any]] = field(default_factory=list)
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
            "error": self.error,
        }


@dataclass(frozen=True)
class Choice:
    """Which part of a stack is predicted, and what is written of it.

    Parameters
    ----------
    sections : tuple of int, optional
        All if None.
    roi : tuple of slice, optional
        (y, x) in px; the whole section if None.
    format : str
        Of the labels.
    probabilities : Path, optional
        Zarr to write the probabilities to.
    """

    sections: tuple[int, ...] | None
    roi: tuple[slice, slice] | None
    format: Format
    probabilities: Path | None = None

    def check(self, stack: Stack) -> None:
        """Refuse sections or a region outside the stack."""
        last = stack.n_sections - 1
        wrong = [z for z in self.sections or () if z > last]
        if wrong:
            raise DrososegError(f"'{stack.name}' has the sections 0 to {last}, so there is no section {wrong[0]}.")
        _, height, width = stack.shape
        if self.roi is not None and (self.roi[0].stop > height or self.roi[1].stop > width):
            raise DrososegError(
                f"The region reaches outside '{stack.name}', whose sections are {height} px high and {width} px wide."
            )


def run_item(stack: Stack, target: Path, choice: Choice, predictor: Predictor, bar: Bar) -> Outcome:
    """Predict a stack and write its labels; nothing is half-written if that fails or is stopped.

    Parameters
    ----------
    stack : Stack
        What to read.
    target : Path
        Where the labels go; they have the shape of the whole stack, with 0 where nothing was predicted.
    choice : Choice
        What to predict.
    predictor : Predictor
        With what.
    bar : Bar
        Counts the tiles.

    Returns
    -------
    Outcome
        With state "done".
    """
    started = time.monotonic()
    if size := predictor.config.pixel_size:  # what was said counts for areas and for the output, too
        stack = replace(stack, voxel_size=(stack.voxel_size[0], size, size))
    tasks = predictor.plan(stack, sections=choice.sections, roi=choice.roi)
    bar.start(stack.name, len(tasks))
    spec = predictor.spec
    areas = ClassAreas(spec.classes, pixel_area(stack))
    outputs = frozenset({"labels"} if choice.probabilities is None else {"labels", "probabilities"})
    with (
        LabelsWriter.open(target, stack.shape, choice.format, spec.classes, stack.voxel_size) as labels,
        open_probabilities(choice.probabilities, len(spec.classes), stack) as probabilities,
    ):

        def write(result: Result) -> None:
            labels.write(result.z, result.labels, result.slices)
            if choice.probabilities is not None:
                with writing(choice.probabilities):
                    probabilities[(slice(None), result.z, *result.slices)] = result.probabilities

        found = predictor.run(stack, tasks, outputs=outputs)
        # Closed before the writers are: on Ctrl+C nothing may be written to what is already aborted.
        with closing(cast("Generator[Result]", write_behind(found, write))) as results:
            for result in results:
                areas.add(result.labels)
                bar.advance()
    seconds = time.monotonic() - started
    return Outcome(stack.path or Path(stack.name), labels.path, "done", seconds, stack.shape, areas.rows())


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Name the file in what the system says about writing it, such as that the disk is full."""
    try:
        yield
    except OSError as error:
        raise DrososegError(f"'{path}' cannot be written: {error.strerror or error}.") from error


@contextmanager
def open_probabilities(path: Path | None, n_classes: int, stack: Stack) -> Iterator[Any]:
    """Open a zarr of float16 probabilities (C, Z, Y, X), or give None where there is no path."""
    if path is None:
        yield None
        return
    import zarr

    partial = atomic.temporary_sibling(path)
    chunk = tuple(min(PROBABILITY_CHUNK, n) for n in stack.shape[1:])
    try:
        with writing(path):
            array = zarr.create_array(
                partial,
                shape=(n_classes, *stack.shape),
                chunks=(n_classes, 1, *chunk),
                dtype="float16",
                fill_value=0,
                dimension_names=("c", "z", "y", "x"),
                attributes={KEY: PROBABILITIES_MARK},
                zarr_format=3,
            )
        yield array
        with writing(path):
            atomic.put_in_place(partial, path)
    finally:
        atomic.remove(partial)
