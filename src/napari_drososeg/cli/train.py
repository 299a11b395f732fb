"""``drososeg train``: images and labels to a network."""

from __future__ import annotations

import json as json_module
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_drososeg.cli import console
from napari_drososeg.cli.options import Quiet, check_choice, check_pixel_size, parse_sections
from napari_drososeg.errors import DrososegError

if TYPE_CHECKING:
    from napari_drososeg.cli.train_inputs import Inputs
    from napari_drososeg.training import TrainConfig, TrainEvent, Training


def train(
    images: Annotated[Path, typer.Argument(metavar="IMAGES", help="Stack: file, zarr, or folder of sections.")],
    labels: Annotated[
        Path,
        typer.Argument(
            metavar="LABELS", help="Labels of the stack, 0 is unlabelled; or those of the public VNC stack."
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="CHECKPOINT", help="Network to write, a .safetensors file.")
    ],
    classes: Annotated[
        Path | None,
        typer.Option(help="JSON list of classes with value, name and color (default: the three of the zoo)."),
    ] = None,
    sections: Annotated[str | None, typer.Option(help="Sections to use, e.g. 0-11 (default: all).")] = None,
    validation: Annotated[
        str | None,
        typer.Option(help="Sections to hold out for validation, e.g. 13-15, or the last fraction of them, e.g. 0.2."),
    ] = None,
    start: Annotated[
        str | None, typer.Option("--from", help="Network to start from: a name or file. Matching weights are used.")
    ] = None,
    architecture: Annotated[
        str | None, typer.Option(help="unet, fpn, segnet, ... (default: unet, or that of --from).")
    ] = None,
    argument: Annotated[
        list[str] | None, typer.Option(help="Argument of the architecture, e.g. width=0.5; may be repeated.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Training steps; the maximum with the schedule plateau.")] = 1500,
    batch: Annotated[int, typer.Option(min=1, help="Patches per step.")] = 8,
    patch: Annotated[int, typer.Option(min=16, help="Patch size in pixels.")] = 256,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate, or the initial one with plateau.")] = 2e-3,
    schedule: Annotated[str, typer.Option(help="one-cycle, or plateau as in the reference study.")] = "one-cycle",
    loss: Annotated[
        str,
        typer.Option(
            help="Sum of cross-entropy, weighted:W1,W2,..., class-balanced, dice and focal, or focal:ALPHA,...:gamma=2 "
            "with an alpha for all classes or one for each."
        ),
    ] = "cross-entropy",
    augmentation: Annotated[str, typer.Option(help="none, mild, medium, strong or study.")] = "mild",
    class_patches: Annotated[float, typer.Option(help="Fraction of patches centred on classes drawn evenly.")] = 0.0,
    encoder_rate: Annotated[float, typer.Option(help="Factor of the encoder's learning rate; 0 freezes it.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the patches and initial weights.")] = 0,
    validate_every: Annotated[int, typer.Option(min=1, help="Steps between validations.")] = 100,
    pixel_size: Annotated[
        float | None, typer.Option(help="Pixel size of IMAGES in nm (default: from its file).")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name for --model (default: the name of CHECKPOINT).")] = None,
    title: Annotated[str | None, typer.Option(help="Title shown in the widgets.")] = None,
    licence: Annotated[
        str | None, typer.Option(help="SPDX licence expression; that of --from always applies too.")
    ] = None,
    folder: Annotated[Path | None, typer.Option(help="Folder of the run (default: beside CHECKPOINT).")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in the folder.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start again and replace existing files.")] = False,
    install: Annotated[bool, typer.Option("--install", help="Also add the network to your own zoo.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    devices: Annotated[int, typer.Option(min=1, help="Devices per node; each batch is split among all of them.")] = 1,
    nodes: Annotated[int, typer.Option(min=1, help="Number of nodes, each of which runs this command.")] = 1,
    precision: Annotated[str, typer.Option(help="auto, f32, bf16 or f16.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print events as JSON, one per line.")] = False,
    quiet: Quiet = False,
) -> None:
    """Train a network on your own images, labels and classes.

    Possible failures are checked first. The result is a network like the shipped ones: drososeg predict --model
    CHECKPOINT.
    """
    target = check_target(output, name, install=install)
    run_folder = check_folder(
        folder or output.with_name(f"{output.stem}-run"), output, resume=resume, overwrite=overwrite
    )
    options = {
        "architecture": architecture,
        "arguments": parse_arguments(argument or []),
        "steps": steps,
        "batch": batch,
        "patch": patch,
        "learning_rate": learning_rate,
        "schedule": check_choice("--schedule", schedule, ("one-cycle", "plateau")),
        "class_patches": class_patches,
        "encoder_rate": encoder_rate,
        "seed": seed,
        "accelerator": check_choice("--device", device, ("auto", "cpu", "cuda", "mps")),
        "devices": devices,
        "nodes": nodes,
        "precision": PRECISIONS[check_choice("--precision", precision, tuple(PRECISIONS))],
    }
    chosen = None if sections is None else parse_sections(sections)
    held_out = parse_validation(validation)
    check_pixel_size(pixel_size)

    from napari_drososeg.cli.train_inputs import check, create, read_inputs
    from napari_drososeg.training import Diverged, finish

    inputs = read_inputs(images, labels, classes, start, chosen, held_out, pixel_size)
    config, whole = check(inputs, options, loss, augmentation)
    training = create(inputs, config, None if overwrite else run_folder, whole=whole)
    notify = console.notifier(quiet or not training.is_main)
    for notice in inputs.notices:
        notify(notice)
    notify(introduction(inputs, training))
    failure = None
    with console.working():
        if overwrite:  # only now: whatever cannot work has been found by now, and has cost nothing
            if training.is_main:
                clear(run_folder)
            training.folder = run_folder
        try:
            follow(training, validate_every, json=json and training.is_main, quiet=quiet or not training.is_main)
        except Diverged as error:
            if not training.best.weights:
                raise
            failure = error
        if not training.is_main:
            return
        path = finish(
            output,
            training,
            name=target,
            title=title or default_title(training.config, target),
            classes=inputs.classes,
            pixel_size=inputs.pixel_size,
            licence=inputs.licence(licence),
            data=inputs.describe(),
            parent=inputs.parent,
        )
        if failure is not None:
            raise Diverged(
                f"The loss is no longer finite at step {training.step}: '{path}' is the network of step "
                f"{training.best.facts['step']}, the best so far (mean IoU {training.best.facts['mean_iou']:.4f}); for "
                f"a better one use a --learning-rate below {learning_rate:g}, with --overwrite or another -o."
            ) from failure
        places = [path, *([put_into_zoo(path, target)] if install else [])]
    report(places, json=json, quiet=quiet)


RUN_FILES = ("last.safetensors", "best.safetensors", "log.csv")
PRECISIONS = {"auto": "auto", "f32": "32-true", "bf16": "bf16-mixed", "f16": "16-mixed"}
"""Our words for precisions, and lightning-fabric's."""


def check_target(output: Path, name: str | None, *, install: bool) -> str:
    """Return the name of the network; refuse what cannot be written or named so."""
    from napari_drososeg.io import atomic
    from napari_drososeg.zoo import SUFFIX, read_registry, user_folder

    if output.suffix != SUFFIX:
        raise DrososegError(f"'{output}' must end in {SUFFIX}, as networks do.")
    if output.is_dir():
        raise DrososegError(f"'{output}' is a folder; name a file that ends in {SUFFIX}.")
    target, places = name or output.stem, [output]
    if not target or any(c.isspace() or c in "/\\" for c in target):
        raise DrososegError(f"'{target}' is not a network name: --name takes one word, such as my-unet.")
    if install:
        if target in read_registry():
            raise DrososegError(f"'{target}' is the name of a shipped network; choose another --name.")
        place = user_folder() / f"{target}{SUFFIX}"
        if place.exists() and place.resolve() != output.resolve():
            raise DrososegError(f"'{place}' exists; choose another --name, or delete it.")
        places.append(place)
    for path in places:
        if reason := atomic.unwritable(path.parent):
            raise DrososegError(f"Cannot write '{path}': {reason}; choose another place.")
    return target


def check_folder(folder: Path, output: Path, *, resume: bool, overwrite: bool) -> Path:
    """Refuse to lose a run or a network that is there."""
    if resume and overwrite:
        raise DrososegError("--resume and --overwrite contradict each other; give one of them.")
    if folder.exists() and not folder.is_dir():
        raise DrososegError(f"'{folder}' is not a folder; choose another --folder.")
    if not (resume or overwrite):
        for path in (output, *(folder / name for name in RUN_FILES)):
            if path.exists():
                raise DrososegError(f"'{path}' exists; use --resume to continue, --overwrite to start again.")
    return folder


def clear(folder: Path) -> None:
    """Remove the run that is in a folder."""
    from napari_drososeg.io import atomic

    for name in RUN_FILES:
        atomic.remove(folder / name)
        atomic.remove_leftovers(folder / name)


def parse_arguments(texts: list[str]) -> dict[str, Any]:
    """Read ``width=0.5`` and the like; values are JSON, or text where they are none.

    Raises
    ------
    DrososegError
        If there is no ``=``.
    """
    arguments: dict[str, Any] = {}
    for text in texts:
        key, sign, value = text.partition("=")
        if not sign or not key:
            raise DrososegError(f"--argument {text} cannot be read; write it like width=0.5.")
        try:
            arguments[key] = json_module.loads(value)
        except json_module.JSONDecodeError:
            arguments[key] = value
    return arguments


def parse_validation(text: str | None) -> list[int] | float | None:
    """Read ``--validation``: sections, or a share between 0 and 1.

    Raises
    ------
    DrososegError
        If it is neither.
    """
    if text is None:
        return None
    if "." in text:
        try:
            share = float(text)
        except ValueError:
            share = 0.0
        if not 0 < share < 1:
            raise DrososegError(
                f"--validation {text} is not a fraction between 0 and 1; write 0.2, or sections like 13-15."
            )
        return share
    return parse_sections(text)


def default_title(config: TrainConfig, name: str) -> str:
    """Return what widgets call a network that was given no title."""
    from napari_drososeg.models import find_architecture

    return f"{find_architecture(config.architecture).title} ({name})"


def introduction(inputs: Inputs, training: Training) -> str:
    """Say what is about to happen, on one line."""
    parameters = sum(p.numel() for p in training.model.module.parameters())
    validated = f", {len(inputs.validation)} to validate" if inputs.validation else ""
    taken = f", {training.transferred} tensors of {inputs.parent_name}" if training.transferred else ""
    begin = f", continues at step {training.step}" if training.step else ""
    return (
        f"{len(inputs.sections)} sections to train on{validated}; {training.config.architecture} with "
        f"{parameters:,} parameters{taken}; {training.fabric.device.type}{begin}"
    )


def follow(training: Training, validate_every: int, *, json: bool, quiet: bool) -> None:
    """Train, and show how it goes."""
    with console.Bar(not (quiet or json)) as bar, closing(training.run(validate_every=validate_every)) as run:
        for event in run:
            bar.show("training", event.step, training.config.steps)
            if json:
                console.print_line({"event": "step", **plain(event)})
            elif not quiet and (event.step % validate_every == 0 or event.scores is not None):
                scored = ""
                if event.scores is not None:
                    scored = f", validation loss {event.validation_loss:.4f}, mean IoU {event.scores.mean_iou:.4f}"
                console.say(f"step {event.step}: loss {event.loss:.4f}{scored}", dim=True)


def plain(event: TrainEvent) -> dict[str, Any]:
    """Return an event as JSON-ready data."""
    fields = ("step", "loss", "learning_rate", "seconds", "validation_loss")
    scores = None if event.scores is None else event.scores.to_dict()
    return {**{field: getattr(event, field) for field in fields}, "scores": scores}


def put_into_zoo(path: Path, name: str) -> Path:
    """Copy a network into the user's zoo; return where it is."""
    from napari_drososeg.io import atomic
    from napari_drososeg.zoo import SUFFIX, user_folder

    place = user_folder() / f"{name}{SUFFIX}"
    return place if place.resolve() == path.resolve() else atomic.write_bytes(place, path.read_bytes())


def report(places: list[Path], *, json: bool, quiet: bool) -> None:
    """Say what was made."""
    from napari_drososeg.zoo import find_card

    card = find_card(places[-1])
    assert card.spec is not None  # it was written a moment ago
    if json:
        facts = {"name": card.name, "sha256": card.sha256, "halo": card.spec.halo, "metrics": card.spec.metrics}
        installed = str(places[-1]) if places[1:] else None
        console.print_line({"event": "done", "path": str(places[0]), "installed": installed, **facts})
    elif not quiet:
        value = card.spec.metrics.get("mean_iou")
        scored = f", mean IoU {value:.4f} on {card.spec.metrics['sections']}" if value is not None else ""
        minutes = console.duration(60 * card.spec.training["minutes"])
        typer.echo(f"{places[0]}: {console.file_size(card.n_bytes)}{scored}, trained in {minutes}")
        use = card.name if places[1:] else places[0]
        console.say(f"drososeg predict STACK -o labels.tif --model {use}", dim=True)
