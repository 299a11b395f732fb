"""What a run will take, known before it starts: disk space, time, memory."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_drososeg.batch.tasks import open_input
from napari_drososeg.inference.memory import free_memory
from napari_drososeg.io import atomic

if TYPE_CHECKING:
    from napari_drososeg.batch.config import BatchConfig
    from napari_drososeg.batch.inspection import Opened
    from napari_drososeg.batch.plan import Job
    from napari_drososeg.inference import Predictor
    from napari_drososeg.zoo import NetworkCard

LONG_SECONDS = 6 * 3600
LARGE_BYTES = 50 * 2**30
"""Runs that take longer, or write more, are asked about first."""

SPARE = 0.9
"""Part of the free space that labels may take without being asked about."""

LEVELS = 4 / 3
"""Bytes of a zarr with its levels, over those of its full size."""


@dataclass(frozen=True)
class Preflight:
    """What a run will take.

    Parameters
    ----------
    n_items : int
        Inputs to predict.
    n_done : int
        Inputs that are done already.
    pixels : int
        Of the inputs to predict.
    bytes_needed : int
        At most, on the disk of the output: labels compress well in zarr and PNG.
    bytes_free : int
        There.
    bytes_of_memory : int
        That a worker takes for the network at work, about.
    seconds : float or None
        About; None where the network has not run here yet.
    unreadable : tuple of str
        Inputs whose header cannot be read, each with its reason.
    n_undrawn : int
        Inputs whose labels are done, and of which only overlays are drawn.
    """

    n_items: int
    n_done: int
    pixels: int
    bytes_needed: int
    bytes_free: int
    bytes_of_memory: int
    seconds: float | None
    unreadable: tuple[str, ...] = field(default=())
    n_undrawn: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data."""
        return {**asdict(self), "unreadable": list(self.unreadable), "concerns": self.concerns}

    @property
    def concerns(self) -> list[str]:
        """What should be asked about before starting; empty for ordinary runs."""
        found = []
        if self.bytes_needed > SPARE * self.bytes_free:
            found.append(
                f"it may write up to {self.bytes_needed / 1e9:.1f} GB and {self.bytes_free / 1e9:.1f} GB are free"
            )
        elif self.bytes_needed > LARGE_BYTES:
            found.append(f"it may write up to {self.bytes_needed / 1e9:.0f} GB")
        if self.seconds is not None and self.seconds > LONG_SECONDS:
            found.append(f"it will take about {self.seconds / 3600:.0f} hours")
        return found


def free_space(folder: Path) -> int:
    """Return the free bytes on the disk of a folder that need not exist yet."""
    return shutil.disk_usage(atomic.existing(folder)).free


def look_ahead(
    opened: Sequence[Opened | str],
    undrawn: Sequence[Opened | str],
    n_done: int,
    job: Job,
    config: BatchConfig,
    card: NetworkCard,
    predictor: Predictor | None,
) -> Preflight:
    """Add up what a run will take.

    Parameters
    ----------
    opened : sequence of Opened or str
        What is to be predicted; a text where its header cannot be read, and why.
    undrawn : sequence of Opened or str
        Likewise what is only to be drawn.
    n_done : int
        Inputs that are done already.
    job : Job
        What they belong to.
    config : BatchConfig
        How it will run.
    card : NetworkCard
        With which network.
    predictor : Predictor or None
        That network, where something is to be done.
    """
    whole = pixels = memory = 0
    for each in opened:
        if isinstance(each, str):
            continue
        whole += math.prod(each.shape)
        pixels += _chosen_pixels(each, config)
        if predictor is not None:
            stack = open_input(each.item.source, each.fingerprint)
            tile = predictor.tile_edge(stack, free_memory(predictor.choice.device) // max(1, config.workers))
            memory = max(memory, int(predictor.bytes_per_pixel() * tile**2))
    per_pixel = LEVELS if job.format == "ome-zarr" else 1.0
    if config.probabilities is not None and card.spec is not None:
        per_pixel += 2 * len(card.spec.classes)
    drawn = 0
    if config.overlays is not None:
        drawn = sum(_chosen_pixels(each, config) for each in (*opened, *undrawn) if not isinstance(each, str))
    rate = None if predictor is None else predictor.seconds_per_pixel()
    return Preflight(
        n_items=len(opened),
        n_done=n_done,
        pixels=pixels,
        bytes_needed=int(per_pixel * whole) + 3 * drawn,
        bytes_free=free_space(job.items[0].target.absolute().parent),
        bytes_of_memory=memory,
        seconds=None if rate is None else rate * pixels / max(1, config.workers),
        unreadable=tuple(each for each in (*opened, *undrawn) if isinstance(each, str)),
        n_undrawn=len(undrawn),
    )


def _chosen_pixels(each: Opened, config: BatchConfig) -> int:
    """Return the pixels of the chosen part of an input."""
    height, width = each.shape[1:] if config.part.roi is None else (s.stop - s.start for s in config.part.roi)
    return len(each.sections) * height * width
