"""The task of predicting one stack whole, into files under temporary names."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from napari_drososeg.batch.beside import PROBABILITIES_MARK
from napari_drososeg.batch.plan import Part
from napari_drososeg.batch.tasks import Progress, Receipt, Setup, count_labels, load, open_input, statistics_from
from napari_drososeg.checkpoint import NetworkSpec
from napari_drososeg.errors import DrososegError
from napari_drososeg.inference import Predictor, Result, write_behind
from napari_drososeg.io import Format, Stack, atomic, open_labels_writer
from napari_drososeg.io.marks import KEY

PROBABILITY_CHUNK = 512


@dataclass(frozen=True)
class StackTask:
    """Predict a stack and write its labels beside their final place, complete and synced.

    The receipt says ``labels``: the temporary and the final path of the labels, ``probabilities``: likewise or None,
    ``shape``, ``counts``: pixels of each label value for each predicted section, ``checksum`` of the labels' files and
    ``engine``.

    Parameters
    ----------
    source : Path
        The input.
    fingerprint : str
        Of the input, as the run saw it.
    target : Path
        Where the labels are to go; they have the shape of the whole stack, with 0 where nothing was predicted.
    form : str
        Format of the labels.
    part : Part
        What to predict.
    setup : Setup
        With what.
    tile : int
        Longest edge in px that the network sees at once.
    probabilities : Path, optional
        Zarr to write the probabilities to as well.
    statistics : dict, optional
        (mean, std) of sections that were surveyed.
    """

    source: Path
    fingerprint: str
    target: Path
    form: Format
    part: Part
    setup: Setup
    tile: int
    probabilities: Path | None = None
    statistics: Mapping[int, tuple[float, float]] | None = None

    @property
    def title(self) -> str:
        """See `Task`."""
        return self.source.name

    def steps(self) -> Generator[Progress, None, Receipt]:
        """See `Task`."""
        loaded = load(self.setup)
        stack = open_input(self.source, self.fingerprint)
        facts, seconds = yield from predict_stack(
            stack,
            self.target,
            self.form,
            self.part,
            loaded.predictor,
            tile=self.tile,
            probabilities=self.probabilities,
            statistics=self.statistics,
        )
        return Receipt(facts, seconds, notices=loaded.notices())


def predict_stack(
    stack: Stack,
    target: Path,
    form: Format,
    part: Part,
    predictor: Predictor,
    *,
    tile: int | None = None,
    probabilities: Path | None = None,
    statistics: Mapping[int, tuple[float, float]] | None = None,
) -> Generator[Progress, None, tuple[dict[str, Any], float]]:
    """Predict a stack into files under temporary names; nothing is left if that fails or is stopped.

    Returns
    -------
    facts : dict
        See `StackTask`.
    seconds : float
        What it took.
    """
    started = time.monotonic()
    if size := predictor.config.pixel_size:  # what was said counts for the output, too
        stack = replace(stack, voxel_size=(stack.voxel_size[0], size, size))
    tasks = predictor.plan(stack, sections=part.sections, roi=part.roi, tile=tile)
    spec = predictor.spec
    counts = {task.z: [0] * (len(spec.classes) + 1) for task in tasks}
    outputs = frozenset({"labels"} if probabilities is None else {"labels", "probabilities"})
    n_results = sum(task.tile.writes for task in tasks)
    yield Progress(0, n_results)
    labels = open_labels_writer(target, stack.shape, form, spec.classes, stack.voxel_size)
    partial: Path | None = None
    try:
        array, partial = (None, None) if probabilities is None else begin_probabilities(probabilities, spec, stack)

        def write(result: Result) -> None:
            labels.write(result.z, result.labels, result.slices)
            if probabilities is not None:
                with writing(probabilities):
                    cast("Any", array)[(slice(None), result.z, *result.slices)] = result.probabilities

        found = predictor.run(
            stack, tasks, outputs=outputs, statistics=None if statistics is None else statistics_from(statistics)
        )
        # Closed before the writers are: on Ctrl+C nothing may be written to what is already aborted.
        with closing(cast("Generator[Result]", write_behind(found, write))) as results:
            for k, result in enumerate(results, start=1):
                counts[result.z] = np.add(counts[result.z], count_labels(result.labels, len(spec.classes))).tolist()
                yield Progress(k, n_results)
        temporary = labels.finish()
        if partial is not None and probabilities is not None:
            with writing(probabilities):
                atomic.sync(partial)
        digest = file_checksum(temporary)
    except BaseException:
        labels.abort()
        if partial is not None:
            atomic.remove(partial)
        raise
    facts = {
        "labels": [str(temporary), str(labels.path)],
        "probabilities": None if partial is None else [str(partial), str(probabilities)],
        "shape": list(stack.shape),
        "counts": {str(z): row for z, row in counts.items()},
        "checksum": digest,
        "engine": predictor.description,
    }
    return facts, time.monotonic() - started


def predict_file(
    stack: Stack,
    target: Path,
    form: Format,
    part: Part,
    predictor: Predictor,
    show: Callable[[str, float, int], None],
) -> tuple[Path, list[int], float]:
    """Predict one stack into one output at once, without a manifest.

    Parameters
    ----------
    stack, target, form, part, predictor
        As in `predict_stack`.
    show : callable
        Told the stack's name, the tiles done, and of how many.

    Returns
    -------
    path : Path
        What was written.
    counts : list of int
        Pixels of each label value.
    seconds : float
        What it took.
    """
    with closing(predict_stack(stack, target, form, part, predictor)) as steps:
        while True:
            try:
                progress = next(steps)
            except StopIteration as end:
                facts, seconds = end.value
                break
            show(stack.name, progress.done, progress.total)
    try:
        put_in_place(facts)
    finally:
        discard(facts)
    counts = np.sum(list(facts["counts"].values()), axis=0)
    return Path(facts["labels"][1]), [int(n) for n in counts], seconds


def put_in_place(facts: Mapping[str, Any]) -> None:
    """Give what a `StackTask` wrote its final names, replacing what has them."""
    for pair in (facts["labels"], facts["probabilities"]):
        if pair is not None:
            with writing(Path(pair[1])):
                atomic.put_in_place(Path(pair[0]), Path(pair[1]))


def discard(facts: Mapping[str, Any]) -> None:
    """Remove what a `StackTask` wrote."""
    for pair in (facts["labels"], facts["probabilities"]):
        if pair is not None:
            atomic.remove(Path(pair[0]))


def file_checksum(path: Path) -> str:
    """Return the BLAKE2b of a file, or of all files of a folder with their names, as 32 hex digits."""
    digest = hashlib.blake2b(digest_size=16)
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    for each in files:
        if each != path:
            digest.update(each.relative_to(path).as_posix().encode() + b"\0")
        with each.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Name the file in what the system says about writing it, such as that the disk is full."""
    try:
        yield
    except OSError as error:
        raise DrososegError(f"'{path}' cannot be written: {error.strerror or error}.") from error


def begin_probabilities(path: Path, spec: NetworkSpec, stack: Stack) -> tuple[Any, Path]:
    """Begin a zarr of float16 probabilities (C, Z, Y, X); returns the array and its temporary path."""
    import zarr

    partial = atomic.temporary_sibling(path)
    n_classes = len(spec.classes)
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
    except BaseException:
        atomic.remove(partial)
        raise
    return array, partial
