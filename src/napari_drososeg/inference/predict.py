"""From a stack and a network to labels, tile by tile."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from napari_drososeg.checkpoint import load_spec
from napari_drososeg.data.normalisation import Statistics
from napari_drososeg.errors import DrososegError
from napari_drososeg.inference.config import Choice, PredictConfig
from napari_drososeg.inference.engine import Engine
from napari_drososeg.inference.memory import FrugalEngine, free_memory
from napari_drososeg.inference.pipeline import read_ahead
from napari_drososeg.inference.preparation import PreparedNetwork
from napari_drososeg.inference.reading import TileReader, spread_patches
from napari_drososeg.inference.rescaling import grid_for
from napari_drososeg.inference.results import Finisher, Result, Task, needed_output
from napari_drososeg.inference.tiling import Grid, Region, align_up, check_region, plan_tiles
from napari_drososeg.io import Stack
from napari_drososeg.io.units import not_square
from napari_drososeg.zoo import DEFAULT_NETWORK, find_network

OUTPUTS = frozenset({"labels", "probabilities", "entropy"})


class Predictor:
    """A network, ready to run on this machine. May be used from any thread.

    Parameters
    ----------
    network : str or Path
        Name of a network, or its checkpoint.
    config : PredictConfig
        How to predict.
    notify : callable, optional
        Called with one-sentence notices for the user: an unknown pixel size, memory that ran out.
    fixed : bool
        Whether tile, device, engine and precision stay as they are when memory runs out; only the batch becomes
        smaller then. For parts of one result that are computed separately and have to match.
    cancelled : callable, optional
        Called while the network is prepared for this machine, which takes seconds on first use, and between the
        orientations of a tile; if it returns True, `Interrupted` is raised.

    Attributes
    ----------
    spec : NetworkSpec
        The network's description.
    path : Path
        Its checkpoint.

    Raises
    ------
    DrososegError
        If there is no such network, or the device, engine or precision is not available.
    """

    def __init__(
        self,
        network: str | Path = DEFAULT_NETWORK,
        config: PredictConfig | None = None,
        *,
        notify: Callable[[str], None] | None = None,
        fixed: bool = False,
        cancelled: Callable[[], bool] | None = None,
    ) -> None:
        self.config = config or PredictConfig()
        self.fixed = fixed
        self.path = find_network(network)
        self.spec = load_spec(self.path)
        self._notify_user = notify
        self._told: set[str] = set()
        self._calibrated: tuple[Stack | None, Engine] | None = None  # None as stack: for all
        self._network = PreparedNetwork(self.path, self.spec, self.config, self._tell, cancelled)

    @property
    def description(self) -> str:
        """What it runs on, such as ``"CPU, OpenVINO, bf16"``."""
        return self._network.choice.description

    @property
    def choice(self) -> Choice:
        """Device, engine and precision that it runs on."""
        return self._network.choice

    @property
    def engine(self) -> Engine:
        """What computes.

        Raises
        ------
        DrososegError
            For int8 before the first `run`, which calibrates it.
        """
        if self._network.engine is None:
            raise DrososegError("An int8 network is calibrated on first use; predict one section first.")
        return self._network.engine

    @property
    def halo(self) -> int:
        """Context around a tile in px of the network, a multiple of its stride."""
        halo = self.config.halo
        if halo == "exact":
            halo = self.spec.receptive_field
        elif halo == "default":
            halo = self.spec.halo
        return align_up(int(halo), self.spec.stride)

    def calibrate(self, patches: list[NDArray[np.float32]]) -> None:
        """Calibrate int8 for all that is predicted from now on; without it, each stack has its own calibration.

        Parameters
        ----------
        patches : list of ndarray of float32, (1, 1, H, W)
            From `calibration_patches`.

        Raises
        ------
        DrososegError
            If the quantiser is not installed, or fails.
        """
        self._calibrated = None, self._network.calibrated(patches)

    def calibration_patches(self, stack: Stack, reader: TileReader | None = None) -> list[NDArray[np.float32]]:
        """Read what int8 is calibrated on: normalised patches spread over a stack, (1, 1, H, W) each."""
        reader = reader or TileReader(stack, self.spec.normalisation, self.config, self._tell)
        return spread_patches(reader, self.grid(stack), self.spec.stride, stack.n_sections)

    def plan(
        self,
        stack: Stack,
        *,
        sections: Iterable[int] | None = None,
        roi: Region | None = None,
        tile: int | None = None,
    ) -> list[Task]:
        """Cut a stack into tasks.

        Parameters
        ----------
        stack : Stack
            The images.
        sections : iterable of int, optional
            Which z planes; all unless given.
        roi : tuple of slice, optional
            (y, x) on the image's grid; whole sections unless given.
        tile : int, optional
            Longest edge in px that the network sees at once, instead of the configuration's.

        Returns
        -------
        list of Task
            Section by section, in reading order; may be run in any order, and in parts of whole sections. For networks
            with global context they are those tasks of the whole section that reach into `roi`, so labels do not
            depend on it; some fill nothing there themselves (`Tile.writes`).

        Raises
        ------
        DrososegError
            If there is no such section or region, or a tile size has no room for the halo.
        """
        chosen = list(range(stack.n_sections)) if sections is None else list(dict.fromkeys(sections))
        for z in chosen:
            if not 0 <= z < stack.n_sections:
                raise DrososegError(f"There is no section {z} in '{stack.name}'; it has 0 to {stack.n_sections - 1}.")
        grid = self.grid(stack)
        check_region(grid.image, roi)
        tile = tile or self.config.tile or self._network.tile_edge(grid, self.halo, free_memory(self.choice.device))
        tiles = plan_tiles(
            grid, tile=tile, halo=self.halo, stride=self.spec.stride, roi=roi, blend=self.spec.global_context
        )
        return [Task(z, t) for z in chosen for t in tiles]

    def tile_edge(self, stack: Stack, free: int) -> int:
        """Return the longest tile edge in px of the network that `plan` would choose with `free` bytes of memory."""
        return self.config.tile or self._network.tile_edge(self.grid(stack), self.halo, free)

    def run(
        self,
        stack: Stack,
        tasks: Sequence[Task],
        *,
        outputs: Collection[str] = frozenset({"labels"}),
        statistics: Mapping[int, Statistics] | None = None,
    ) -> Iterator[Result]:
        """Predict, tile by tile, in the order of `tasks`.

        Close the generator to stop between two tiles; what was yielded stays valid, and no thread is left behind.

        Parameters
        ----------
        stack : Stack
            The one the tasks were planned for.
        tasks : sequence of Task
            From `plan`.
        outputs : collection of str
            Besides ``"labels"``: ``"probabilities"``, ``"entropy"``.
        statistics : mapping of int to Statistics, optional
            Of sections that were measured before; the others are measured when they are read.

        Yields
        ------
        Result
            One for each task that fills something. Networks with global context are blended, so a result may come
            some tasks later, once its neighbours are known.

        Raises
        ------
        DrososegError
            If an output is unknown, an image holds NaN, or memory ran out for good.
        Interrupted
            If it was cancelled between two orientations.
        """
        unknown = set(outputs) - OUTPUTS
        if unknown:
            raise DrososegError(f"Unknown output '{sorted(unknown)[0]}'; choose from: {', '.join(sorted(OUTPUTS))}.")
        return self._run(stack, list(tasks), frozenset(outputs), statistics)

    def _run(
        self,
        stack: Stack,
        tasks: list[Task],
        outputs: frozenset[str],
        statistics: Mapping[int, Statistics] | None,
    ) -> Iterator[Result]:
        if not tasks:
            return
        reader = TileReader(stack, self.spec.normalisation, self.config, self._tell, statistics)
        engine = FrugalEngine(
            self._engine_for(stack, reader),
            halo=self.halo,
            stride=self.spec.stride,
            notify=self._tell,
            fallback=None if self.choice.device == "cpu" or self.fixed else self._network.retreat_to_cpu,
            keep_tile=self.fixed,
        )
        output = needed_output(tasks, outputs)
        finisher = Finisher(tasks, outputs)
        pixels, seconds, calls, began = 0, 0.0, 0, self.choice
        batches = read_ahead(self._read_batches(reader, tasks))
        try:
            for batch, images in batches:
                start = time.perf_counter()
                found = engine.infer(images, output)
                if calls > 0 or len(batch) == len(tasks):  # the first call also compiles: only count it if it is all
                    seconds += time.perf_counter() - start
                    pixels += images.size
                calls += 1
                for task, values in zip(batch, found, strict=True):
                    yield from finisher.finish(task, values)
        finally:
            cast("Any", batches).close()
            if pixels and self.choice == began:  # not the time of two devices together
                self._network.remember_speed(seconds / pixels, pixels)

    def _engine_for(self, stack: Stack, reader: TileReader) -> Engine:
        """Return what computes; for int8, calibrated on `stack`, so that labels never hang on what came before."""
        if self.choice.precision != "int8":
            return self.engine
        known = self._calibrated
        if known is None or (known[0] is not None and known[0] is not stack):
            known = stack, self._network.calibrated(self.calibration_patches(stack, reader))
            self._calibrated = known
        return known[1]

    def _read_batches(self, reader: TileReader, tasks: list[Task]) -> Iterator[tuple[list[Task], NDArray[np.float32]]]:
        """Yield consecutive tasks of one size with their pixels (N, 1, H, W)."""
        for shape, same in groupby(tasks, key=lambda t: t.tile.read_shape):
            size, waiting = self.config.batch or self._network.batch_size(shape), list(same)
            for k in range(0, len(waiting), size):
                batch = waiting[k : k + size]
                yield batch, np.stack([reader.read(t.z, t.tile) for t in batch])[:, None]

    def seconds_per_pixel(self) -> float | None:
        """Return the time per px that the network sees, in all orientations; None if it has not run here yet."""
        return self._network.seconds_per_pixel()

    def estimate(self, tasks: Iterable[Task]) -> float | None:
        """Return the seconds that `tasks` will take, halos included; None if this network has not run here yet."""
        rate = self.seconds_per_pixel()
        if rate is None:
            return None
        return rate * sum(t.tile.read_shape[0] * t.tile.read_shape[1] for t in tasks)

    def grid(self, stack: Stack) -> Grid:
        """Return how the pixels of a stack and of the network correspond."""
        size = self.config.pixel_size or stack.pixel_size
        if size is None:
            self._tell(f"The pixel size is unknown; the network's own, {self.spec.pixel_size:g} nm, is assumed.")
        elif not self.config.pixel_size and (notice := not_square(stack.voxel_size)):
            self._tell(notice)
        return grid_for(stack.shape[1:], size, self.spec.pixel_size, name=stack.name)

    def bytes_per_pixel(self) -> float:
        """Return the memory in bytes that one px of the network takes while it runs, about."""
        return self._network.bytes_per_pixel()

    def _tell(self, message: str) -> None:
        if self._notify_user is not None and message not in self._told:
            self._told.add(message)
            self._notify_user(message)


def predict(
    stack: Stack,
    network: str | Path = DEFAULT_NETWORK,
    config: PredictConfig | None = None,
    *,
    sections: Iterable[int] | None = None,
    roi: Region | None = None,
    notify: Callable[[str], None] | None = None,
) -> NDArray[np.uint8]:
    """Predict a stack in memory.

    Parameters
    ----------
    stack : Stack
        The images.
    network : str or Path
        Name of a network, or its checkpoint.
    config : PredictConfig, optional
        How to predict.
    sections : iterable of int, optional
        Which z planes; all unless given.
    roi : tuple of slice, optional
        (y, x) on the image's grid; whole sections unless given.
    notify : callable, optional
        Told of what a user should know.

    Returns
    -------
    ndarray of uint8, (Z, Y, X)
        Label values on the image's grid; 0 where nothing was predicted.

    Raises
    ------
    DrososegError
        As `Predictor`, `Predictor.plan` and `Predictor.run`.
    """
    predictor = Predictor(network, config, notify=notify)
    labels = np.zeros(stack.shape, np.uint8)
    for result in predictor.run(stack, predictor.plan(stack, sections=sections, roi=roi)):
        labels[result.z, *result.slices] = result.labels
    return labels
