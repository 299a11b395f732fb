"""From a stack and a network to labels, tile by tile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from napari_drososeg.checkpoint import load_model, load_spec
from napari_drososeg.errors import DrososegError
from napari_drososeg.inference import estimates
from napari_drososeg.inference.config import PredictConfig, choose
from napari_drososeg.inference.engine import Engine
from napari_drososeg.inference.memory import FrugalEngine, choose_batch, choose_tile, free_memory
from napari_drososeg.inference.pipeline import read_ahead
from napari_drososeg.inference.reading import TileReader
from napari_drososeg.inference.results import Finisher, Result, Task, needed_output
from napari_drososeg.inference.tiling import Grid, Region, align_up, check_region, plan_tiles
from napari_drososeg.io import Stack
from napari_drososeg.zoo import DEFAULT_NETWORK, find_network

if TYPE_CHECKING:
    import openvino as ov

OUTPUTS = frozenset({"labels", "probabilities", "entropy"})

RESCALE_ABOVE = 1.15
"""Images whose pixel size differs from the network's by more than this factor are rescaled."""

RESCALE_AT_MOST = 16.0
"""Beyond this factor the pixel size is taken for a mistake, such as the resolution of a screen."""

CALIBRATION_PATCHES, CALIBRATION_EDGE = 32, 256
"""What int8 is calibrated on: so many patches, spread over the stack, of this edge in px."""


