"""What a run in the Batch widget would find: which files, what is done, what cannot work. Slow, for a worker thread."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_drososeg._widgets.batch.job import BatchJob, in_words
from napari_drososeg._widgets.batch.refusals import culprit, header_problems, output_problems
from napari_drososeg.errors import DrososegError
from napari_drososeg.inference.rescaling import scale_for

if TYPE_CHECKING:
    from napari_drososeg.batch import Batch, Item, Job
    from napari_drososeg.io import Stack
    from napari_drososeg.zoo import NetworkCard

UNDRAWN = "overlays still to be drawn"
"""Note of a file whose labels are done."""

SAMPLE = 12
"""Files whose headers are read, for the estimate of the time and for what cannot work with any of them."""


@dataclass
class FileRow:
    """A file of a run, as the table shows it.

    Parameters
    ----------
    source, target : str
        Input and output.
    state : str
        ``waiting``, ``running``, ``done``, ``failed`` or ``stopped``.
    fraction : float
        How much of it is done while it is running.
    seconds : float or None
        What it took.
    note : str
        Why it failed, or what else there is to say.
    findings : list of dict
        Sections to look at: ``section``, ``kind``, ``detail``.
    classes : list of dict
        Areas: ``name``, ``pixels``, ``fraction``, ...
    weight : float
        Its part of the work, in any unit.
    """

    source: str
    target: str
    state: str = "waiting"
    fraction: float = 0.0
    seconds: float | None = None
    note: str = ""
    findings: list[dict[str, Any]] = field(default_factory=list)
    classes: list[dict[str, Any]] = field(default_factory=list)
    weight: float = 1.0


@dataclass(frozen=True)
class Outlook:
    """What a run would find.

    Parameters
    ----------
    rows : list of FileRow
        All files, with what the record says of them.
    n_bytes : int or None
        Size of the files that are to be done; None where some are folders.
    pixels : float or None
        About what the network will see of them; None where none of them can be read.
    replaces : int
        Outputs that are there and would be replaced.
    sizes_unknown : bool
        Whether files do not say how large their pixels are, and nobody else did.
    problems : dict of str to str
        What cannot work, by field.
    left_out : tuple of str
        Names in the input folder that are not images.
    recorded : bool
        Whether there is a record of an earlier run.
    """

    rows: list[FileRow] = field(default_factory=list)
    n_bytes: int | None = None
    pixels: float | None = None
    replaces: int = 0
    sizes_unknown: bool = False
    problems: dict[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    recorded: bool = False

    @property
    def n_done(self) -> int:
        """Files that need not be done again."""
        return sum(row.state == "done" for row in self.rows)


def look_at(job: BatchJob, card: NetworkCard) -> Outlook:
    """Find out what a run would find; reads folders, headers and the record, and writes nothing."""
    return replace(_look_at(job, card), recorded=job.record.is_file())


def _look_at(job: BatchJob, card: NetworkCard) -> Outlook:
    if not Path(job.source).exists():
        return Outlook(problems={"source": f"'{job.source}' does not exist; choose another folder."})
    if not Path(job.output).name or Path(job.output).is_file():
        return Outlook(problems={"output": f"'{job.output}' is not a folder; choose one for the labels."})
    try:
        plan = job.plan()
    except (DrososegError, OSError) as error:
        return Outlook(problems={culprit(job): in_words(str(error))})
    replaced = [str(item.target) for item in plan.items if item.target.exists()] if job.overwrite else []
    problems = output_problems(job, plan, [Path(path) for path in _sampled(replaced)])
    if problems:
        return Outlook(_rows(plan), problems=problems, left_out=plan.left_out)
    return _with_record(job, plan, card)


def _with_record(job: BatchJob, plan: Job, card: NetworkCard) -> Outlook:
    from napari_drososeg.batch import Batch

    rows, problems = _rows(plan), {}
    try:
        batch = Batch(plan, card, job.config(), lambda _text: None)
        manifest = batch.manifest
        if not job.overwrite and (problem := differences(manifest.run, batch.settings())):
            problems["existing"] = problem
        elif not job.overwrite:
            findings = findings_in(manifest.path) if manifest.path.is_file() else {}
            for row, item in zip(rows, plan.items, strict=True):
                _recall(row, item, batch)
                row.findings = findings.get(manifest.name(item), []) if row.state == "done" else []
    except (DrososegError, OSError) as error:
        return Outlook(_rows(plan), problems={"existing": in_words(str(error))}, left_out=plan.left_out)
    waiting = [row for row in rows if row.state != "done"]
    replaces = sum(item.written.exists() for item in plan.items) if job.overwrite else 0
    headers = _open([row.source for row in waiting], {})
    unlabelled = [row.source for row in waiting if row.note != UNDRAWN]
    pixels, unknown = _pixels(len(unlabelled), _open(unlabelled, headers).values(), card, job.predict.pixel_size)
    if len(waiting) == len(rows):  # else it can work, and has; the table says what is wrong with the rest
        problems |= header_problems(job, headers, card.spec.pixel_size if card.spec is not None else None)
    return Outlook(rows, _size(waiting), pixels, replaces, unknown, problems, plan.left_out)


def _rows(plan: Job) -> list[FileRow]:
    return [FileRow(str(item.source), str(item.target)) for item in plan.items]


def _recall(row: FileRow, item: Item, batch: Batch) -> None:
    """Fill in what the record says of a file."""
    entry = batch.manifest.items.get(batch.manifest.name(item), {})
    labelled, drawn = batch.has_labels(item), batch.has_overlays(item)
    if labelled and drawn:
        row.state, row.seconds, row.note = "done", entry.get("seconds"), "done before"
        row.target = str(item.written)
    elif labelled:
        row.note = UNDRAWN
    elif entry.get("state") == "failed":
        row.state, row.note = "failed", in_words(str(entry.get("error", "")))


def differences(run: dict[str, Any], settings: dict[str, Any]) -> str | None:
    """Say how the settings differ from those of an earlier run into the same output, None where they do not.

    Parameters
    ----------
    run : dict
        Line of the earlier run in the record, empty where there is none.
    settings : dict
        What decides about the result, as `napari_drososeg.batch.Batch.settings` gives it.
    """
    before = run.get("settings")
    if before is None:
        return None
    from napari_drososeg.batch.manifest import differences as changes

    changed = [
        f"{WORDS_OF_SETTINGS.get(name, name)} {_shown(was)}, now {_shown(now)}"
        for name, was, now in changes(before, settings)
    ]
    if not changed:
        return None
    return (
        f"The existing labels were made with different settings: {'; '.join(changed)}. Choose the earlier settings, "
        "another output folder, or 'redo all'."
    )


WORDS_OF_SETTINGS = {
    "network": "network",
    "--format": "format",
    "--precision": "precision",
    "--halo": "halo",
    "--orientations": "average",
    "--tile": "tile",
    "--pixel-size": "nm/pixel",
    "--invert": "invert",
    "--fill-nan": "fill NaN",
}


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return "not set" if value is None else str(value)


def findings_in(record: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the sections to look at by the name of the output, as the latest run that looked at it noted them."""
    found: dict[str, list[dict[str, Any]]] = {}
    fresh: set[str] = set()  # outputs of the run that is being read
    for entry in read_record(record):
        what, name = entry.get("what"), str(entry.get("output"))
        if what == "run":
            fresh.clear()
        elif name not in fresh and (what == "finding" or entry.get("state") == "started"):
            fresh.add(name)
            found[name] = []
        if what == "finding":
            found[name].append({key: entry.get(key) for key in ("section", "kind", "detail")})
    return found


