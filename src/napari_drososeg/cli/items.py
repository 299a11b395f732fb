"""What is to be predicted: which inputs, which outputs, in which format; settled before any time is spent."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_drososeg.errors import DrososegError

if TYPE_CHECKING:
    from napari_drososeg.io import Format

FORMATS: dict[Format, str] = {"tiff": ".tif", "ome-tiff": ".ome.tif", "ome-zarr": ".ome.zarr", "png": ".png"}
"""Formats labels are written in, and the suffix their files get."""

PROBABILITIES_MARK = {"probabilities": True}
"""What a zarr of probabilities carries among its attributes, so that nothing else is ever replaced by one."""


@dataclass(frozen=True)
class Item:
    """One stack to predict.

    Parameters
    ----------
    source : Path
        File, folder or zarr.
    target : Path
        Where its labels go.
    """

    source: Path
    target: Path

    @property
    def written(self) -> Path:
        """What exists, or would: several sections become a folder of PNG files of the same name."""
        folder = self.target.with_suffix("")
        return folder if self.target.suffix.lower() == ".png" and folder.is_dir() else self.target


@dataclass(frozen=True)
class Job:
    """Everything one ``predict`` command is to do.

    Parameters
    ----------
    items : tuple of Item
        At least one.
    format : str
        Key of `FORMATS`.
    folder : Path or None
        The output folder, None where the output is one file or zarr.
    left_out : tuple of str
        Names in the input folder that are no images.
    """

    items: tuple[Item, ...]
    format: Format
    folder: Path | None
    left_out: tuple[str, ...] = ()


def format_of(path: Path) -> Format | None:
    """Return the format a name asks for, None where it has none of our suffixes (so it is a folder)."""
    name = path.name.lower()
    if name.endswith((".ome.tif", ".ome.tiff")):
        return "ome-tiff"
    if name.endswith((".tif", ".tiff")):
        return "tiff"
    if name.endswith(".zarr"):
        return "ome-zarr"
    return "png" if name.endswith(".png") else None


def plan_job(source: Path, output: str, chosen_format: Format | None) -> Job:
    """Decide what is read and what is written.

    Parameters
    ----------
    source : Path
        IN: a file, a zarr or a folder.
    output : str
        OUT as it was typed. A name with a suffix of ours is one file (or zarr) for the whole input; anything else is
        a folder that gets one output per input file.
    chosen_format : str, optional
        Key of `FORMATS`; else the suffix of OUT decides, and TIFF for a folder.

    Returns
    -------
    Job

    Raises
    ------
    DrososegError
        If there is no input, the format does not fit the name, or the output would hurt the input.
    """
    if not source.exists():
        raise DrososegError(f"'{source}' does not exist; check the path of the input.")
    target = Path(output)
    named = None if output.endswith(("/", "\\")) else format_of(target)
    if named is not None and target.is_dir() and named != "ome-zarr":
        named = None  # a folder of items that happens to be called labels.tif
    if named is not None:
        return Job((_guarded(Item(source, target)),), _fitting(target, named, chosen_format), None)
    if target.is_file():
        raise DrososegError(f"'{target}' is a file without a known suffix; name the output .tif, .zarr or .png.")
    form = chosen_format or "tiff"
    sources, left_out = _inputs(source)
    items = []
    for each in sources:
        items.append(_guarded(Item(each, target / (_stem(each) + FORMATS[form]))))
    seen: dict[str, Path] = {}
    for item in items:
        other = seen.setdefault(item.target.name.lower(), item.source)
        if other is not item.source:
            raise DrososegError(
                f"'{other.name}' and '{item.source.name}' would both be written to '{item.target.name}'; "
                "rename one of them."
            )
    return Job(tuple(items), form, target, tuple(left_out))


def _fitting(target: Path, named: Format, chosen: Format | None) -> Format:
    """Return the format of one output file; refuse a name that says something else."""
    if chosen is None or chosen == named or {chosen, named} == {"tiff", "ome-tiff"}:
        return chosen or named
    raise DrososegError(
        f"'{target.name}' is no name for --format {chosen}; let it end in {FORMATS[chosen]} or leave --format out."
    )


def _inputs(source: Path) -> tuple[list[Path], list[str]]:
    """Return the images of a folder in natural order and what else is there, or the one input."""
    from napari_drososeg.io.folder import SECTION_SUFFIXES, natural_key
    from napari_drososeg.io.zarr_stack import is_zarr

    if source.is_file() or is_zarr(source):
        return [source], []
    found, left_out = [], []
    for path in sorted(source.iterdir(), key=natural_key):
        if path.name.startswith("."):
            continue
        if is_zarr(path) or (path.is_file() and path.suffix.lower() in SECTION_SUFFIXES):
            found.append(path)
        else:
            left_out.append(path.name)
    if not found:
        raise DrososegError(f"There are no images in '{source}'; it needs .tif, .png or .zarr files.")
    return found, left_out


def _stem(path: Path) -> str:
    name = path.name
    for suffix in (".ome.tiff", ".ome.tif", ".ome.zarr", ".tiff", ".tif", ".zarr", ".png"):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def _guarded(item: Item) -> Item:
    """Refuse outputs that would replace the input, contain it, or become a part of it."""
    source, target = item.source.resolve(), item.target.resolve()
    if source == target:
        raise DrososegError(f"'{item.target}' is the input itself; choose another output.")
    if source in target.parents:
        raise DrososegError(
            f"'{item.target}' lies inside the input '{item.source}' and would be read as a part of it the next "
            "time; choose an output outside."
        )
    if target in source.parents:
        raise DrososegError(f"'{item.target}' contains the input '{item.source}'; choose another output.")
    return item


def check_probabilities(job: Job, path: Path, *, replace: bool) -> None:
    """Refuse a place for probabilities where they would hurt the input, the labels or someone's work.

    Parameters
    ----------
    job : Job
        What is read and written besides.
    path : Path
        Zarr to write.
    replace : bool
        Whether earlier probabilities may be replaced.

    Raises
    ------
    DrososegError
        Naming the path and why it cannot be used.
    """
    if path.suffix.lower() != ".zarr":
        raise DrososegError(f"Probabilities are written as .zarr, not as '{path.name}'.")
    place = path.resolve()
    for item in job.items:
        _guarded(Item(item.source, path))
        labels = item.target.resolve()
        if place == labels or place in labels.parents or labels in place.parents:
            raise DrososegError(
                f"The labels '{item.target}' and the probabilities '{path}' would be written over each other; "
                "choose another name for one of them."
            )
    if replace and path.exists() and not holds_probabilities(path):
        raise DrososegError(f"'{path}' exists and holds no probabilities of ours; choose another name.")


def holds_probabilities(path: Path) -> bool:
    """Whether a folder is empty or a zarr of probabilities that this program wrote."""
    if not path.is_dir():
        return False
    try:
        attributes = json.loads((path / "zarr.json").read_text(encoding="utf-8"))["attributes"]
        return bool(attributes["drososeg"] == PROBABILITIES_MARK)
    except (OSError, ValueError, KeyError, TypeError):
        return not any(path.iterdir())
