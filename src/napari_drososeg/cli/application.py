"""The typer application: its commands, its global options, and what an error looks like."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from napari_drososeg import __version__
from napari_drososeg.cli.console import Failure, one_line, say
from napari_drososeg.cli.demo import demo
from napari_drososeg.cli.evaluate import evaluate
from napari_drososeg.cli.fine_tune import fine_tune
from napari_drososeg.cli.info import info
from napari_drososeg.cli.networks import models
from napari_drososeg.cli.predict import predict
from napari_drososeg.cli.train import train
from napari_drososeg.errors import DrososegError

BAD_INPUT = 2
FAILED = 1
INTERRUPTED = 130
TERMINATED = 143


class Terminated(KeyboardInterrupt):
    """SIGTERM, as clusters send it before they kill: stops like Ctrl+C, with its own exit code."""


@contextlib.contextmanager
def stop_on_sigterm() -> Iterator[None]:
    """Turn SIGTERM into an exception, so that cleaning up happens; only the main thread may."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_number: int, _frame: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def usage(error: Any) -> str:
    """Return a usage error on one line, with the way to the help."""
    ctx = getattr(error, "ctx", None)
    where = f" See: {ctx.command_path} --help" if ctx is not None else ""
    return " ".join(error.format_message().split()).rstrip(".") + "." + where


class DrososegGroup(TyperGroup):
    """A group of commands whose errors are one line, whatever goes wrong."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Accept ``--debug`` after the command too: it is thought of after something failed."""
        end = args.index("--") if "--" in args else len(args)
        if "--debug" in args[:end]:
            args = ["--debug", *(a for a in args[:end] if a != "--debug"), *args[end:]]
        if not args:
            return super().parse_args(ctx, args)  # which answers with the help
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            if not hasattr(error, "format_message"):  # no usage error, such as the end after --version
                raise
            code, line = verdict(error)
        say(f"drososeg: {line}")
        raise typer.Exit(code)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; turn exceptions into a line and an exit code."""
        try:
            with stop_on_sigterm():
                return super().invoke(ctx)
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise  # typer knows what to do, also when the reader of a pipe goes away
        except (Exception, KeyboardInterrupt) as error:
            if ctx.params.get("debug"):
                traceback.print_exception(error, file=sys.stderr)
            code, line = verdict(error)
        say(f"drososeg: {line}")
        raise typer.Exit(code)


def verdict(error: BaseException) -> tuple[int, str]:
    """Return the exit code of an exception and what to say about it, on one line."""
    if isinstance(error, Terminated):
        return TERMINATED, "stopped by the system; nothing is half-written."
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, "stopped; nothing is half-written."
    if isinstance(error, DrososegError):
        return BAD_INPUT, one_line(error)
    if isinstance(error, Failure | OSError):
        return FAILED, one_line(error)
    if hasattr(error, "format_message"):  # a usage error of typer's; its class is private there
        return BAD_INPUT, usage(error)
    kind = type(error).__name__
    return FAILED, f"{kind}: {one_line(error)} (this should not happen; --debug shows where)"


app = typer.Typer(
    name="drososeg",
    cls=DrososegGroup,
    help="Segment serial-section electron microscopy: cytoplasm, cell membrane and mitochondria.",
    epilog="Start with: drososeg demo",
    no_args_is_help=True,
    add_completion=False,
    # Plain help: importing rich for it would take longer than everything else together.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"drososeg {__version__}")
        raise typer.Exit


@app.callback()
def main(
    debug: Annotated[bool, typer.Option("--debug", help="Show the full traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Segment serial-section electron microscopy: cytoplasm, cell membrane and mitochondria."""


for command in (demo, predict, info, models, evaluate, train, fine_tune):
    app.command()(command)
