"""One press of Run as data: what to segment, with what, and how it is said in words or as a command. No Qt here."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from napari_drososeg._widgets.ordering import DoneMap, Rect, area
from napari_drososeg.inference import PredictConfig


class Scope(StrEnum):
    """What to segment."""

    VIEW = "view"
    SECTION = "section"
    RANGE = "range"
    STACK = "stack"


@dataclass(frozen=True)
class Job:
    """What one run predicts.

    Parameters
    ----------
    network : str or Path
        Checkpoint file, or name in the zoo.
    network_name : str
        What the command line calls it: a name of the zoo, or the file.
    sha256 : str
        Digest of the checkpoint.
    config : PredictConfig
        How it is predicted.
    sections : tuple of int
        Section indices.
    rect : Rect or None
        Part of each section, None for all of it.
    outputs : frozenset of str
        ``labels``, ``probabilities``, ``entropy``.
    """

    network: str | Path
    network_name: str
    sha256: str
    config: PredictConfig
    sections: tuple[int, ...]
    rect: Rect | None = None
    outputs: frozenset[str] = field(default_factory=lambda: frozenset({"labels"}))

    @property
    def key(self) -> tuple[object, ...]:
        """What decides about the result: work done under an equal key need not be done again.

        Device, engine, tile and batch are left out: they change the speed, and labels only here and there.
        """
        c = self.config
        return (self.sha256, c.precision, c.halo, c.pixel_size, c.invert, c.fill_nan)

    @property
    def roi(self) -> tuple[slice, slice] | None:
        """Rows and columns of `rect` as slices."""
        if self.rect is None:
            return None
        return (slice(self.rect[0], self.rect[1]), slice(self.rect[2], self.rect[3]))

    def rect_in(self, shape: tuple[int, int, int]) -> Rect:
        """Part of each section that is predicted, in a stack of (Z, Y, X)."""
        return self.rect or (0, shape[1], 0, shape[2])

    def missing(self, done: DoneMap, shape: tuple[int, int, int]) -> int:
        """Pixels that are not done yet."""
        rect = self.rect_in(shape)
        return sum(done.missing(z, rect) for z in self.sections)

    def pixels(self, shape: tuple[int, int, int]) -> int:
        """All pixels of the job."""
        return len(self.sections) * area(self.rect_in(shape))


def duration(seconds: float) -> str:
    """Seconds as a person says them: ``3 s``, ``2 min``, ``1 h 20 min``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, rest = divmod(5 * round(minutes / 5), 60)
    return f"{hours} h {rest} min" if rest else f"{hours} h"


def output_name(source: str) -> str:
    """File name proposed for the labels of an image file or folder."""
    return f"{Path(source).name.split('.')[0] or 'stack'}-labels.tif"


def command_line(job: Job, source: str, n_sections: int, pixel_size_given: bool) -> str:
    """Command that does the same job without a screen.

    Parameters
    ----------
    job : Job
        The job.
    source : str
        Path of the image.
    n_sections : int
        Sections of the stack.
    pixel_size_given : bool
        Whether the pixel size is the user's and not the file's.
    """
    c = job.config
    words = ["drososeg", "predict", source, "-o", output_name(source), "--model", job.network_name]
    if len(job.sections) < n_sections:
        words += ["--sections", f"{job.sections[0]}-{job.sections[-1]}"]
    if job.rect is not None:
        y0, y1, x0, x1 = job.rect
        words += ["--roi", f"{y0}:{y1},{x0}:{x1}"]
    for option, value, default in (
        ("--device", c.device, "auto"),
        ("--engine", c.engine, "auto"),
        ("--precision", c.precision, "auto"),
        ("--halo", c.halo, "default"),
    ):
        if value != default:
            words += [option, str(value)]
    if pixel_size_given and c.pixel_size is not None:
        words += ["--pixel-size", f"{c.pixel_size:g}"]
    if c.invert:
        words.append("--invert")
    if c.fill_nan is not None:
        words += ["--fill-nan", f"{c.fill_nan:g}"]
    if "probabilities" in job.outputs:
        words += ["--probabilities", output_name(source).removesuffix("-labels.tif") + "-probabilities.zarr"]
    return shlex.join(words)
