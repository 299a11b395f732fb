"""Options that several commands share, and the reading of their values."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from napari_drososeg.errors import DrososegError

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Suppress progress and notices; show only errors.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Model = Annotated[
    str | None,
    typer.Option("--model", "-m", help="Network: a name from 'drososeg models', or a .safetensors file."),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Engine = Annotated[str, typer.Option(help="auto, openvino or torch.")]
Precision = Annotated[str, typer.Option(help="auto, f32, bf16, f16 or int8.")]
PixelSize = Annotated[
    float | None, typer.Option(help="Pixel size of the image in nm, if its file does not give it or is wrong.")
]
Invert = Annotated[bool, typer.Option("--invert", help="Invert grey values, for images with bright membranes.")]
FillNan = Annotated[float | None, typer.Option(help="Replace NaN and infinity with this grey value.")]

SECTIONS_EXAMPLE = "write them as 0-15, 3,5 or 0-3,8 (numbers count from 0)"


def parse_sections(text: str) -> list[int]:
    """Read a choice of sections.

    Parameters
    ----------
    text : str
        For example ``"0-15"``, ``"3,5"`` or ``"0-3,8"``; ranges include their end.

    Returns
    -------
    list of int
        In the order written.

    Raises
    ------
    DrososegError
        If it cannot be read, a range runs backwards or a section is named twice.
    """
    sections: list[int] = []
    for part in text.replace(" ", "").split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if match is None:
            raise DrososegError(f"'{text}' is not a list of sections; {SECTIONS_EXAMPLE}.")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise DrososegError(f"The sections {part} run backwards; {SECTIONS_EXAMPLE}.")
        if last - first > 10_000_000:
            raise DrososegError(f"The sections {part} are too many; {SECTIONS_EXAMPLE}.")
        sections.extend(range(first, last + 1))
    if len(set(sections)) != len(sections):
        raise DrososegError(f"The sections {text} name a section twice; name each once.")
    return sections


def parse_roi(text: str | None) -> tuple[slice, slice] | None:
    """Read a region of a section, ``"Y0:Y1,X0:X1"`` in pixels, as two slices.

    Raises
    ------
    DrososegError
        If it cannot be read or is empty.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d+):(\d+),(\d+):(\d+)", text.replace(" ", ""))
    if match is None:
        raise DrososegError(f"'{text}' is not a region; write it as Y0:Y1,X0:X1 in pixels, for example 0:512,256:768.")
    y0, y1, x0, x1 = (int(n) for n in match.groups())
    if y1 <= y0 or x1 <= x0:
        raise DrososegError(f"The region {text} is empty; the second number of each pair must be larger.")
    return slice(y0, y1), slice(x0, x1)


def parse_block(text: str | None) -> tuple[int, int, int] | None:
    """Read the size of a block, ``"Z,Y,X"`` in sections and pixels.

    Raises
    ------
    DrososegError
        If it is something else, or empty.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d+),(\d+),(\d+)", text.replace(" ", ""))
    if match is None or not all(int(n) for n in match.groups()):
        raise DrososegError(
            f"'{text}' is not a block size; write it as Z,Y,X in sections and pixels, for example 16,2048,2048."
        )
    z, y, x = (int(n) for n in match.groups())
    return z, y, x


def parse_halo(text: str) -> int | str:
    """Read ``default``, ``exact`` or a number of pixels.

    Raises
    ------
    DrososegError
        If it is something else.
    """
    if text in ("default", "exact"):
        return text
    if text.isdecimal():
        return int(text)
    raise DrososegError(f"'{text}' is not a halo; choose default, exact or a number of pixels.")


def check_pixel_size(size: float | None) -> None:
    """Refuse a pixel size in nm that cannot be meant, `DrososegError`; None is not given."""
    if size is not None and not 0 < size < 1e6:
        raise DrososegError(f"--pixel-size {size:g} is not a size in nm; the public stack has 4.6.")


def check_choice(option: str, value: str, choices: tuple[str, ...]) -> str:
    """Return `value` if it is one of `choices`; `DrososegError` naming them if not."""
    if value not in choices:
        raise DrososegError(f"{option} {value} is not known; choose {', '.join(choices[:-1])} or {choices[-1]}.")
    return value
