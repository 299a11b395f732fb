"""What this machine can do with a network: asked in worker threads, since it may load torch or OpenVINO."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from napari.qt.threading import create_worker
from qtpy.QtCore import QObject, Signal

from napari_drososeg.errors import DrososegError
from napari_drososeg.inference import PredictConfig, accelerators, choose, estimate_seconds

Key = tuple[Path, str, str, str]


@dataclass(frozen=True)
class Probe:
    """What is known of a network on this machine: its speed, why it cannot run, on what it runs, what else there is."""

    seconds_per_pixel: float | None = None
    problem: str | None = None
    description: str = ""
    devices: tuple[str, ...] = ()


class Prober(QObject):
    """Asks about networks, each with a device, an engine and a precision, and keeps the answers.

    Signals
    -------
    answered : Probe
        Something is known that was not.
    """

    answered = Signal(object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._known: dict[Key, Probe] = {}

    def known(self, network: Path | None, config: PredictConfig) -> Probe:
        """Return what is known by now, with the speed in all orientations; an empty answer where that is nothing."""
        found = Probe() if network is None else self._known.get(_key(network, config), Probe())
        rate = found.seconds_per_pixel
        return found if rate is None else replace(found, seconds_per_pixel=rate * config.orientations)

    def ask(self, network: Path | None, config: PredictConfig, *, again: bool = False) -> None:
        """Find out in a worker thread what is not known yet; `again` asks even so."""
        if network is None:
            return
        key = _key(network, config)
        if key not in self._known or again:
            self._known.setdefault(key, Probe())
            worker = create_worker(probe, key, config, _start_thread=False)
            worker.returned.connect(self._take)  # a method, which Qt disconnects when the widget goes
            worker.start()

    def _take(self, answer: tuple[Key, Probe]) -> None:
        key, found = answer
        self._known[key] = found
        self.answered.emit(found)


def _key(network: Path, config: PredictConfig) -> Key:
    return (network, config.device, config.engine, config.precision)


def probe(key: Key, config: PredictConfig) -> tuple[Key, Probe]:
    """Find out about a network on this machine; takes seconds. Returns the key with the answer, for one orientation."""
    devices, config = accelerators(), replace(config, orientations=1)
    try:
        return key, Probe(estimate_seconds(key[0], 1, config), None, choose(config).description, devices)
    except DrososegError as error:
        return key, Probe(problem=str(error), devices=devices)
