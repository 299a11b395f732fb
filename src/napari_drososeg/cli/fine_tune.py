"""``drososeg fine-tune``: a network that learns from a few annotated pixels."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_drososeg.cli import console
from napari_drososeg.cli.options import Device, FillNan, Invert, PixelSize, Quiet, check_choice, parse_sections
from napari_drososeg.errors import DrososegError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from napari_drososeg.classes import ClassTable
    from napari_drososeg.io import Stack
    from napari_drososeg.workspace import Workspace


def fine_tune(
    images: Annotated[Path | None, typer.Argument(metavar="[IMAGES]", help="Stack: file, folder or zarr.")] = None,
    labels: Annotated[
        Path | None,
        typer.Argument(metavar="[LABELS]", help="Annotation of the stack; 0 is not annotated, and ignored."),
    ] = None,
    workspace: Annotated[
        Path | None, typer.Option(help="Train on this workspace instead, and keep the result there as a round.")
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Network to start from: a name, a .safetensors file, or 'scratch'. [default: the round in use of a "
            "workspace, or else unet]",
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Network to write (.safetensors).")] = None,
    classes: Annotated[
        Path | None,
        typer.Option(
            help="Classes of LABELS, a JSON list with value, name and color, if they are not those of the network: "
            "it keeps what it has learnt about images, and learns these. [default: those written in LABELS, or else "
            "of the network]"
        ),
    ] = None,
    image: Annotated[
        Path | None, typer.Option(help="With --workspace: where the image is now, if it was moved.")
    ] = None,
    sections: Annotated[
        str | None, typer.Option(help="Sections of IMAGES that LABELS covers, e.g. 3,5, if it has fewer.")
    ] = None,
    validate: Annotated[
        str | None,
        typer.Option(help="Annotated sections of IMAGES to hold out for validation: they are never trained on."),
    ] = None,
    effort: Annotated[str, typer.Option(help="quick (seconds), balanced or thorough (minutes).")] = "quick",
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps, instead of the effort's.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate, instead of the effort's.")] = None,
    loss: Annotated[
        str, typer.Option(help="A sum of cross-entropy, class-balanced, focal, dice or weighted:1,5,2.")
    ] = "cross-entropy",
    augmentation: Annotated[str, typer.Option(help="none, mild, medium, strong or study.")] = "mild",
    pixel_size: PixelSize = None,
    invert: Invert = False,
    fill_nan: FillNan = None,
    predict: Annotated[
        str | None, typer.Option(help="With --workspace: sections to predict afterwards, e.g. 4; kept with the round.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed; the same seed gives the same result.")] = 0,
    device: Device = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print events as JSON, one object per line.")] = False,
    quiet: Quiet = False,
) -> None:
    """Fine-tune a network on sparse annotation.

    Either on a workspace of the viewer, which gains a round, or on a stack and its labels. Ctrl+C
    stops, and keeps the best network so far. The result inherits the licence of the network it starts from.
    """
    check_choice("--effort", effort, ("quick", "balanced", "thorough"))
    if workspace is None:
        unused = {"--image": image, "--predict": predict}
    else:
        unused = {"--sections": sections, "--validate": validate, "--classes": classes}
    check_arguments(images, labels, workspace, output, unused, overwrite=overwrite)
    from napari_drososeg.workspace import open_workspace
    from napari_drososeg.workspace.recipes import RetrainSettings

    settings = RetrainSettings(
        start=start,
        effort=effort,  # type: ignore[arg-type]  # checked above
        steps=steps,
        learning_rate=learning_rate,
        loss=loss,
        augmentation=augmentation,
        device=device,
        pixel_size=pixel_size,
        invert=invert,
        fill_nan=fill_nan,
        predict=() if predict is None else tuple(parse_sections(predict)),
        seed=seed,
    )
    with ExitStack() as stack:
        if workspace is not None:
            used = stack.enter_context(open_workspace(workspace, write=False))
            picture = used.stack(image)
        else:
            assert images is not None
            assert labels is not None
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            used, picture = temporary_workspace(
                folder / "workspace", images, labels, start, sections, validate, table=classes
            )
            stack.callback(used.close)
        finished = run(used, picture, settings, json=json, quiet=quiet)
        if output is not None:
            export(used, finished["number"], output)
    if not (json or quiet):
        show(finished, output)


def check_arguments(
    images: Path | None,
    labels: Path | None,
    workspace: Path | None,
    output: Path | None,
    unused: Mapping[str, object],
    *,
    overwrite: bool,
) -> None:
    """Refuse, before anything heavy is imported, what cannot be meant, or not be written when all is done.

    Parameters
    ----------
    images, labels, workspace, output
        As given.
    unused : mapping
        Options that say nothing in the way that was chosen, with a workspace or without, and their values.
    overwrite : bool
        Whether the output may be replaced.

    Raises
    ------
    DrososegError
        Saying what is missing.
    """
    from napari_drososeg.io import atomic

    if workspace is None and (images is None or labels is None or output is None):
        raise DrososegError("Give --workspace DIR, or IMAGES LABELS -o NETWORK.safetensors.")
    if workspace is not None and images is not None:
        raise DrososegError("Give either --workspace or IMAGES and LABELS; with --workspace use --image.")
    if given := [option for option, value in unused.items() if value is not None]:
        which = "needs --workspace" if workspace is None else "is for IMAGES and LABELS; a workspace has its own"
        raise DrososegError(f"{given[0]} {which}: omit it.")
    if output is not None:
        if output.suffix != ".safetensors":
            raise DrososegError(f"A network is written as .safetensors, not as '{output.name}'.")
        if output.exists() and not overwrite:
            raise DrososegError(f"'{output}' exists; use --overwrite, or another name.")
        if output.is_dir():
            raise DrososegError(f"'{output}' is a folder; choose another name.")
        if reason := atomic.unwritable(output.parent):
            raise DrososegError(f"Cannot write '{output}': {reason}; choose another place.")


def temporary_workspace(
    folder: Path,
    images: Path,
    labels: Path,
    start: str | None,
    sections: str | None,
    validate: str | None,
    *,
    table: Path | None,
) -> tuple[Workspace, Stack]:
    """Make a workspace of a stack and its labels.

    Raises
    ------
    DrososegError
        If they do not fit together.
    """
    from napari_drososeg.cli.train_inputs import read_classes
    from napari_drososeg.io import read_labels, read_stack
    from napari_drososeg.workspace import create_workspace

    picture, known = read_stack(images), read_labels(labels)
    chosen = list(range(picture.n_sections)) if sections is None else parse_sections(sections)
    held_out = set() if validate is None else set(parse_sections(validate))
    if known.shape != (len(chosen), *picture.shape[1:]):
        raise DrososegError(
            f"LABELS has the shape {known.shape}, not {(len(chosen), *picture.shape[1:])} (z, y, x): it must have "
            "the size of IMAGES; if it has fewer sections, name those of IMAGES with --sections."
        )
    if wrong := [z for z in chosen if z >= picture.n_sections]:
        raise DrososegError(f"There is no section {wrong[0]} in IMAGES, which has {picture.n_sections}.")
    if wrong := sorted(held_out - set(chosen)):
        raise DrososegError(f"Section {wrong[0]}, held out for validation, is not in LABELS.")
    classes = read_classes(table) if table else class_table(start, known.classes)
    made = create_workspace(folder, picture, classes)
    try:
        for number, z in enumerate(chosen):
            values = known.read(number)
            plain = values.astype("uint8")
            if (foreign := values[(values < 0) | (values > len(classes))]).size:
                raise DrososegError(
                    f"Section {number} of LABELS contains the value {foreign[0]}, but there are {len(classes)} "
                    "classes: name those of LABELS with --classes."
                )
            if z in held_out:
                made.regions.add(z, shown=partial(_part, plain), locked=True)
            else:
                made.annotation.write(z, slice(None), slice(None), plain)
    except BaseException:
        made.close()
        raise
    return made, picture


def _part(labels: NDArray[np.uint8], _z: int, ys: slice, xs: slice) -> NDArray[np.uint8]:
    return labels[ys, xs]


def class_table(start: str | None, written: ClassTable | None) -> ClassTable:
    """Return the classes written in the labels, or else those of the network to start from."""
    from napari_drososeg.checkpoint import load_spec
    from napari_drososeg.classes import DROSOPHILA_CLASSES
    from napari_drososeg.workspace.recipes import SCRATCH
    from napari_drososeg.zoo import DEFAULT_NETWORK, find_network

    if written or start == SCRATCH:
        return written or DROSOPHILA_CLASSES
    return load_spec(find_network(start or DEFAULT_NETWORK)).classes


def run(workspace: Workspace, picture: Stack, settings: Any, *, json: bool, quiet: bool) -> dict[str, Any]:
    """Train a round and show how it goes; returns the round."""
    from napari_drososeg.workspace.retraining import retrain

    notify = console.notifier(quiet or json)
    finished: dict[str, Any] = {}
    with stopping(listen=json) as stop, console.Bar(shown=not (json or quiet)) as bar, console.working():
        for event in retrain(workspace, picture, settings, stop=stop.is_set):
            if json:
                console.print_line(event)
            if event["event"] == "notice":
                notify(event["text"])
            elif event["event"] == "training":
                if event["step"] == 1:
                    bar.start("training", event["steps"])
                bar.advance()
            elif event["event"] == "round":
                finished = event["round"]
    return finished


@contextmanager
def stopping(*, listen: bool) -> Iterator[threading.Event]:
    """Turn Ctrl+C, SIGTERM and, if `listen`, the line ``stop`` on stdin into a flag; a second signal ends at once."""
    flag = threading.Event()

    def ask(_number: int, _frame: object) -> None:
        if flag.is_set():
            raise KeyboardInterrupt
        flag.set()

    def read(number: int) -> None:
        # Not through sys.stdin: whoever forks this process while it is being read waits for its lock for ever.
        with os.fdopen(number, "rb", buffering=0, closefd=False) as lines:
            for line in lines:
                if line.strip() == b"stop":
                    flag.set()

    if listen:
        with suppress(OSError, AttributeError):  # there may be no stdin, or none that is a file
            threading.Thread(target=read, args=(sys.stdin.fileno(),), daemon=True).start()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def export(workspace: Workspace, number: int, output: Path) -> None:
    """Write the network of a round to `output`, named after that file."""
    from dataclasses import replace

    from napari_drososeg.checkpoint import copy_checkpoint, load_spec

    trained = workspace.rounds.checkpoint(number)
    copy_checkpoint(trained, output, replace(load_spec(trained), name=output.stem, title=output.stem))


def show(finished: dict[str, Any], output: Path | None) -> None:
    """Print what became of a round."""
    out = console.stdout_console()
    out.print(f"{finished['verdict']} ({console.duration(finished['seconds'])})", soft_wrap=True)
    if size := finished["adapted"].get("pixel_size"):
        out.print(f"The pixel size was estimated as {size:g} nm: predict with --pixel-size {size:g}.", soft_wrap=True)
    if output is None:
        out.print(f"Round {finished['number']}, {'adopted' if finished['adopted'] else 'not adopted'}.")
    else:
        worse = "" if finished["adopted"] else "Not better than the network it started from. "
        out.print(f"{worse}Written to {output}.", soft_wrap=True)
