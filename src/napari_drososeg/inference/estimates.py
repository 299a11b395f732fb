"""How long it will take: speeds measured on this machine, remembered for each network and device."""

from __future__ import annotations

import json
import os
import platform
from contextlib import suppress
from pathlib import Path

import psutil

from napari_drososeg.checkpoint import sha256
from napari_drososeg.inference.cache import cache_folder
from napari_drososeg.inference.config import Choice, PredictConfig, choose

NEWEST = 0.5
"""Weight of the newest measurement against what was remembered."""
ENOUGH = 128 * 128
"""Pixels from which a measurement changes what is remembered: below, most of its time is the start."""


def _file() -> Path:
    return cache_folder() / "speeds.json"


def speed_key(checkpoint: Path, choice: Choice) -> str:
    """Return what a speed belongs to: machine, weights, device, engine, precision."""
    return f"{platform.node()} {sha256(checkpoint)[:24]} {choice.device} {choice.engine} {choice.precision}"


def recall(key: str) -> float | None:
    """Return the remembered seconds per px that the network sees once; None if there is nothing."""
    try:
        value = json.loads(_file().read_text(encoding="utf-8"))[key]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return float(value) if isinstance(value, int | float) and value > 0 else None


def remember(key: str, seconds_per_pixel: float, pixels: int = ENOUGH) -> None:
    """Remember a measurement over some pixels. A cache that cannot be written is not an error."""
    path, old = _file(), recall(key)
    for left in path.parent.glob(f".{path.name}.*.partial"):  # by a program that was killed just then
        pid = left.name.split(".")[-2]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            with suppress(OSError):
                left.unlink()
    if old is not None and pixels < ENOUGH:
        return
    value = seconds_per_pixel if old is None else NEWEST * seconds_per_pixel + (1 - NEWEST) * old
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with suppress(OSError):
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            known = {}
        if not isinstance(known, dict):
            known = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps({**known, key: value}, indent=0), encoding="utf-8")
        temporary.replace(path)


def estimate_seconds(network: str | Path, pixels: int, config: PredictConfig | None = None) -> float | None:
    """Estimate how long a prediction takes, without loading the network.

    Parameters
    ----------
    network : str or Path
        Name of a network, or its checkpoint.
    pixels : int
        Pixels to predict, on the network's grid.
    config : PredictConfig, optional
        Says on what it will run, and in how many orientations.

    Returns
    -------
    float or None
        Seconds; None if this network has not run here yet.
    """
    from napari_drososeg.zoo import find_network

    config = config or PredictConfig()
    rate = recall(speed_key(find_network(network), choose(config)))
    return None if rate is None else rate * pixels * config.orientations