def read_record(record: Path) -> Iterator[dict[str, Any]]:
    """Iterate over the lines of a record."""
    with record.open(encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:  # the last line of a run that was killed
                continue
            if isinstance(entry, dict):
                yield entry


def _size(rows: Sequence[FileRow]) -> int | None:
    """Return the bytes of files, and weigh them by it; None where some are folders."""
    try:
        sizes = [-1 if Path(row.source).is_dir() else Path(row.source).stat().st_size for row in rows]
    except OSError:
        return None
    if -1 in sizes:
        return None
    for row, size in zip(rows, sizes, strict=True):
        row.weight = max(1.0, size)
    return sum(sizes)


def _sampled(paths: Sequence[str]) -> Sequence[str]:
    return paths[:: max(1, -(-len(paths) // SAMPLE))]


def _open(sources: Sequence[str], known: Mapping[str, Stack | str]) -> dict[str, Stack | str]:
    """Read the headers of some files, or why they cannot be read; `known` are not read again."""
    from napari_drososeg.io import read_stack

    found: dict[str, Stack | str] = {}
    for source in _sampled(sources):
        try:
            found[source] = known[source] if source in known else read_stack(source)
        except (DrososegError, OSError) as error:
            found[source] = in_words(str(error))
    return found


def _pixels(
    n: int, headers: Iterable[Stack | str], card: NetworkCard, pixel_size: float | None
) -> tuple[float | None, bool]:
    """Estimate what the network will see of `n` files from the headers of some, and whether these lack a pixel size."""
    known = card.spec.pixel_size if card.spec is not None else None
    seen, unknown = [], False
    for stack in headers:
        if isinstance(stack, str):
            continue
        z, y, x = stack.shape
        size = pixel_size or stack.pixel_size
        unknown = unknown or size is None
        seen.append(z * y * x * (scale_for(size, known) ** 2 if known else 1.0))
    return n * sum(seen) / len(seen) if seen else None, unknown
