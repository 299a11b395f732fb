"""What is to be predicted: which inputs, which outputs, in which format; settled before any time is spent."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from napari_drososeg.errors import DrososegError
from napari_drososeg.io.folder import SECTION_SUFFIXES, natural_key
from napari_drososeg.io.targets import FORMATS, Format, format_of, is_name_for, same_file, stem_of
from napari_drososeg.io.zarr_stack import is_zarr

if TYPE_CHECKING:
    from napari_drososeg.io import Stack


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
    """Everything one run is to do.

    Parameters
    ----------
    items : tuple of Item
        At least one.
    format : str
        Key of `napari_drososeg.io.FORMATS`.
    folder : Path or None
        The output folder, None where the output is one file or zarr.
    left_out : tuple of str
        Names in the input folder that are not images.
    searched : tuple of Path
        Input folders that are read with the folders below them.
    """

    items: tuple[Item, ...]
    format: Format
    folder: Path | None
    left_out: tuple[str, ...] = ()
    searched: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Part:
    """Which part of a stack is predicted; the rest of its labels stays 0.

    Parameters
    ----------
    sections : tuple of int, optional
        All if None.
    roi : tuple of slice, optional
        (y, x) in px; the whole section if None.
    """

    sections: tuple[int, ...] | None = None
    roi: tuple[slice, slice] | None = None

    def check(self, stack: Stack) -> None:
        """Refuse sections or a region outside the stack."""
        last = stack.n_sections - 1
        wrong = [z for z in self.sections or () if z > last]
        if wrong:
            raise DrososegError(f"'{stack.name}' has the sections 0 to {last}, so there is no section {wrong[0]}.")
        _, height, width = stack.shape
        if self.roi is not None and (self.roi[0].stop > height or self.roi[1].stop > width):
            raise DrososegError(
                f"The region extends beyond '{stack.name}', whose sections are {height} px high and {width} px wide."
            )


def plan_job(
    source: Path | Sequence[Path],
    output: str,
    chosen_format: Format | None,
    *,
    pattern: str = "*",
    subfolders: bool = False,
) -> Job:
    """Decide what is read and what is written.

    Parameters
    ----------
    source : Path or sequence of Path
        IN: files, zarrs, folders; several only where OUT is a folder. A name that is not there may be a pattern.
    output : str
        OUT as it was typed. A name with a suffix of ours is one file (or zarr) for the whole input; anything else is
        a folder that gets one output per input file.
    chosen_format : str, optional
        Key of `napari_drososeg.io.FORMATS`; else the suffix of OUT decides, and TIFF for a folder.
    pattern : str
        Names of files to take from an input folder.
    subfolders : bool
        Whether files in folders below an input folder are taken as well; the output has the same folders. Links to
        folders are not followed.

    Returns
    -------
    Job

    Raises
    ------
    DrososegError
        If there is no input, the format does not fit the name, the name says a format that is not ours, or the output
        would hurt the input.
    """
    given = _expanded([source] if isinstance(source, Path) else source)
    target = Path(output)
    named = None if output.endswith(("/", "\\")) else format_of(target)
    if named is not None and target.is_dir() and named != "ome-zarr":
        named = None  # a folder of items that happens to be called labels.tif
    if named is not None:
        if len(given) > 1:
            raise DrososegError(
                f"{len(given)} inputs need a folder as output, but '{output}' is a single file; to segment files as "
                "one stack, put them into a folder."
            )
        if pattern != "*" or subfolders:
            raise DrososegError(
                f"A pattern or subfolders select files one by one, but '{output}' is a single file; name a folder as "
                "output."
            )
        return Job((guarded(Item(given[0], target)),), _fitting(target, named, chosen_format), None)
    unknown = re.fullmatch(r"\.[a-z]{1,4}", target.suffix.lower())
    if unknown and named is None and not target.exists() and not output.endswith(("/", "\\")):
        raise DrososegError(
            f"'{output}' ends in {target.suffix}, which labels are not written as; end a file in "
            f"{', '.join(FORMATS.values())} or .zarr, and a folder in a slash: '{output}/'."
        )
    if target.is_file():
        raise DrososegError(f"'{target}' is a file without a known suffix; name the output .tif, .zarr or .png.")
    form = chosen_format or "tiff"
    items, left_out = [], []
    for each in given:
        if subfolders and each.resolve() in (target.resolve(), *target.resolve().parents):
            raise DrososegError(
                f"'{target}' lies inside the input '{each}' and would be read next time; choose an output outside it."
            )
        found, others = _inputs(each, pattern, subfolders)
        left_out += others
        for path in found:
            below = path.parent.relative_to(each) if path != each else Path()
            items.append(guarded(Item(path, target / below / (stem_of(path) + FORMATS[form])), target))
    _check_apart(items, form)
    return Job(tuple(items), form, target, tuple(left_out), tuple(p for p in given if subfolders and p.is_dir()))


def _check_apart(items: Sequence[Item], form: Format) -> None:
    """Refuse outputs that would replace each other."""
    seen: dict[str, Path] = {}
    for item in items:
        other = seen.setdefault(str(item.target).lower(), item.source)
        if other is not item.source:
            raise DrososegError(
                f"'{other.name}' and '{item.source.name}' would both be written to '{item.target.name}'; "
                "rename one of them."
            )
    if form != "png":
        return
    folders = {folder: item.source for item in items for folder in item.target.parents}
    for item in items:
        folder = item.target.with_suffix("")  # of the sections, if there are several
        if inside := folders.get(folder):
            raise DrososegError(
                f"The sections of '{item.source}' and the labels of '{inside}' would both be written into "
                f"'{folder}'; rename one of them, or choose another format than png."
            )


def _fitting(target: Path, named: Format, chosen: Format | None) -> Format:
    """Return the format of one output file; refuse a name that says something else."""
    if chosen is None or is_name_for(named, chosen):
        return chosen or named
    raise DrososegError(
        f"'{target.name}' does not match --format {chosen}; change the extension to {FORMATS[chosen]} or omit --format."
    )


def _expanded(given: Iterable[Path]) -> list[Path]:
    """Return the inputs with patterns replaced by what they match, each once; refuse what is not there."""
    found: dict[Path, None] = {}
    for path in given:
        if path.exists():
            found[path] = None
            continue
        matches = sorted(glob.glob(str(path), recursive=True)) if glob.has_magic(str(path)) else []  # noqa: PTH207
        if not matches:
            raise DrososegError(f"'{path}' does not exist; check the path of the input.")
        found.update(dict.fromkeys(map(Path, matches)))
    return list(found)


def _inputs(source: Path, pattern: str, subfolders: bool) -> tuple[list[Path], list[str]]:
    """Return the images of a folder in natural order and what else is there, or the one input."""
    if source.is_file() or is_zarr(source):
        return [source], []
    if "/" in pattern or os.sep in pattern:
        raise DrososegError(f"The pattern '{pattern}' contains a path; it selects names within the input folder only.")
    found, left_out, folders = [], [], [source]
    while folders:
        for path in sorted(folders.pop(0).iterdir(), key=natural_key):
            if path.name.startswith("."):
                continue
            fits = fnmatch(path.name, pattern)
            if fits and (is_zarr(path) or (path.is_file() and path.suffix.lower() in SECTION_SUFFIXES)):
                found.append(path)
            elif subfolders and path.is_dir() and not path.is_symlink() and not is_zarr(path):
                folders.append(path)
            else:
                left_out.append(str(path.relative_to(source)))
    if not found:
        chosen = "" if pattern == "*" else f" called '{pattern}'"
        raise DrososegError(f"There are no images{chosen} in '{source}'; it needs .tif, .png or .zarr files.")
    return found, left_out


def guarded(item: Item, folder: Path | None = None) -> Item:
    """Refuse outputs that would replace the input, contain it, become a part of it, or leave the output folder."""
    source, target = item.source.resolve(), item.target.resolve()
    if folder is not None and folder.resolve() not in item.target.parent.resolve().joinpath("x").parents:
        raise DrososegError(f"'{item.target.parent}' is a link that points outside '{folder}'; remove it.")
    if same_file(item.source, item.target):
        raise DrososegError(f"'{item.target}' is the input itself; choose another output.")
    if source in target.parents:
        raise DrososegError(
            f"'{item.target}' lies inside the input '{item.source}' and would be read as part of it next time; "
            "choose an output outside it."
        )
    if target in source.parents:
        raise DrososegError(f"'{item.target}' contains the input '{item.source}'; choose another output.")
    return item
