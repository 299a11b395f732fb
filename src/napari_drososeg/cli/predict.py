"""``drososeg predict``: a stack, a folder of them or a volume, to labels."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from napari_drososeg.cli import console
from napari_drososeg.cli.options import (
    Device,
    Engine,
    FillNan,
    Invert,
    Json,
    Model,
    PixelSize,
    Precision,
    Quiet,
    check_choice,
    check_pixel_size,
    parse_block,
    parse_halo,
    parse_roi,
    parse_sections,
)
from napari_drososeg.errors import DrososegError

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_drososeg.batch import Batch, Event, Outcome
    from napari_drososeg.io import Format, Stack


def predict(
    source: Annotated[
        list[Path],
        typer.Argument(metavar="IN...", help="Stack: file, zarr, or folder of sections; several need a folder as OUT."),
    ],
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT",
            help="A file or .zarr: IN is one stack. A folder: one output per file of IN.",
        ),
    ],
    model: Model = None,
    file_format: Annotated[
        str | None, typer.Option("--format", help="tiff, ome-tiff, ome-zarr or png (default: from the suffix of OUT).")
    ] = None,
    pattern: Annotated[str, typer.Option(help="Only files of a folder IN with matching names, e.g. '*.tif'.")] = "*",
    subfolders: Annotated[bool, typer.Option("--subfolders", help="Also files in subfolders of IN.")] = False,
    sections: Annotated[
        str | None, typer.Option(help="Only these sections, e.g. 0-15 or 3,5; the others stay 0 (unlabelled) in OUT.")
    ] = None,
    roi: Annotated[str | None, typer.Option(help="Only this region, Y0:Y1,X0:X1 in pixels; the rest stays 0.")] = None,
    device: Device = "auto",
    engine: Engine = "auto",
    precision: Precision = "auto",
    halo: Annotated[str, typer.Option(help="Context around tiles: default, exact or pixels.")] = "default",
    tile: Annotated[int | None, typer.Option(min=16, help="Tile size in pixels (default: as memory allows).")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Tiles per batch (default: as memory allows).")] = None,
    orientations: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Test-time augmentation: average over N = 1, 2, 4 or 8 flips and turns; slightly more accurate, and "
            "N times as long.",
        ),
    ] = 1,
    block: Annotated[
        str | None, typer.Option(metavar="Z,Y,X", help="Block size of .zarr output (default: 16,2048,2048).")
    ] = None,
    pixel_size: PixelSize = None,
    invert: Invert = False,
    fill_nan: FillNan = None,
    probabilities: Annotated[
        Path | None,
        typer.Option(metavar="ZARR|FOLDER", help="Also write class probabilities (C, Z, Y, X); one .zarr per file."),
    ] = None,
    overlays: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Also write pictures of labels over the image, one PNG per section."),
    ] = None,
    areas: Annotated[
        Path | None, typer.Option(help="Also write areas per file, section and class to this .csv.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Check for missing, repeated, shifted or odd sections first.")
    ] = True,
    workers: Annotated[
        int, typer.Option(min=0, help="Worker processes on this machine; 0 uses this process alone.")
    ] = 0,
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS|FILE", help="A running dask.distributed cluster to use.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads per worker (default: all cores).")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Skip what the record lists as done.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing output.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be done and what it needs.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask no questions; use the default answers.")] = False,
    events: Annotated[bool, typer.Option("--events", help="Print events as JSON lines.")] = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Segment a stack, a folder of files, or a volume larger than memory.

    The labels have the shape of the whole stack. With a folder as OUT a bad file does not stop the others.
    """
    if file_format is not None:
        from napari_drososeg.io import FORMATS

        check_choice("--format", file_format, tuple(FORMATS))
    check_choice("--engine", engine, ("auto", "openvino", "torch"))
    check_choice("--precision", precision, ("auto", "f32", "bf16", "f16", "int8"))
    check_pixel_size(pixel_size)
    for pair in ((resume, "--resume", overwrite, "--overwrite"), (workers, "--workers", scheduler, "--scheduler")):
        if pair[0] and pair[2]:
            raise DrososegError(f"{pair[1]} and {pair[3]} contradict each other; give one of them.")
    chosen_sections = None if sections is None else tuple(parse_sections(sections))
    chosen_halo, region, chosen_block = cast("Any", parse_halo(halo)), parse_roi(roi), parse_block(block)

    from napari_drososeg.batch import Batch, BatchConfig, Part, plan_job
    from napari_drososeg.inference import PredictConfig

    job = plan_job(source, output, cast("Format | None", file_format), pattern=pattern, subfolders=subfolders)
    config = BatchConfig(
        predict=PredictConfig(
            device, engine, precision, chosen_halo, tile, batch, pixel_size, invert, fill_nan, threads, orientations
        ),
        part=Part(chosen_sections, region),
        probabilities=probabilities,
        overlays=overlays,
        areas=areas,
        block=chosen_block,
        check_sections=check,
        resume=resume,
        overwrite=overwrite,
        workers=workers,
        scheduler=scheduler,
    )
    config.check(job)

    from napari_drososeg.zoo import DEFAULT_NETWORK, find_card

    notify = console.notifier(quiet)
    if job.left_out:
        names = ", ".join(job.left_out[:3]) + (", ..." if len(job.left_out) > 3 else "")
        notify(f"left out, not images: {names}")
    run = Batch(job, find_card(model or DEFAULT_NETWORK), config, notify)
    ask = not (yes or quiet or json or events) and sys.stdin.isatty() and sys.stderr.isatty()
    run.prepare(asking_pixel_size(run) if ask else None)
    if not allowed(run, dry_run=dry_run, yes=yes, ask=ask, json=json or events):
        return
    watch(run, shown=not (quiet or json or events), events=events)
    outcomes = [run.outcomes[item.target] for item in job.items]
    report(run, outcomes, json=json, events=events, quiet=quiet)
    if any(o.state == "failed" for o in outcomes):
        raise typer.Exit(1)


