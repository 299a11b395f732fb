"""One press of Run as data: what to segment, with what, and how it is said in words or as a command. No Qt here."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from napari_drososeg._widgets.work.ordering import DoneMap, Rect, area
from napari_drososeg.errors import DrososegError
from napari_drososeg.inference import Grid, PredictConfig, plan_tiles
from napari_drososeg.inference.rescaling import scale_for
from napari_drososeg.inference.tiling import align_up

if TYPE_CHECKING:
    from napari_drososeg.checkpoint import NetworkSpec


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
        return (self.sha256, c.precision, c.halo, c.pixel_size, c.invert, c.fill_nan, c.orientations)

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


def halo_of(spec: NetworkSpec, halo: int | str) -> int:
    """Context around a tile in px of the network, as `Predictor.halo`."""
    if halo in ("default", "exact"):
        halo = spec.halo if halo == "default" else spec.receptive_field
    return align_up(int(halo), spec.stride)


def read_pixels(job: Job, spec: NetworkSpec, shape: tuple[int, int, int]) -> int | None:
    """Count the pixels that the network will see, halos included, on its own grid.

    The same geometry as `Predictor.plan`, without loading anything.

    Parameters
    ----------
    job : Job
        The job; its tile edge must be given.
    spec : NetworkSpec
        Its network.
    shape : tuple of int
        (Z, Y, X) of the stack.

    Returns
    -------
    int or None
        None where there is no such plan.
    """
    c = job.config
    image, size = (shape[1], shape[2]), c.pixel_size
    grid = Grid(image, image)
    if size and scale_for(size, spec.pixel_size) != 1:
        grid = Grid.for_pixel_sizes(image, size, spec.pixel_size)
    if c.tile is None:
        return None
    halo = halo_of(spec, c.halo)
    per_section = _read_in_section(grid, job.rect_in(shape), c.tile, halo, spec.stride, spec.global_context)
    return None if per_section is None else len(job.sections) * per_section


@lru_cache(maxsize=64)
def _read_in_section(grid: Grid, rect: Rect, tile: int, halo: int, stride: int, blend: bool) -> int | None:
    """Count what the tiles of one section read. Rows and columns are cut independently: one strip of each will do."""
    y0, y1, x0, x1 = rect

    def strip(axis: int, ys: slice, xs: slice) -> int:
        tiles = plan_tiles(grid, tile=tile, halo=halo, stride=stride, roi=(ys, xs), blend=blend)
        return sum({t.read[axis].start: t.read_shape[axis] for t in tiles}.values())

    try:
        return strip(0, slice(y0, y1), slice(x0, x0 + 1)) * strip(1, slice(y0, y0 + 1), slice(x0, x1))
    except DrososegError:
        return None


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


def shell_line(words: Sequence[str]) -> str:
    """Quote words as the shell of this system wants them: on Windows single quotes are letters like others."""
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


def command_line(job: Job, source: str, n_sections: int) -> str:
    """Command that does the same job without a screen, save for the uncertainty, for which there is no option.

    The pixel size is always said: the layer's may not be the file's.

    Parameters
    ----------
    job : Job
        The job.
    source : str
        Path of the image.
    n_sections : int
        Sections of the stack.
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
        ("--orientations", c.orientations, 1),
    ):
        if value != default:
            words += [option, str(value)]
    if c.pixel_size is not None:
        words += ["--pixel-size", f"{c.pixel_size:g}"]
    if c.invert:
        words.append("--invert")
    if c.fill_nan is not None:
        words += ["--fill-nan", f"{c.fill_nan:g}"]
    if "probabilities" in job.outputs:
        words += ["--probabilities", output_name(source).removesuffix("-labels.tif") + "-probabilities.zarr"]
    return shell_line(words)
