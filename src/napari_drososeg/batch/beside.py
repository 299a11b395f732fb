"""What is written besides the labels: where it goes, and what of it may be replaced."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from napari_drososeg.batch.plan import Item, Job, guarded
from napari_drososeg.errors import DrososegError
from napari_drososeg.io.folder import is_clutter
from napari_drososeg.io.marks import KEY
from napari_drososeg.io.targets import FORMATS, stem_of

PROBABILITIES_MARK = {"probabilities": True}
"""What a zarr of probabilities carries among its attributes, so that nothing else is ever replaced by one."""

OVERLAYS_MARK = {"overlay": True}
"""What an overlay carries among its texts, for the same reason."""


def probabilities_of(job: Job, item: Item, path: Path | None) -> Path | None:
    """Return the zarr that the probabilities of an item go to, None for none.

    Parameters
    ----------
    job : Job
        Of the item.
    item : Item
        One of the job's.
    path : Path, optional
        As it was asked for: the zarr of the one stack, or a folder that gets a zarr for each item.
    """
    if path is None or path.suffix.lower() == ".zarr":
        return path
    base = _below(job, item, path)
    return base.with_name(f"{base.name}.zarr")


def overlays_of(job: Job, item: Item, folder: Path) -> Path:
    """Return the folder ``NAME`` that the overlays of an item go to; those of a single section are ``NAME.png``.

    Parameters
    ----------
    job : Job
        Of the item.
    item : Item
        One of the job's; its labels give the name.
    folder : Path
        As it was asked for.
    """
    return _below(job, item, folder)


def _below(job: Job, item: Item, folder: Path) -> Path:
    """Return the name that an item has in a folder: where its labels are in the output folder, without a suffix."""
    if job.folder is None:
        return folder / stem_of(item.target)
    place = folder / item.target.parent.relative_to(job.folder)
    return place / item.target.name.removesuffix(FORMATS[job.format])


def picture_of(base: Path) -> Path:
    """Return the file of an overlay of a single section."""
    return base.with_name(f"{base.name}.png")


def drawn_at(base: Path) -> Path:
    """Return what exists, or would, of the overlays of an item: its folder or its one picture."""
    return base if base.is_dir() else picture_of(base)


def check_beside(job: Job, probabilities: Path | None, overlays: Path | None, *, replace: bool, trust: bool) -> None:
    """Refuse places where probabilities or overlays would hurt the input, the labels, each other or someone's work.

    Parameters
    ----------
    job : Job
        What is read and written besides.
    probabilities, overlays : Path, optional
        As they were asked for.
    replace : bool
        Whether earlier ones may be replaced.
    trust : bool
        Whether a record will say which overlays are ours, so that they need not be opened.

    Raises
    ------
    DrososegError
        Naming the path and why it cannot be used.
    """
    if probabilities is not None:
        _check_probabilities_name(job, probabilities)
    if overlays is not None and (overlays.is_file() or overlays.suffix.lower() in (".png", ".tif", ".tiff", ".zarr")):
        raise DrososegError(f"Overlays are written to a folder, and '{overlays}' is the name of a file; name a folder.")
    _check_apart(job, list(_wanted(job, probabilities, overlays)))
    if not replace:
        return
    for item in job.items:
        place = probabilities_of(job, item, probabilities)
        if place is not None and place.exists() and not holds_probabilities(place):
            raise DrososegError(
                f"'{place}' exists and does not contain probabilities written by this program; choose another name."
            )
        if overlays is not None and not trust:
            drawn = drawn_at(overlays_of(job, item, overlays))
            if (drawn.exists() or drawn.is_symlink()) and not holds_overlays(drawn):
                raise DrososegError(
                    f"'{drawn}' exists and does not contain overlays written by this program; choose another folder."
                )


def _check_probabilities_name(job: Job, path: Path) -> None:
    one = path.suffix.lower() == ".zarr"
    if one and len(job.items) > 1:
        raise DrososegError(
            f"'{path}' can hold the probabilities of one stack, and there are {len(job.items)}; name a folder, which "
            "gets one .zarr per stack."
        )
    if not one and (job.folder is None or path.is_file()):
        raise DrososegError(f"Probabilities are written as .zarr, not as '{path.name}'.")


def _wanted(job: Job, probabilities: Path | None, overlays: Path | None) -> Iterator[tuple[Item, str, Path, Path]]:
    """Iterate over items, what is written for them besides, the place as it was asked for, and the path."""
    for item in job.items:
        zarr = probabilities_of(job, item, probabilities)
        if probabilities is not None and zarr is not None:
            yield item, "probabilities", probabilities if zarr != probabilities else zarr.parent, zarr
        if overlays is not None:
            base = overlays_of(job, item, overlays)
            if base.name in ("", ".", "..") or base == overlays:
                raise DrososegError(f"The name of '{item.source}' cannot be used for a folder of overlays; rename it.")
            yield item, "overlays", overlays, base
            yield item, "overlays", overlays, picture_of(base)


def _check_apart(job: Job, wanted: list[tuple[Item, str, Path, Path]]) -> None:
    """Refuse what would be written into the input, over the labels, or over each other."""
    if not wanted:
        return
    taken: dict[Path, str] = {}
    for item in job.items:
        target = item.target.resolve()
        for path in {target, target.with_suffix("") if job.format == "png" else target}:
            taken[path] = f"labels '{item.target}'"
    above = {parent for path in taken for parent in path.parents}
    read = {item.source.resolve().parent for item in job.items} if job.folder is not None else set()
    below = [folder.resolve() for folder in job.searched]
    for item, what, folder, path in wanted:
        guarded(Item(item.source, path), folder)
        place = path.resolve()
        other = next((taken[p] for p in (place, *place.parents) if p in taken), None)
        if other is None and place in above:
            other = f"labels '{item.target}'"
        if other is not None:
            raise DrososegError(
                f"The {other} and the {what} '{path}' would overwrite each other; choose another name for one of them."
            )
        if place.parent in read or any(f in place.parents for f in below):
            raise DrososegError(
                f"The {what} '{path}' would be among the inputs and be read next time; choose another folder."
            )
        taken[place] = f"{what} '{path}'"


def holds_probabilities(path: Path) -> bool:
    """Whether a folder is empty or a zarr of probabilities that this program wrote."""
    if not path.is_dir():
        return False
    try:
        attributes = json.loads((path / "zarr.json").read_text(encoding="utf-8"))["attributes"]
        return bool(attributes["drososeg"] == PROBABILITIES_MARK)
    except (OSError, ValueError, KeyError, TypeError):
        return not any(path.iterdir())


def holds_overlays(path: Path) -> bool:
    """Whether a picture, or a folder and every picture in it, is an overlay that this program wrote."""
    if path.is_symlink():
        return False
    if not path.is_dir():
        return _is_overlay(path)
    files = [p for p in path.iterdir() if not is_clutter(p)]
    return all(re.fullmatch(r"\d{4,}\.png", p.name) and _is_overlay(p) for p in files)


def _is_overlay(path: Path) -> bool:
    from PIL.PngImagePlugin import PngImageFile

    try:
        with PngImageFile(path) as image:
            return bool(json.loads(str(image.info[KEY])) == OVERLAYS_MARK)
    except (OSError, SyntaxError, ValueError, KeyError):
        return False
