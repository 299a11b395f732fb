"""Tasks and results: what goes into a prediction and what comes out of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_drososeg.inference.blending import Blender
from napari_drososeg.inference.engine import Output, decide, entropy
from napari_drososeg.inference.rescaling import crop, to_image
from napari_drososeg.inference.tiling import Region, Tile


@dataclass(frozen=True)
class Task:
    """One tile of one section."""

    z: int
    tile: Tile


@dataclass(frozen=True)
class Result:
    """What was found in a region of a section.

    Parameters
    ----------
    z : int
        Section.
    slices : tuple of slice
        (y, x) on the image's grid.
    labels : ndarray of uint8, (h, w)
        Label values, 1 to C.
    probabilities : ndarray of float16, (C, h, w), or None
        If asked for.
    entropy : ndarray of float16, (h, w), or None
        Uncertainty, 0 to 1, if asked for.
    """

    z: int
    slices: Region
    labels: NDArray[np.uint8]
    probabilities: NDArray[np.float16] | None = None
    entropy: NDArray[np.float16] | None = None


class Finisher:
    """Turns what an engine gives for a tile into results on the image's grid."""

    def __init__(self, tasks: list[Task], outputs: frozenset[str]) -> None:
        self._outputs = outputs
        tiles_of: dict[int, list[Tile]] = {}
        for task in tasks:
            if task.tile.reach != task.tile.write:
                tiles_of.setdefault(task.z, []).append(task.tile)
        self._tiles_of = tiles_of
        self._waiting = {z: len(tiles) for z, tiles in tiles_of.items()}
        self._blenders: dict[int, Blender] = {}

    def finish(self, task: Task, values: NDArray[Any]) -> Iterator[Result]:
        """Yield what is complete after `values` (H, W) or (C, H, W) of a task."""
        z, tile = task.z, task.tile
        if values.ndim == 2:
            yield Result(z, tile.write, np.ascontiguousarray(crop(values, tile)))
        elif tile.reach == tile.write:
            yield self._result(z, tile, to_image(values, tile))
        else:
            if z not in self._blenders:
                self._blenders[z] = Blender(self._tiles_of[z])
            for done, blended in self._blenders[z].add(tile, to_image(values, tile)):
                yield self._result(z, done, blended)
            self._waiting[z] -= 1
            if not self._waiting[z]:
                del self._blenders[z]

    def _result(self, z: int, tile: Tile, probabilities: NDArray[np.float32]) -> Result:
        wanted = self._outputs
        return Result(
            z,
            tile.write,
            decide(probabilities),
            probabilities.astype(np.float16) if "probabilities" in wanted else None,
            entropy(probabilities) if "entropy" in wanted else None,
        )


def needed_output(tasks: list[Task], outputs: frozenset[str]) -> Output:
    """Labels suffice unless something is to be interpolated, blended or handed out."""
    plain = all(not t.tile.grid.rescaled and t.tile.reach == t.tile.write for t in tasks)
    return "labels" if plain and not outputs - {"labels"} else "probabilities"
