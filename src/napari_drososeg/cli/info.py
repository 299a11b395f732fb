"""``drososeg info``: what a stack is, and what the networks would make of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_drososeg.cli import console
from napari_drososeg.cli.options import Json, PixelSize, Quiet, check_pixel_size

if TYPE_CHECKING:
    from napari_drososeg.io import Stack
    from napari_drososeg.zoo import NetworkCard


def info(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Stack: file, zarr, or folder of sections.")],
    pixel_size: PixelSize = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show the properties of a stack and how long prediction would take.

    Size, type, voxel size; for each network whether it would rescale the stack, and its expected time here.
    """
    check_pixel_size(pixel_size)
    from napari_drososeg.io import read_stack
    from napari_drososeg.zoo import list_networks

    stack = read_stack(source)
    facts = describe(stack, source)
    plans = [plan(stack, card, pixel_size) for card in list_networks() if card.path is not None]
    if json:
        console.print_json({**facts, "networks": plans})
        return
    out = console.stdout_console()
    table = console.table(None, "", "")
    table.show_header = False
    table.columns[1].justify = "left"
    for heading, value in rows(facts):
        table.add_row(heading, value)
    out.print(table)
    notify = console.notifier(quiet)
    for notice in stack.notices:
        notify(notice)
    times = console.table("Networks", "name", "pixel size", "this stack is", "expected time")
    for each in plans:
        expected = "not measured yet" if each["seconds"] is None else f"about {console.duration(each['seconds'])}"
        if each["scale"] is None:
            taken, expected = "refused: check the pixel size", "-"
        else:
            taken = "used as it is" if each["scale"] == 1 else f"rescaled by {each['scale']:.2f}"
        times.add_row(each["name"], f"{each['pixel_size']:g} nm", taken, expected)
    if plans:
        out.print(times)


def describe(stack: Stack, source: Path) -> dict[str, Any]:
    """Return what is known of a stack as JSON-ready data."""
    return {
        "path": str(source),
        "name": stack.name,
        "shape": list(stack.shape),
        "dtype": str(stack.dtype),
        "voxel_size_nm": list(stack.voxel_size),
        "bytes_on_disk": size_on_disk(source),
        "bytes_in_memory": int(stack.dtype.itemsize) * stack.shape[0] * stack.shape[1] * stack.shape[2],
        "labels_classes": None if stack.classes is None else list(stack.classes.names),
        "notices": list(stack.notices),
    }


def rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the facts as pairs of a heading and a text."""
    z, y, x = facts["shape"]
    voxel = [f"{v:g}" if v is not None else "unknown" for v in facts["voxel_size_nm"]]
    found = [
        ("stack", facts["name"]),
        ("sections", f"{z}"),
        ("section", f"{x} x {y} pixels (width x height)"),
        ("type", facts["dtype"]),
        ("voxel size", f"{' x '.join(voxel)} nm (z, y, x)" if set(voxel) != {"unknown"} else "unknown"),
        ("on disk", console.file_size(facts["bytes_on_disk"])),
        ("in memory", console.file_size(facts["bytes_in_memory"])),
    ]
    if facts["labels_classes"]:
        found.append(("labels of", ", ".join(facts["labels_classes"])))
    return found


def size_on_disk(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum((Path(folder) / name).lstat().st_size for folder, _, names in os.walk(path) for name in names)


def plan(stack: Stack, card: NetworkCard, pixel_size: float | None) -> dict[str, Any]:
    """Return what one network would do with a stack: by how much it is rescaled, and how long it takes here.

    The scale is None where the pixel size is so far off that the network refuses it.
    """
    from napari_drososeg.inference import estimate_seconds
    from napari_drososeg.inference.rescaling import RESCALE_AT_MOST, scale_for

    assert card.spec is not None  # it is on this machine
    assert card.path is not None
    scale = scale_for(pixel_size or stack.pixel_size, card.spec.pixel_size)
    facts: dict[str, Any] = {"name": card.name, "pixel_size": card.spec.pixel_size, "scale": None, "seconds": None}
    if max(scale, 1 / scale) > RESCALE_AT_MOST:
        return facts
    pixels = round(stack.shape[0] * stack.shape[1] * stack.shape[2] * scale**2)
    return facts | {"scale": scale, "seconds": estimate_seconds(card.path, pixels)}
