"""A checkpoint made ready for this machine: on what it computes, how much fits, how fast it is."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_drososeg.checkpoint import NetworkSpec, load_model
from napari_drososeg.errors import DrososegError
from napari_drososeg.inference import estimates
from napari_drososeg.inference.config import PredictConfig, choose, cpu_has_bf16
from napari_drososeg.inference.engine import Engine
from napari_drososeg.inference.memory import choose_batch, choose_tile, free_memory
from napari_drososeg.inference.orientations import OrientedEngine, averaging_bytes, exchanges_axes
from napari_drososeg.inference.tiling import Grid

if TYPE_CHECKING:
    import openvino as ov


class PreparedNetwork:
    """A network on the device, engine and precision that suit this machine.

    Parameters
    ----------
    path : Path
        Its checkpoint.
    spec : NetworkSpec
        Its description.
    config : PredictConfig
        What was asked for.
    tell : callable
        Told, in one sentence each, of what a user should know.
    cancelled : callable, optional
        Asked while it is converted or quantised, see `run_child`.

    Attributes
    ----------
    choice : Choice
        What it runs on. It changes when that does not work.
    engine : Engine or None
        What computes; None for int8 until `calibrated`.

    Raises
    ------
    DrososegError
        If device, engine or precision are not available here.
    """

    def __init__(
        self,
        path: Path,
        spec: NetworkSpec,
        config: PredictConfig,
        tell: Callable[[str], None],
        cancelled: Callable[[], bool] | None,
    ) -> None:
        self.path = path
        self.spec = spec
        self.config = config
        self._tell = tell
        self._cancelled = cancelled
        self._lock = threading.Lock()
        self._calibration = ""
        self.choice = choose(config)
        # int8 is calibrated on what is predicted, so it has to wait for that
        self.engine = None if self.choice.precision == "int8" else self._load()

    def _load(self) -> Engine:
        if self.choice.engine == "openvino":
            from napari_drososeg.inference.conversion import ConversionError, converted

            try:
                return self._openvino(converted(self.path, self._cancelled), self.choice.precision)
            except ConversionError as error:
                if self.config.engine == "openvino":
                    raise DrososegError(f"{error} Use the engine 'torch'.") from error
                self._tell(f"{error} PyTorch is used instead.")
                self.choice = choose(replace(self.config, engine="torch"))
        from napari_drososeg.inference.torch_engine import TorchEngine

        return self._averaging(
            TorchEngine(
                load_model(self.path)[1],
                self.choice.device,
                self.choice.precision,
                stride=self.spec.stride,
                threads=self.config.threads,
            )
        )

    def _openvino(self, model: ov.Model, precision: str) -> Engine:
        from napari_drososeg.inference.openvino_engine import OpenVinoEngine

        both_ways = exchanges_axes(self.config.orientations)
        return self._averaging(OpenVinoEngine(model, precision, self.config.threads, both_ways=both_ways))

    def _averaging(self, engine: Engine) -> Engine:
        """Return what computes all orientations: `engine` itself where there is one."""
        n = self.config.orientations
        return engine if n == 1 else OrientedEngine(engine, n, len(self.spec.classes), self._cancelled)

    def retreat_to_cpu(self) -> Engine:
        """Load it again on the processor, for when a device has too little memory."""
        self.choice = choose(replace(self.config, device="cpu", precision="auto"))
        self.engine = self._load()
        return self.engine

    def calibrated(self, patches: list[NDArray[np.float32]]) -> Engine:
        """Return what computes in int8, quantised on `patches` (each (1, 1, H, W)).

        The patches are not turned, however many orientations are averaged: contrast decides about the ranges of
        activations, and one quantised network serves all.
        """
        from napari_drososeg.inference.quantisation import digest, quantised

        with self._lock:
            if self.engine is None or digest(patches) != self._calibration:
                model = quantised(self.path, patches, notify=self._tell, cancelled=self._cancelled)
                self.engine = self._openvino(model, "bf16" if cpu_has_bf16() else "f32")
                self._calibration = digest(patches)
            return self.engine

    # ---------------------------------------------------------------- how much fits, how fast it is

    def bytes_per_pixel(self) -> float:
        """Return the memory in bytes that one px of the network takes while it runs, about."""
        if self.engine is not None and self.choice.precision != "int8":
            return self.engine.bytes_per_pixel
        return self._unquantised_bytes  # the same before and after it is calibrated, so that tiles are

    @cached_property
    def _unquantised_bytes(self) -> float:
        from napari_drososeg.inference.conversion import ConversionError, converted
        from napari_drososeg.inference.openvino_engine import activation_bytes

        try:
            bytes_per_pixel = activation_bytes(converted(self.path, self._cancelled))
        except ConversionError as error:
            raise DrososegError(f"{error} Use another precision than int8.") from error
        if self.config.orientations == 1:
            return bytes_per_pixel
        ways = 2 if exchanges_axes(self.config.orientations) else 1
        return ways * bytes_per_pixel + averaging_bytes(len(self.spec.classes))

    def tile_edge(self, grid: Grid, halo: int, free: int) -> int:
        """Return the longest tile edge in px of the network for `free` bytes of memory."""
        fits = choose_tile(
            grid.network,
            halo=halo,
            stride=self.spec.stride,
            bytes_per_pixel=self.bytes_per_pixel(),
            free=free,
            on_cpu=self.choice.device == "cpu",
        )
        return min(fits, self.spec.tile) if self.spec.tile else fits

    def batch_size(self, shape: tuple[int, int]) -> int:
        """Return how many tiles of a shape in px of the network are computed together."""
        return choose_batch(
            shape[0] * shape[1],
            bytes_per_pixel=self.bytes_per_pixel(),
            free=free_memory(self.choice.device),
            on_cpu=self.choice.device == "cpu",
        )

    def seconds_per_pixel(self) -> float | None:
        """Return the time per px that the network sees, in all orientations, as measured here earlier.

        None if it has not run yet. What is remembered is the time of one orientation, so that it serves any number.
        """
        rate = estimates.recall(estimates.speed_key(self.path, self.choice))
        return None if rate is None else rate * self.config.orientations

    def remember_speed(self, seconds_per_pixel: float, pixels: int) -> None:
        """Remember a measurement over some pixels, of all orientations together, for the next estimate."""
        rate = seconds_per_pixel / self.config.orientations
        estimates.remember(estimates.speed_key(self.path, self.choice), rate, pixels)
