"""How much fits into memory, and what to do when it did not fit after all."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_drososeg.errors import DrososegError
from napari_drososeg.inference.engine import Engine, Output
from napari_drososeg.inference.tiling import Grid, align_down, align_up, plan_tiles

USABLE = 0.5
"""Part of the free memory that a tile may take: others need some, and estimates are off."""

CPU_WHOLE = 2048
"""On processors a section up to this edge is one tile if it fits: it needs no halo then. Larger tiles are not faster,
they only make the first result late and cancelling slow."""

CPU_TILE = 1024
"""Tile edge for larger sections on processors: the first result after less than a second on two cores."""

CPU_BATCH_PIXELS = 512 * 512
"""Small sections are computed together up to this; beyond, a processor gains nothing from batches."""

ACCELERATOR_TILE = 4096
ACCELERATOR_BATCH = 16

MAX_HALO_COST = 1.4
"""Tiles are larger than `CPU_TILE` where halos would cost more than this many times the work without."""


def free_memory(device: str = "cpu") -> int:
    """Return the free memory in bytes of a device: within the limits of a container, for the processor."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    import psutil

    free = int(psutil.virtual_memory().available)
    container = _cgroup_free()
    return free if container is None else min(free, container)


def _cgroup_free(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int | None:
    """Return what the control groups of this process leave it; None where nothing limits it."""
    try:
        lines = [line.split(":", 2) for line in own.read_text(encoding="ascii").splitlines()]
    except (OSError, UnicodeDecodeError):
        return None
    found: list[int] = []
    for _, controllers, path in (line for line in lines if len(line) == 3):
        if controllers not in ("", "memory"):
            continue
        base = root / "memory" if controllers == "memory" else root
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if controllers else ("memory.max", "memory.current")
        group = base / path.lstrip("/")
        for folder in (group, *group.parents):  # a limit further up holds as well
            if base not in (folder, *folder.parents):
                break
            try:
                limit, used = ((folder / name).read_text(encoding="ascii").strip() for name in names)
                statistics = dict(
                    line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines()
                )
            except (OSError, ValueError):
                continue
            if limit.isdigit() and int(limit) < 1 << 60:
                cached = int(statistics.get("inactive_file", 0))  # file cache gives way when memory is needed
                found.append(max(0, int(limit) - int(used) + cached))
    return min(found, default=None)


def choose_tile(
    shape: tuple[int, int], *, halo: int, stride: int, bytes_per_pixel: float, free: int, on_cpu: bool
) -> int:
    """Choose the tile edge for a section.

    Parameters
    ----------
    shape : tuple of int
        Size of the section on the network's grid.
    halo, stride : int
        Of the network, px.
    bytes_per_pixel : float
        Memory of one input px while the network runs.
    free : int
        Free memory in bytes.
    on_cpu : bool
        Whether the tile is computed in main memory.

    Returns
    -------
    int
        A multiple of the stride with room for the halo; a section that fits has one tile.
    """
    budget = int(free * USABLE / max(1.0, bytes_per_pixel))
    height, width = (align_up(n, stride) for n in shape)
    longest = max(height, width)
    largest = max(align_down(int(budget**0.5), stride), smallest_tile(halo, stride))
    cap = CPU_WHOLE if on_cpu else ACCELERATOR_TILE
    if height * width <= budget and longest <= cap:
        return longest
    edge = ACCELERATOR_TILE
    if on_cpu:
        edge = CPU_TILE
        while (edge / max(1, edge - 2 * halo)) ** 2 > MAX_HALO_COST:
            edge *= 2
    return min(align_up(edge, stride), largest, longest)


def smallest_tile(halo: int, stride: int) -> int:
    """Return the edge below which tiles would be almost nothing but halo."""
    return 2 * align_up(halo, stride) + 4 * stride


def choose_batch(tile_pixels: int, *, bytes_per_pixel: float, free: int, on_cpu: bool) -> int:
    """Choose how many tiles of `tile_pixels` are computed together."""
    if on_cpu:
        return max(1, min(8, CPU_BATCH_PIXELS // tile_pixels))
    return max(1, min(ACCELERATOR_BATCH, int(free * USABLE / (bytes_per_pixel * tile_pixels))))


_MESSAGES = re.compile(
    r"out of memory|not enough memory|bad[_ ]alloc|can'?t allocate|cannot allocate|could not allocate"
    r"|failed to allocate|insufficient memory",
    re.IGNORECASE,
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception of torch, OpenVINO, CUDA or Python says that memory ran out."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and _MESSAGES.search(str(error)) is not None
    )


class FrugalEngine:
    """An engine that gets by with less when memory runs out: half the batch, half the tile, then the processor.

    What it has learnt holds for later calls.

    Parameters
    ----------
    engine : Engine
        The one to start with.
    halo, stride : int
        For cutting tiles further, px of the network.
    notify : callable
        Told of every retreat.
    fallback : callable, optional
        Makes an engine on the processor; None where `engine` is one.
    keep_tile : bool
        Whether only the batch may become smaller, which changes no label.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        halo: int,
        stride: int,
        notify: Callable[[str], None],
        fallback: Callable[[], Engine] | None = None,
        keep_tile: bool = False,
    ) -> None:
        self._engine = engine
        self._halo = halo
        self._stride = stride
        self._notify = notify
        self._fallback = fallback
        self._keep_tile = keep_tile
        self._batch: int | None = None
        self._edge: int | None = None

    def infer(self, images: NDArray[np.float32], output: Output) -> NDArray[Any]:
        """Run the network; see `napari_drososeg.inference.engine.Engine`.

        Raises
        ------
        DrososegError
            If even the smallest tile does not fit.
        """
        while True:
            try:
                return self._attempt(images, output)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                reason = error
            size = len(images) if self._batch is None else min(self._batch, len(images))
            self._retreat(size, max(images.shape[2:]), reason)
            del reason  # its traceback holds on to memory
            _release()

    def _attempt(self, images: NDArray[np.float32], output: Output) -> NDArray[Any]:
        size = self._batch or len(images)
        parts = [self._cut(images[k : k + size], output) for k in range(0, len(images), size)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _cut(self, images: NDArray[np.float32], output: Output) -> NDArray[Any]:
        """Run images whole, or in tiles where their edge has proved too long."""
        height, width = images.shape[2:]
        if self._edge is None or max(height, width) <= self._edge:
            return self._engine.infer(images, output)
        shape = (height, width)
        tiles = plan_tiles(Grid(shape, shape), tile=self._edge, halo=self._halo, stride=self._stride)
        whole: NDArray[Any] | None = None
        for tile in tiles:
            part = self._engine.infer(np.ascontiguousarray(images[:, :, *tile.read]), output)
            if whole is None:
                whole = np.empty((*part.shape[:-2], *shape), part.dtype)
            (y, x), (read_y, read_x) = tile.write, tile.read
            whole[..., y, x] = part[
                ..., y.start - read_y.start : y.stop - read_y.start, x.start - read_x.start : x.stop - read_x.start
            ]
        assert whole is not None
        return whole

    def _retreat(self, batch: int, longest: int, error: Exception) -> None:
        edge = longest if self._edge is None else min(self._edge, longest)
        half = align_up(edge // 2, self._stride)
        if batch > 1:
            self._batch = batch // 2
            self._notify(f"Memory ran out; continuing with {self._batch} instead of {batch} tiles at a time.")
        elif not self._keep_tile and smallest_tile(self._halo, self._stride) <= half < edge:
            self._edge = half
            self._notify(f"Memory ran out; continuing with tiles of {half} instead of {edge} px.")
        elif self._fallback is not None:
            self._notify("The device ran out of memory; continuing on the processor.")
            self._engine, self._fallback = self._fallback(), None
            self._batch = self._edge = None
        else:
            raise DrososegError(
                f"There is not enough memory for a tile of {edge} px; close other programs, or use a smaller "
                f"{'tile' if self._keep_tile else 'halo'}."
            ) from error


def _release() -> None:
    """Give memory that torch keeps for later back to the device."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