def asking_pixel_size(run: Batch) -> Callable[[Stack], float | None]:
    """Return a function that asks for the pixel size of a stack."""

    def ask(stack: Stack) -> float | None:
        spec = run.card.spec
        answer: float = typer.prompt(
            f"The pixel size of '{stack.name}' is not known. How many nm?",
            default=spec.pixel_size if spec is not None else None,
            type=float,
            err=True,
        )
        return answer

    return ask


def allowed(run: Batch, *, dry_run: bool, yes: bool, ask: bool, json: bool) -> bool:
    """Say what a large run will take, and ask; whether to start."""
    from napari_drososeg.cli.summary import plan_lines

    flight = run.preflight()
    if dry_run:
        if json:
            console.print_json(flight.to_dict())
        else:
            for line in plan_lines(run, flight):
                typer.echo(line)
        return False
    if not flight.concerns or yes:
        return True
    text = f"This is a large run: {'; '.join(flight.concerns)}."
    if not ask:
        raise DrososegError(f"{text} Start it with --yes, or see --dry-run.")
    return typer.confirm(f"{text} Start it?", err=True)


def watch(run: Batch, *, shown: bool, events: bool) -> None:
    """Do a run and show how far it is."""
    alone = len(run.job.items) == 1
    fractions: dict[Path, float] = {}  # of items that are being done

    def follow(event: Event, bar: console.Bar) -> None:
        if events:
            console.print_line(event.to_dict())
        if event.kind == "looking":
            bar.show("checking the sections", event.done, event.total)
        elif event.kind == "progress" and event.item is not None:
            if alone:
                words = "" if event.text in ("tile", "block") else f", {event.text}"
                bar.show(f"{event.item.source.name}{words}", event.done, event.total)
            else:
                drawing = event.text == "overlays"  # of finished labels
                fractions[event.item.target] = 1.0 if drawing else event.done / max(1, event.total)
        elif event.kind == "fault":
            console.say(f"drososeg: {event.text}")
        elif event.outcome is not None:
            if event.item is not None:
                fractions.pop(event.item.target, None)
            if event.outcome.state == "failed" and not alone:
                console.say(f"drososeg: {event.outcome.source}: {event.outcome.error}")
        if not alone and event.kind in ("progress", "finished"):
            done = sum(o.state != "stopped" for o in run.outcomes.values()) + sum(fractions.values())
            bar.show(f"{len(run.job.items)} files", done, len(run.job.items))

    with console.Bar(shown) as bar, console.working(), closing(run.run()) as happening:
        for event in happening:
            follow(event, bar)


def report(run: Batch, outcomes: list[Outcome], *, json: bool, events: bool, quiet: bool) -> None:
    """Print what was done: as JSON, or as a table of areas and a line."""
    if len(outcomes) == 1 and outcomes[0].state == "failed" and not events:
        raise console.Failure(outcomes[0].error or "it failed")
    result = {
        "network": run.card.name,
        "sha256": run.card.sha256,
        "engine": run.description or None,
        "settings": run.settings(),
        "items": [o.to_dict() for o in outcomes],
    }
    if events:
        console.print_line({"event": "end", **result})
    elif json:
        console.print_json(result)
    elif not quiet:
        from napari_drososeg.cli.summary import show_findings, show_outcomes

        show_outcomes(outcomes, run)
        show_findings(outcomes)
