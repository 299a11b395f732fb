"""``drososeg predict``: a stack, or a folder of them, to labels."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from napari_drososeg.cli import console
from napari_drososeg.cli.items import FORMATS, Item, Job, check_probabilities, plan_job
from napari_drososeg.cli.options import (
    Device,
    Engine,
    Json,
    Model,
    Precision,
    Quiet,
    check_choice,
    parse_halo,
    parse_roi,
    parse_sections,
)
from napari_drososeg.cli.record import Record, record_path
from napari_drososeg.errors import DrososegError

if TYPE_CHECKING:
    from napari_drososeg.cli.run_item import Choice, Outcome
    from napari_drososeg.inference import Predictor
    from napari_drososeg.io import Format, Stack
    from napari_drososeg.zoo import NetworkCard


def predict(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Stack: file, zarr, or folder of sections.")],
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
        str | None, typer.Option("--format", help="tiff, ome-tiff, ome-zarr or png; else OUT's suffix decides.")
    ] = None,
    sections: Annotated[
        str | None, typer.Option(help="Only these sections, e.g. 0-15 or 3,5; the others stay 0 (unlabelled) in OUT.")
    ] = None,
    roi: Annotated[str | None, typer.Option(help="Only this region, Y0:Y1,X0:X1 in pixels; the rest stays 0.")] = None,
    device: Device = "auto",
    engine: Engine = "auto",
    precision: Precision = "auto",
    halo: Annotated[str, typer.Option(help="Context around tiles: default, exact or pixels.")] = "default",
    tile: Annotated[int | None, typer.Option(min=16, help="Tile size in pixels; else as memory allows.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Tiles at once; else as memory allows.")] = None,
    pixel_size: Annotated[
        float | None, typer.Option(help="Pixel size of IN in nm, where its file does not say or is wrong.")
    ] = None,
    invert: Annotated[bool, typer.Option("--invert", help="IN is bright on dark: membranes are bright.")] = False,
    fill_nan: Annotated[float | None, typer.Option(help="Grey value to put where IN is not a number.")] = None,
    probabilities: Annotated[
        Path | None, typer.Option(help="Also write class probabilities (C, Z, Y, X) to this .zarr.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Skip what the record says is done.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing; take the default answers.")] = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Segment a stack, or a folder of files.

    The labels have the shape of the whole stack. With a folder as OUT a bad file does not stop the others.
    """
    if file_format is not None:
        check_choice("--format", file_format, tuple(FORMATS))
    options = {
        "device": device,
        "engine": check_choice("--engine", engine, ("auto", "openvino", "torch")),
        "precision": check_choice("--precision", precision, ("auto", "f32", "bf16", "f16", "int8")),
        "halo": parse_halo(halo),
        "tile": tile,
        "batch": batch,
        "pixel_size": pixel_size,
        "invert": invert,
        "fill_nan": fill_nan,
    }
    if pixel_size is not None and not 0 < pixel_size < 1e6:
        raise DrososegError(f"--pixel-size {pixel_size:g} is no size in nm; the public stack has 4.6.")
    if resume and overwrite:
        raise DrososegError("--resume and --overwrite contradict each other; give one of them.")
    parsed = (None if sections is None else tuple(parse_sections(sections)), parse_roi(roi))
    job = plan_job(source, output, cast("Format | None", file_format))
    check_outputs(job, parsed, probabilities, resume=resume, overwrite=overwrite)

    from napari_drososeg.cli.run_item import Choice
    from napari_drososeg.zoo import DEFAULT_NETWORK, find_card

    card = find_card(model or DEFAULT_NETWORK)
    run = Run(job, card, Choice(*parsed, job.format, probabilities), options, ask=not (yes or quiet or json))
    outcomes = run.all(resume=resume, quiet=quiet, shown=not (quiet or json))
    run.report(outcomes, json=json, quiet=quiet)
    if any(o.state == "failed" for o in outcomes):
        raise typer.Exit(1)


def check_outputs(
    job: Job,
    parsed: tuple[tuple[int, ...] | None, Any],
    probabilities: Path | None,
    *,
    resume: bool,
    overwrite: bool,
) -> None:
    """Refuse, before any time is spent, what would be refused later."""
    if not (resume or overwrite):
        existing = [p for p in (*(i.written for i in job.items), probabilities) if p is not None and p.exists()]
        if existing:
            more = f" (and {len(existing) - 1} more)" if len(existing) > 1 else ""
            raise DrososegError(f"'{existing[0]}' exists{more}; use --overwrite, --resume or another output.")
    if job.folder is not None and len(job.items) > 1:
        if any(part is not None for part in parsed):
            raise DrososegError(
                "--sections and --roi choose within one stack, but a folder as output means one stack per file; "
                "name an output file such as labels.tif."
            )
        if probabilities is not None:
            raise DrososegError("--probabilities goes with one stack; name an output file such as labels.tif.")
    if probabilities is not None:
        check_probabilities(job, probabilities, replace=resume or overwrite)