class Predictor:
    """A network, ready to run on this machine. May be used from any thread.

    Parameters
    ----------
    network : str or Path
        Name of a network, or its checkpoint.
    config : PredictConfig
        How to predict.
    notify : callable, optional
        Told, in one sentence each, of what a user should know: an unknown pixel size, memory that ran out.

    Attributes
    ----------
    spec : NetworkSpec
        The network's description.
    path : Path
        Its checkpoint.

    Raises
    ------
    DrososegError
        If there is no such network, or the device, engine or precision is not to be had here.
    """

    def __init__(
        self,
        network: str | Path = DEFAULT_NETWORK,
        config: PredictConfig | None = None,
        *,
        notify: Callable[[str], None] | None = None,
    ) -> None:
        self.config = config or PredictConfig()
        self.path = find_network(network)
        self.spec = load_spec(self.path)
        self._notify_user = notify
        self._told: set[str] = set()
        self._lock = threading.Lock()
        self._choice = choose(self.config)
        # int8 is calibrated on the stack, so it has to wait for one
        self._engine = None if self._choice.precision == "int8" else self._load()

    @property
    def description(self) -> str:
        """What it runs on, such as ``"CPU, OpenVINO, bf16"``."""
        return self._choice.description

    @property
    def engine(self) -> Engine:
        """What computes.

        Raises
        ------
        DrososegError
            For int8 before the first `run`, which calibrates it.
        """
        if self._engine is None:
            raise DrososegError("An int8 network is prepared by its first prediction; predict one section before.")
        return self._engine

    @property
    def halo(self) -> int:
        """Context around a tile in px of the network, a multiple of its stride."""
        halo = self.config.halo
        if halo == "exact":
            halo = self.spec.receptive_field
        elif halo == "default":
            halo = self.spec.halo
        return align_up(int(halo), self.spec.stride)

    def plan(self, stack: Stack, *, sections: Iterable[int] | None = None, roi: Region | None = None) -> list[Task]:
        """Cut a stack into tasks.

        Parameters
        ----------
        stack : Stack
            The images.
        sections : iterable of int, optional
            Which z planes; all unless given.
        roi : tuple of slice, optional
            (y, x) on the image's grid; whole sections unless given.

        Returns
        -------
        list of Task
            Section by section, in reading order; may be run in any order, and in parts.

        Raises
        ------
        DrososegError
            If there is no such section or region, or a tile size has no room for the halo.
        """
        chosen = list(range(stack.n_sections)) if sections is None else list(dict.fromkeys(sections))
        for z in chosen:
            if not 0 <= z < stack.n_sections:
                raise DrososegError(f"There is no section {z} in '{stack.name}'; it has 0 to {stack.n_sections - 1}.")
        grid = self._grid(stack)
        check_region(grid.image, roi)
        tile = self.config.tile or self._choose_tile(grid)
        tiles = plan_tiles(
            grid, tile=tile, halo=self.halo, stride=self.spec.stride, roi=roi, blend=self.spec.global_context
        )
        return [Task(z, t) for z in chosen for t in tiles]

    def run(
        self, stack: Stack, tasks: Sequence[Task], *, outputs: Collection[str] = frozenset({"labels"})
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

        Yields
        ------
        Result
            One for each task. Networks with global context are blended, so a result may come some tasks later, once
            its neighbours are known.

        Raises
        ------
        DrososegError
            If an output is unknown, an image holds NaN, or memory ran out for good.
        """
        unknown = set(outputs) - OUTPUTS
        if unknown:
            raise DrososegError(
                f"There is no output '{sorted(unknown)[0]}'; choose among: {', '.join(sorted(OUTPUTS))}."
            )
        return self._run(stack, list(tasks), frozenset(outputs))

    def _run(self, stack: Stack, tasks: list[Task], outputs: frozenset[str]) -> Iterator[Result]:
        if not tasks:
            return
        reader = TileReader(stack, self.spec.normalisation, self.config, self._tell)
        engine = FrugalEngine(
            self._engine_for(stack, reader),
            halo=self.halo,
            stride=self.spec.stride,
            notify=self._tell,
            fallback=None if self._choice.device == "cpu" else self._retreat_to_cpu,
        )
        output = needed_output(tasks, outputs)
        finisher = Finisher(tasks, outputs)
        pixels, seconds, calls = 0, 0.0, 0
        batches = read_ahead(self._read_batches(reader, tasks))
        try:
            for batch, images in batches:
                start = time.perf_counter()
                found = engine.infer(images, output)
                if calls > 0 or len(tasks) == len(
                    batch
                ):  # the first call also compiles: leave it out if there are more
                    seconds += time.perf_counter() - start
                    pixels += images.size
                calls += 1
                for task, values in zip(batch, found, strict=True):
                    yield from finisher.finish(task, values)
        finally:
            cast("Any", batches).close()
            if pixels:
                estimates.remember(estimates.speed_key(self.path, self._choice), seconds / pixels)

    def _read_batches(self, reader: TileReader, tasks: list[Task]) -> Iterator[tuple[list[Task], NDArray[np.float32]]]:
        """Yield consecutive tasks of one size with their pixels (N, 1, H, W)."""
        for shape, same in groupby(tasks, key=lambda t: t.tile.read_shape):
            size, waiting = self._batch_size(shape), list(same)
            for k in range(0, len(waiting), size):
                batch = waiting[k : k + size]
                yield batch, np.stack([reader.read(t.z, t.tile) for t in batch])[:, None]

    def seconds_per_pixel(self) -> float | None:
        """Return the time per px that the network sees, as measured here earlier; None if it has not run yet."""
        return estimates.recall(estimates.speed_key(self.path, self._choice))

    def estimate(self, tasks: Iterable[Task]) -> float | None:
        """Return the seconds that `tasks` will take, halos included; None if this network has not run here yet."""
        rate = self.seconds_per_pixel()
        if rate is None:
            return None
        return rate * sum(t.tile.read_shape[0] * t.tile.read_shape[1] for t in tasks)

    def _grid(self, stack: Stack) -> Grid:
        shape = stack.shape[1:]
        size = self.config.pixel_size or stack.pixel_size
        if size is None:
            self._tell(
                f"The pixel size of '{stack.name}' is unknown; "
                f"the network's own, {self.spec.pixel_size:g} nm, is assumed."
            )
            return Grid(shape, shape)
        factor = max(size / self.spec.pixel_size, self.spec.pixel_size / size)
        if factor <= RESCALE_ABOVE:
            return Grid(shape, shape)
        if factor > RESCALE_AT_MOST:
            raise DrososegError(
                f"The pixel size of '{stack.name}', {size:g} nm, is over {RESCALE_AT_MOST:g} times off the network's "
                f"{self.spec.pixel_size:g} nm: check its unit, or give the pixel size yourself."
            )
        return Grid.for_pixel_sizes(shape, size, self.spec.pixel_size)

    def _choose_tile(self, grid: Grid) -> int:
        return choose_tile(
            grid.network,
            halo=self.halo,
            stride=self.spec.stride,
            bytes_per_pixel=self._bytes_per_pixel(),
            free=free_memory(self._choice.device),
            on_cpu=self._choice.device == "cpu",
        )

    def _batch_size(self, shape: tuple[int, int]) -> int:
        return self.config.batch or choose_batch(
            shape[0] * shape[1],
            bytes_per_pixel=self._bytes_per_pixel(),
            free=free_memory(self._choice.device),
            on_cpu=self._choice.device == "cpu",
        )

    def _bytes_per_pixel(self) -> float:
        if self._engine is not None:
            return self._engine.bytes_per_pixel
        from napari_drososeg.inference.openvino_engine import activation_bytes

        return activation_bytes(self._converted())

    def _converted(self) -> ov.Model:
        """Return the network in OpenVINO's form where there is no way around it, as for int8."""
        from napari_drososeg.inference.openvino_engine import ConversionError, converted

        try:
            return converted(self.path)
        except ConversionError as error:
            raise DrososegError(f"{error} Use another precision than int8.") from error

    def _tell(self, message: str) -> None:
        if self._notify_user is not None and message not in self._told:
            self._told.add(message)
            self._notify_user(message)

    def _load(self) -> Engine:
        if self._choice.engine == "openvino":
            from napari_drososeg.inference.openvino_engine import ConversionError, OpenVinoEngine, converted

            try:
                return OpenVinoEngine(converted(self.path), self._choice.precision)
            except ConversionError as error:
                if self.config.engine == "openvino":
                    raise DrososegError(f"{error} Use the engine 'torch'.") from error
                self._tell(f"{error} PyTorch is used instead.")
                self._choice = choose(replace(self.config, engine="torch"))
        from napari_drososeg.inference.torch_engine import TorchEngine

        return TorchEngine(
            load_model(self.path)[1], self._choice.device, self._choice.precision, stride=self.spec.stride
        )

    def _retreat_to_cpu(self) -> Engine:
        self._choice = choose(replace(self.config, device="cpu", precision="auto"))
        self._engine = self._load()
        return self._engine

    def _engine_for(self, stack: Stack, reader: TileReader) -> Engine:
        with self._lock:
            if self._engine is None:
                from napari_drososeg.inference.config import cpu_has_bf16
                from napari_drososeg.inference.openvino_engine import OpenVinoEngine
                from napari_drososeg.inference.quantisation import quantised

                patches = self._calibration_patches(stack, reader)
                model = quantised(self.path, self._converted, patches, notify=self._tell)
                self._engine = OpenVinoEngine(model, "bf16" if cpu_has_bf16() else "f32")
            return self._engine

    def _calibration_patches(self, stack: Stack, reader: TileReader) -> list[NDArray[np.float32]]:
        """Read patches (1, 1, H, W) spread evenly over the stack."""
        tiles = plan_tiles(
            self._grid(stack), tile=max(CALIBRATION_EDGE, 3 * self.spec.stride), halo=0, stride=self.spec.stride
        )
        total = len(tiles) * stack.n_sections
        # through the golden ratio, so that neighbouring sections give different corners
        steps = np.arange(min(total, CALIBRATION_PATCHES))
        sections = np.linspace(0, stack.n_sections - 1, len(steps)).round().astype(int)
        places = (steps * 0.6180339887 % 1.0 * len(tiles)).astype(int)
        return [reader.read(int(z), tiles[int(k)])[None, None] for z, k in zip(sections, places, strict=True)]


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
