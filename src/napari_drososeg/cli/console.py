"""What a person sees: notices and progress on stderr, results on stdout."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import typer

from napari_drososeg.errors import DrososegError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


class Failure(Exception):
    """Something failed while working on input that had looked fine: exit code 1, not 2."""


@contextlib.contextmanager
def working() -> Iterator[None]:
    """Mark the part of a command that works: its errors are failures (exit code 1), no longer bad input."""
    try:
        yield
    except DrososegError as error:
        raise Failure(str(error)) from error


def one_line(error: BaseException) -> str:
    """Return the message of an exception on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def say(text: str, *, dim: bool = False) -> None:
    """Write a line to stderr, dimmed where the terminal can."""
    typer.secho(text, err=True, dim=dim)


def notifier(quiet: bool) -> Callable[[str], None]:
    """Return a function that shows a notice once, dimmed, on stderr; nothing if `quiet`."""
    seen: set[str] = set()

    def notify(text: str) -> None:
        if not quiet and text not in seen:
            seen.add(text)
            say(text, dim=True)

    return notify


def print_json(value: object) -> None:
    """Write JSON to stdout; strict, so that every reader accepts it."""
    typer.echo(json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False))


def print_line(value: object) -> None:
    """Write JSON to stdout as one line, at once."""
    typer.echo(json.dumps(value, allow_nan=False, ensure_ascii=False))
    sys.stdout.flush()


def stdout_console() -> Console:
    """Return a console for tables; as wide as needed where nobody looks at it.

    What it prints are names and paths of the user: ``[old]`` is not a style in them, nor ``:x:`` an emoji.
    """
    from rich.console import Console

    width = None if sys.stdout.isatty() else 120
    return Console(file=sys.stdout, highlight=False, markup=False, emoji=False, width=width)


def table(title: str | None, *columns: str) -> Table:
    """Return an empty table; all but its first column are aligned to the right."""
    from rich import box
    from rich.table import Table

    made = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False)
    for i, column in enumerate(columns):
        made.add_column(column, justify="left" if i == 0 else "right")
    return made


def percent(value: float | None) -> str:
    """Write a share, for example ``84.1 %``; a dash for what is not defined."""
    return "-" if value is None or value != value else f"{100 * value:.1f} %"


def duration(seconds: float) -> str:
    """Write a time as people say it, for example ``0.4 s``, ``2 min 05 s`` or ``3 h 10 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def file_size(n_bytes: int) -> str:
    """Write a size on disk, for example ``13.2 MB``."""
    size = float(n_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


class Bar:
    """A progress bar on stderr with time left; does nothing where it is not wanted or stderr is not a terminal."""

    def __init__(self, shown: bool) -> None:
        self._progress: Any = None
        self._task: Any = None
        self._shown = shown and sys.stderr.isatty()

    def __enter__(self) -> Bar:
        if self._shown:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._progress.start()
            self._task = self._progress.add_task("", total=None)
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def start(self, description: str, total: int) -> None:
        """Begin to count to `total`."""
        if self._progress is not None:
            self._progress.reset(self._task, total=total, description=description)

    def advance(self) -> None:
        """Count one more."""
        if self._progress is not None:
            self._progress.advance(self._task)

    def show(self, description: str, done: float, total: int) -> None:
        """Say how far what is described is; time left is that of the same description."""
        if self._progress is not None:
            if self._progress.tasks[0].description != description:
                self._progress.reset(self._task, total=total, description=description)
            self._progress.update(self._task, completed=done, total=total)
