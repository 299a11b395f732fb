"""Where labels are written to: the format that a name means, and what may be replaced."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from napari_drososeg.errors import DrososegError
from napari_drososeg.io.reading import read_labels

Format = Literal["tiff", "ome-tiff", "ome-zarr", "png"]
FORMATS: tuple[Format, ...] = ("tiff", "ome-tiff", "ome-zarr", "png")

_ENDINGS: dict[str, Format] = {
    ".ome.tif": "ome-tiff",
    ".ome.tiff": "ome-tiff",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".zarr": "ome-zarr",
    ".png": "png",
}
_DEFAULT_ENDING = {"tiff": ".tif", "ome-tiff": ".ome.tif", "ome-zarr": ".ome.zarr"}


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
    ending = next((e for e in _ENDINGS if target.name.lower().endswith(e)), None)
    if format is None and ending is None:
        raise DrososegError(
            f"The format of {target} cannot be determined from its name: use the extension .tif, .ome.tif or .zarr, "
            f"or choose one of {', '.join(FORMATS)}."
        )
    if format is not None and format not in FORMATS:
        raise DrososegError(f"Unknown format '{format}': choose one of {', '.join(FORMATS)}.")
    chosen: Format = format if format is not None else _ENDINGS[str(ending)]
    if ending is not None and chosen != _ENDINGS[ending] and {chosen, _ENDINGS[ending]} != {"tiff", "ome-tiff"}:
        raise DrososegError(
            f"{target.name} does not match the format '{chosen}': change the extension or omit the format."
        )
    if ending is None and chosen in _DEFAULT_ENDING:
        target = target.with_name(target.name + _DEFAULT_ENDING[chosen])
    if chosen == "png" and n_sections > 1 and ending == ".png":
        target = target.with_suffix("")
    return target, chosen


def check_replaceable(target: Path, chosen: Format) -> None:
    """Refuse a target that must not be replaced: files are, of folders only empty ones and labels of ours.

    Raises
    ------
    DrososegError
        If it is something else.
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


def _is_ours(target: Path) -> bool:
    try:
        return read_labels(target).classes is not None
    except DrososegError:
        return False
