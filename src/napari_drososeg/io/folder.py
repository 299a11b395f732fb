"""Open a folder, or a list, of single-section files as one stack."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from napari_drososeg.errors import DrososegError
from napari_drososeg.io.lazy import Section, SectionArray
from napari_drososeg.io.png import open_png
from napari_drososeg.io.stack import Stack
from napari_drososeg.io.tiff import open_tiff

TIFF_SUFFIXES = (".tif", ".tiff")
PNG_SUFFIXES = (".png",)
SECTION_SUFFIXES = TIFF_SUFFIXES + PNG_SUFFIXES

_CLUTTER = {".ds_store", "thumbs.db", "desktop.ini", "icon\r"}


def is_clutter(path: Path) -> bool:
    """Whether a file has a name that systems put into folders that are only looked at; nobody meant it to be there."""
    return path.name.lower() in _CLUTTER or path.name.startswith("._")


def natural_key(path: Path) -> tuple[tuple[int, int | str], ...]:
    """Sort key by which ``s2.tif`` comes before ``s10.tif``."""
    parts = re.split(r"(\d+)", path.name.lower())
    return (*((0, int(p)) if p.isdigit() and p.isascii() else (1, p) for p in parts), (2, path.name))


def open_image(path: Path, *, indices: bool = False) -> Stack:
    """Open one TIFF or PNG file; see `open_tiff` and `open_png`."""
    if path.suffix.lower() in PNG_SUFFIXES:
        return open_png(path, indices=indices)
    return open_tiff(path, indices=indices)


def section_files(folder: Path) -> list[Path]:
    """List the image files of a folder in natural order.

    Raises
    ------
    DrososegError
        If there is none, there are other files or two formats, or one is a link to nothing.
    """
    seen = [p for p in folder.iterdir() if not p.name.startswith(".") and not is_clutter(p)]
    for path in seen:
        if path.is_symlink() and path.suffix.lower() in SECTION_SUFFIXES and not path.exists():
            raise DrososegError(f"{path} is a link to a file that is not there: bring it back, or remove the link.")
    files = [p for p in seen if p.is_file()]
    images = sorted((p for p in files if p.suffix.lower() in SECTION_SUFFIXES), key=natural_key)
    if not images:
        raise DrososegError(f"{folder} holds no TIFF or PNG sections{_hint(folder)}.")
    others = sorted(set(files) - set(images))
    if others:
        raise DrososegError(
            f"{folder} contains files other than TIFF or PNG sections ({others[0].name}): move them elsewhere."
        )
    kinds = Counter("PNG" if p.suffix.lower() in PNG_SUFFIXES else "TIFF" for p in images)
    if len(kinds) > 1:
        odd = min(kinds, key=lambda k: kinds[k])
        name = next(p.name for p in images if (p.suffix.lower() in PNG_SUFFIXES) == (odd == "PNG"))
        raise DrososegError(f"{folder} mixes TIFF and PNG sections ({name}): keep one format in the folder.")
    return images


def _hint(folder: Path) -> str:
    for inner in sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")):
        if any(p.suffix.lower() in SECTION_SUFFIXES for p in inner.iterdir()):
            return f"; its folder {inner.name} does, open that one"
    return ""


def open_sections(files: Sequence[Path], *, name: str, path: Path | None = None, indices: bool = False) -> Stack:
    """Open files of one section each as one stack, in the order given.

    Parameters
    ----------
    files : sequence of Path
        TIFF or PNG files.
    name : str
        Name of the stack.
    path : Path or None
        Their folder.
    indices : bool
        Whether palette images are labels.

    Returns
    -------
    Stack
        Only the headers are read here.

    Raises
    ------
    DrososegError
        If one is damaged, or differs from the first in size or type; it is named.
    """
    sections: list[Section] = []
    first: Stack | None = None
    notices: list[str] = []
    for file in files:
        stack = open_image(file, indices=indices)
        if len(files) == 1:
            return Stack(stack.data, name, stack.voxel_size, path, stack.notices, stack.classes)
        first = first or stack
        _check_same(stack, first, file, files[0])
        if stack.voxel_size != first.voxel_size and not any("voxel" in n for n in notices):
            notices.append(f"{file.name}: its voxel size differs from {files[0].name}, whose is used")
        notices.extend(n for n in stack.notices if n.split(": ", 1)[-1] not in {m.split(": ", 1)[-1] for m in notices})
        sections.extend(stack.data.sections)
    if first is None:
        raise DrososegError(f"There are no files to open as '{name}'.")
    return Stack(SectionArray(sections), name, first.voxel_size, path, tuple(notices), first.classes)


def _check_same(stack: Stack, first: Stack, file: Path, first_file: Path) -> None:
    if stack.n_sections != 1:
        raise DrososegError(
            f"{file} has {stack.n_sections} pages; the files of a folder must hold one section each: open it by itself."
        )
    for what, a, b in (("size", stack.shape[1:], first.shape[1:]), ("type", stack.dtype, first.dtype)):
        if a != b:
            shown = [" x ".join(map(str, v)) if isinstance(v, tuple) else str(v) for v in (a, b)]
            raise DrososegError(
                f"{file} differs in {what} ({shown[0]}) from {first_file.name} ({shown[1]}): "
                f"sections of one stack must share one {what}."
            )
