"""Where labels are written to: the format that a name means, and what may be replaced."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from napari_drososeg.errors import DrososegError
from napari_drososeg.io.folder import is_clutter
from napari_drososeg.io.reading import read_labels

Format = Literal["tiff", "ome-tiff", "ome-zarr", "png"]
FORMATS: dict[Format, str] = {"tiff": ".tif", "ome-tiff": ".ome.tif", "ome-zarr": ".ome.zarr", "png": ".png"}
"""Formats labels are written in, and the suffix their files get."""

_ENDINGS: dict[str, Format] = {
    ".ome.tif": "ome-tiff",
    ".ome.tiff": "ome-tiff",
    ".ome.zarr": "ome-zarr",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".zarr": "ome-zarr",
    ".png": "png",
}


def _ending(path: Path) -> str:
    return next((e for e in _ENDINGS if path.name.lower().endswith(e)), "")


def format_of(path: Path) -> Format | None:
    """Return the format a name asks for, None where it has none of our suffixes."""
    return _ENDINGS.get(_ending(path))


def stem_of(path: Path) -> str:
    """Return the name of an image without its suffix."""
    return path.name[: len(path.name) - len(_ending(path))]


def same_file(one: Path, other: Path) -> bool:
    """Whether two paths lead to the same file or folder, also where their names differ in case only."""
    return one.resolve() == other.resolve() or (one.exists() and other.exists() and one.samefile(other))


def is_name_for(named: Format | None, chosen: Format) -> bool:
    """Whether a name that asks for one format, or for none, will do for another: OME-TIFF may be called ``.tif``."""
    return named in (None, chosen) or {chosen, named} == {"tiff", "ome-tiff"}


def resolve_target(path: str | os.PathLike[str], format: str | None, n_sections: int) -> tuple[Path, Format]:  # noqa: A002
    """Return the final path and the format of labels to be written.

    Parameters
    ----------
    path : path
        As the user gave it.
    format : str or None
        As the user gave it.
    n_sections : int
        Several sections as PNG need a folder: ``.png`` is dropped from its name.

    Raises
    ------
    DrososegError
        If the format is unknown or cannot be told, or the name says another one.
    """
    target = Path(path).expanduser()
    named = format_of(target)
    if format is not None and format not in FORMATS:
        raise DrososegError(f"Unknown format '{format}': choose one of {', '.join(FORMATS)}.")
    chosen = named if format is None else format
    if chosen is None:
        raise DrososegError(
            f"The format of {target} cannot be determined from its name: use the extension .tif, .ome.tif or .zarr, "
            f"or choose one of {', '.join(FORMATS)}."
        )
    if not is_name_for(named, chosen):
        raise DrososegError(
            f"{target.name} does not match the format '{chosen}': change the extension or omit the format."
        )
    if named is None and chosen != "png":
        target = target.with_name(target.name + FORMATS[chosen])
    if chosen == "png" and n_sections > 1 and named == "png":
        target = target.with_suffix("")
    return target, chosen


def check_replaceable(target: Path, chosen: Format) -> None:
    """Refuse a target that must not be replaced: files are, of folders only empty ones and labels of ours.

    Raises
    ------
    DrososegError
        If it is something else, or holds something besides.
    """
    folder = chosen == "ome-zarr" or (chosen == "png" and target.suffix.lower() != ".png")
    if not target.exists():
        return
    if target.is_file():
        if folder:
            raise DrososegError(f"{target} is a file, and {chosen} labels are a folder: choose another name.")
        return
    if not folder:
        raise DrososegError(f"{target} is a folder, and {chosen} labels are a file: choose another name.")
    if any(target.iterdir()) and not _is_ours(target):
        raise DrososegError(f"{target} exists and contains something other than labels: choose another name.")
    if (foreign := next(_not_ours(target), None)) is not None:
        raise DrososegError(
            f"{foreign} is not part of the labels in {target} and would be deleted with them: move it elsewhere, or "
            "choose another name."
        )


def _is_ours(target: Path) -> bool:
    try:
        return read_labels(target).classes is not None
    except DrososegError:
        return False


def _not_ours(target: Path) -> Iterator[Path]:
    """Iterate over what lies in a folder of labels, PNG or zarr, and none of our writers wrote."""
    of_zarr = (target / "zarr.json").is_file()
    for path in sorted(target.iterdir()):
        if is_clutter(path):
            continue
        if of_zarr and path.is_dir() and re.fullmatch(r"\d+", path.name):  # a level
            yield from (p for p in sorted(path.iterdir()) if p.name not in ("zarr.json", "c") and not is_clutter(p))
        elif path.is_dir() or not re.fullmatch(r"zarr\.json" if of_zarr else r"\d+\.png", path.name):
            yield path