@dataclass
class Run:
    """One ``predict`` command at work.

    Parameters
    ----------
    job : Job
        What to do.
    card : NetworkCard
        With which network.
    choice : Choice
        Which part of each stack.
    options : dict
        Fields of `napari_drososeg.inference.PredictConfig`.
    ask : bool
        Whether questions may be asked.
    """

    job: Job
    card: NetworkCard
    choice: Choice
    options: dict[str, Any]
    ask: bool
    description: str = ""

    def settings(self) -> dict[str, Any]:
        """Return what decides about the result, in the words of the options.

        Device, engine, tile and batch are left out: a run may be resumed on another machine.
        """
        sections, roi = self.choice.sections, self.choice.roi
        return {
            "network": f"{self.card.name} ({self.card.sha256[:12]})",
            "--format": self.job.format,
            "--sections": None if sections is None else ",".join(map(str, sections)),
            "--roi": None if roi is None else f"{roi[0].start}:{roi[0].stop},{roi[1].start}:{roi[1].stop}",
            **{
                f"--{name.replace('_', '-')}": self.options[name]
                for name in ("precision", "halo", "pixel_size", "invert", "fill_nan")
            },
        }

    def all(self, *, resume: bool, quiet: bool, shown: bool) -> list[Outcome]:
        """Predict every item that is not done yet."""
        from napari_drososeg.cli.run_item import Outcome

        notify = console.notifier(quiet)
        if self.job.left_out:
            names = ", ".join(self.job.left_out[:3]) + (", ..." if len(self.job.left_out) > 3 else "")
            notify(f"left out, no images: {names}")
        record = Record(record_path(self.job.items[0].target, self.job.folder))
        done: set[Path] = set()
        if resume:
            record.check(self.settings())
            done = {i.target for i in self.job.items if record.is_done(i, self.choice.probabilities)}
        outcomes = {t: Outcome(i.source, t, "skipped") for i in self.job.items if (t := i.target) in done}
        waiting = [item for item in self.job.items if item.target not in done]
        if waiting:
            # One stack is opened before the network is loaded: what is wrong with it shows at once.
            single = None if len(self.job.items) > 1 else self.open(waiting[0], notify)
            predictor = self.predictor(single, notify)
            # Taken after the pixel size was asked for, which decides about the result like any option.
            record.begin(self.settings(), afresh=not resume)
            with console.Bar(shown) as bar:
                for item in waiting:
                    outcomes[item.target] = self.one(item, single, predictor, record, bar, notify)
        return [outcomes[item.target] for item in self.job.items]

    def open(self, item: Item, notify: Any) -> Stack:
        """Open an input and check what was chosen of it."""
        from napari_drososeg.io import read_stack

        stack = read_stack(item.source)
        self.choice.check(stack)
        for notice in stack.notices:
            notify(notice)
        return stack

    def predictor(self, stack: Stack | None, notify: Any) -> Predictor:
        """Load the network; ask for the pixel size of the one stack where nobody knows it."""
        from napari_drososeg.inference import PredictConfig, Predictor

        config = PredictConfig(**self.options)
        if stack is not None and stack.pixel_size is None and config.pixel_size is None:
            self.options["pixel_size"] = self.asked_pixel_size(stack)
            config = PredictConfig(**self.options)
        assert self.card.path is not None  # find_card has downloaded it
        predictor = Predictor(self.card.path, config, notify=notify)
        self.description = predictor.description
        return predictor

    def asked_pixel_size(self, stack: Stack) -> float | None:
        """Ask for the pixel size, once; None where nobody is there to answer."""
        if not (self.ask and sys.stdin.isatty() and sys.stderr.isatty()):
            return None
        spec = self.card.spec
        answer: float = typer.prompt(
            f"The pixel size of '{stack.name}' is not known. How many nm?",
            default=spec.pixel_size if spec is not None else None,
            type=float,
            err=True,
        )
        return answer

    def one(
        self, item: Item, stack: Stack | None, predictor: Predictor, record: Record, bar: console.Bar, notify: Any
    ) -> Outcome:
        """Predict one item; with several, a failing one does not stop the others."""
        from napari_drososeg.cli.run_item import Outcome, run_item

        probabilities = self.choice.probabilities
        record.note(item, "started", probabilities)
        alone = len(self.job.items) == 1
        try:
            with console.working():
                outcome = run_item(stack or self.open(item, notify), item.target, self.choice, predictor, bar)
        except Exception as error:  # whatever it is, it must not cost the items that are still waiting
            text = console.one_line(error)
            if not isinstance(error, console.Failure | OSError):
                text = f"{type(error).__name__}: {text}"
            record.note(item, "failed", probabilities, error=text)
            if alone:
                raise
            console.say(f"drososeg: {item.source}: {text}")
            return Outcome(item.source, item.target, "failed", error=text)
        finally:
            self.description = predictor.description  # it may have gone over to the CPU meanwhile
        record.note(item, "done", probabilities, seconds=round(outcome.seconds, 3), engine=self.description)
        return outcome

    def report(self, outcomes: list[Outcome], *, json: bool, quiet: bool) -> None:
        """Print what was done: as JSON, or as a table of areas and a line."""
        if json:
            console.print_json(
                {
                    "network": self.card.name,
                    "sha256": self.card.sha256,
                    "engine": self.description or None,
                    "settings": self.settings(),
                    "items": [o.to_dict() for o in outcomes],
                }
            )
            return
        if quiet:
            return
        from napari_drososeg.cli.summary import show_outcomes

        show_outcomes(outcomes, self.job, self.description)
