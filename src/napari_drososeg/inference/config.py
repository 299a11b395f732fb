"""What a prediction can be told, and which device, engine and precision that comes to on this machine."""

from __future__ import annotations

import ctypes
import importlib.util
import math
import platform
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from napari_drososeg.errors import DrososegError

ENGINES = ("auto", "openvino", "torch")
PRECISIONS = ("auto", "f32", "bf16", "f16", "int8")
ORIENTATIONS = (1, 2, 4, 8)


@dataclass(frozen=True)
class PredictConfig:
    """Prediction settings; the defaults suit most uses.

    Parameters
    ----------
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``. Auto uses CUDA, else MPS, else the CPU.
    engine : {"auto", "openvino", "torch"}
        Auto uses OpenVINO on the CPU if it is installed, else torch.
    precision : {"auto", "f32", "bf16", "f16", "int8"}
        Auto uses bf16 on CPUs that support it, f16 on CUDA and MPS, else f32. int8 is for OpenVINO.
    halo : int, "default" or "exact"
        Context around a tile in px of the network. Default is the network's own: the smallest that leaves at least
        99.95 % of the labels as in the whole section, on sections it was trained on. Exact covers its receptive field.
    tile : int, optional
        Longest edge in px that the network sees at once, halo included; by default chosen from free memory.
    batch : int, optional
        Tiles computed together; by default chosen from free memory.
    pixel_size : float, optional
        In-plane pixel size of the image in nm, instead of the stack's.
    invert : bool
        Whether membranes are bright, so that grey values have to be inverted.
    fill_nan : float, optional
        Grey value that replaces NaN and infinity, which are refused otherwise.
    threads : int, optional
        Threads on the CPU; by default all. Torch has one setting for the whole program.
    orientations : {1, 2, 4, 8}
        Number of flips and quarter turns averaged by test-time augmentation, at that many times the cost; see
        `napari_drososeg.inference.orientations`.

    Raises
    ------
    DrososegError
        If a value is invalid by itself; `choose` refuses what is not available on this machine.
    """

    device: str = "auto"
    engine: str = "auto"
    precision: str = "auto"
    halo: int | Literal["default", "exact"] = "default"
    tile: int | None = None
    batch: int | None = None
    pixel_size: float | None = None
    invert: bool = False
    fill_nan: float | None = None
    threads: int | None = None
    orientations: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.halo, str) and self.halo not in ("default", "exact"):
            raise DrososegError(f"The halo is a number of pixels, 'default' or 'exact', not '{self.halo}'.")
        if isinstance(self.halo, int) and self.halo < 0:
            raise DrososegError(f"The halo cannot be {self.halo} px; use 0 or more.")
        for name in ("tile", "batch", "pixel_size", "threads"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise DrososegError(f"The {name.replace('_', ' ')} cannot be {value}; use a number above 0.")
        if self.fill_nan is not None and not math.isfinite(self.fill_nan):
            raise DrososegError(f"The fill value cannot be {self.fill_nan}; use a grey value.")
        if self.orientations not in ORIENTATIONS:
            raise DrososegError(f"The number of orientations is 1, 2, 4 or 8, not {self.orientations}.")


@dataclass(frozen=True)
class Choice:
    """A device, an engine and a precision that exist on this machine."""

    device: str
    engine: Literal["openvino", "torch"]
    precision: Literal["f32", "bf16", "f16", "int8"]

    @property
    def description(self) -> str:
        """For people, such as ``"CPU, OpenVINO, bf16"``."""
        engine = {"openvino": "OpenVINO", "torch": "PyTorch"}[self.engine]
        return f"{self.device.upper()}, {engine}, {self.precision}"


def has_openvino() -> bool:
    """Whether OpenVINO is installed."""
    return importlib.util.find_spec("openvino") is not None


@lru_cache(maxsize=1)
def cuda_driver() -> bool:
    """Whether a graphics card that torch calls cuda may be here, without loading torch (which takes seconds)."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return Path("/opt/rocm").exists()  # AMD devices are called cuda by torch as well
    return True


@lru_cache(maxsize=1)
def accelerators() -> tuple[str, ...]:
    """Return the accelerators torch can use here, best first, such as ``("cuda:0", "cuda:1")``.

    Torch is imported only where a driver says that there may be one: without, a prediction with OpenVINO starts
    seconds sooner.
    """
    if sys.platform == "darwin" and platform.machine() == "arm64":
        import torch

        return ("mps",) if torch.backends.mps.is_available() else ()
    if not cuda_driver():
        return ()
    import torch

    return tuple(f"cuda:{k}" for k in range(torch.cuda.device_count())) if torch.cuda.is_available() else ()


@lru_cache(maxsize=1)
def cpu_has_bf16() -> bool:
    """Whether this processor multiplies bf16 natively; emulated, it would be slower than f32."""
    if has_openvino():
        import openvino

        return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def processor_name() -> str:
    """Return the model of this processor where the system tells it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.machine())


def choose(config: PredictConfig) -> Choice:
    """Decide on what a prediction runs.

    Raises
    ------
    DrososegError
        If a device, engine or precision is unknown or not available here; the message names those that are.
    """
    device = _choose_device(config)
    engine = _choose_engine(config, device)
    return Choice(device, engine, _choose_precision(config, device, engine))


def _choose_device(config: PredictConfig) -> str:
    if config.device == "cpu":
        return "cpu"
    if config.device == "auto":
        if config.engine == "openvino" or config.precision == "int8":
            return "cpu"
        return next(iter(accelerators()), "cpu")
    there = accelerators()
    device = "cuda:0" if config.device == "cuda" else config.device
    if device not in there:
        raise DrososegError(
            f"The device '{config.device}' is not available; choose one of: {', '.join(('auto', 'cpu', *there))}."
        )
    return device


def _choose_engine(config: PredictConfig, device: str) -> Literal["openvino", "torch"]:
    if config.engine not in ENGINES:
        raise DrososegError(f"Unknown engine '{config.engine}'; choose one of: {', '.join(ENGINES)}.")
    if config.engine == "openvino" and device != "cpu":
        raise DrososegError(
            f"OpenVINO runs on the processor, not on '{device}'; use the device 'cpu' or the engine 'torch'."
        )
    if config.engine == "openvino" and not has_openvino():
        raise DrososegError("OpenVINO is not installed; run 'pip install openvino' or use the engine 'torch'.")
    if config.engine == "torch" or device != "cpu" or not has_openvino():
        return "torch"
    return "openvino"


def _choose_precision(
    config: PredictConfig, device: str, engine: Literal["openvino", "torch"]
) -> Literal["f32", "bf16", "f16", "int8"]:
    if config.precision not in PRECISIONS:
        raise DrososegError(f"Unknown precision '{config.precision}'; choose one of: {', '.join(PRECISIONS)}.")
    available: tuple[Literal["f32", "bf16", "f16", "int8"], ...]
    if device == "cpu":
        available = ("bf16", "f32") if cpu_has_bf16() else ("f32",)
        if engine == "openvino":
            available = (*available, "int8")
    elif device == "mps":
        available = ("f16", "f32")
    else:
        available = ("f16", "bf16", "f32")
    if config.precision == "auto":
        return available[0]
    for precision in available:
        if precision == config.precision:
            return precision
    reason = "needs OpenVINO on the processor" if config.precision == "int8" else f"does not run on '{device}' here"
    raise DrososegError(
        f"The precision '{config.precision}' {reason}; choose one of: {', '.join(('auto', *available))}."
    )
