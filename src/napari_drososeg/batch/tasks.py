"""What a task is: a piece of work that any process can do, again if need be, and that ends with a receipt."""

from __future__ import annotations

import os
import platform
import sys
import threading
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from napari_drososeg import __version__
from napari_drososeg.batch.fingerprints import fingerprint
from napari_drososeg.errors import DrososegError

if TYPE_CHECKING:
    from napari_drososeg.data.normalisation import Statistics
    from napari_drososeg.inference import PredictConfig, Predictor
    from napari_drososeg.io import Stack


@dataclass(frozen=True)
class Progress:
    """Tiles, sections or files done so far, of how many."""

    done: int
    total: int


@dataclass(frozen=True)
class Receipt:
    """What comes back from a finished task, JSON-ready.

    Parameters
    ----------
    facts : dict
        What there is to say; see the task.
    seconds : float
        Reading and writing included, loading the network not.
    where : str
        ``"host:process"`` that did it.
    notices : tuple of str
        What a user should know.
    peak_bytes : int or None
        Largest size of that process so far.
    """

    facts: dict[str, Any]
    seconds: float
    where: str = field(default_factory=lambda: f"{platform.node()}:{os.getpid()}")
    notices: tuple[str, ...] = ()
    peak_bytes: int | None = field(default_factory=lambda: peak_bytes())


class Task(Protocol):
    """Something to be done. Can be pickled; doing it twice gives the same bytes."""

    @property
    def title(self) -> str:
        """What it is, for people."""

    def steps(self) -> Generator[Progress, None, Receipt]:
        """Do it: yields how far it is, returns the receipt. Closing it leaves nothing half-done that shows."""


@dataclass(frozen=True)
class Setup:
    """The network and how it runs: the same for all tasks of a run.

    Parameters
    ----------
    network : Path
        The checkpoint.
    sha256 : str
        Of the checkpoint; a worker that sees another file refuses.
    config : PredictConfig
        With device, engine, precision and halo decided.
    fixed : bool
        See `napari_drososeg.inference.Predictor`.
    calibration : tuple of Path and str, optional
        Input, and its fingerprint, on which int8 is calibrated for all inputs.
    version : str
        Of this program; a worker with another one refuses.
    """

    network: Path
    sha256: str
    config: PredictConfig
    fixed: bool
    calibration: tuple[Path, str] | None = None
    version: str = __version__


class Loaded:
    """A predictor, and what it had to say since it was last asked: it appends that to `notices`."""

    def __init__(self, predictor: Predictor, notices: list[str]) -> None:
        self.predictor, self._notices = predictor, notices

    def notices(self) -> tuple[str, ...]:
        """Return what was kept, and forget it."""
        found, self._notices[:] = tuple(self._notices), []
        return found


_loading = threading.Lock()
_loaded: dict[Setup, Loaded] = {}


def load(setup: Setup) -> Loaded:
    """Return the predictor of a run, loaded once in each process.

    Raises
    ------
    DrososegError
        If this process has another version of the program or sees another checkpoint, or the device, engine or
        precision is not available here.
    """
    from napari_drososeg.checkpoint import sha256
    from napari_drososeg.inference import Predictor

    with _loading:  # threads of a dask worker share one
        if setup not in _loaded:
            if setup.version != __version__:
                raise DrososegError(
                    f"This worker ({platform.node()}) has napari-drososeg {__version__}, the run was started with "
                    f"{setup.version}; install the same version."
                )
            if sha256(setup.network) != setup.sha256:
                raise DrososegError(
                    f"The network '{setup.network}' is a different one on the worker {platform.node()}."
                )
            _loaded.clear()
            notices: list[str] = []
            predictor = Predictor(setup.network, setup.config, notify=notices.append, fixed=setup.fixed)
            loaded = Loaded(predictor, notices)
            if setup.calibration is not None:
                source, seen = setup.calibration
                if fingerprint(source) != seen:
                    raise DrososegError(f"'{source}', on which int8 is calibrated, was changed; start the run again.")
                loaded.predictor.calibrate(loaded.predictor.calibration_patches(open_input(source, seen)))
            _loaded[setup] = loaded
        return _loaded[setup]


def keep(setup: Setup, predictor: Predictor) -> None:
    """Use a predictor that is loaded already, and whose notices go elsewhere, for the tasks done in this process."""
    with _loading:
        _loaded.clear()
        _loaded[setup] = Loaded(predictor, [])


def forget() -> None:
    """Let go of the predictor, and of its memory."""
    with _loading:
        _loaded.clear()


@lru_cache(maxsize=2)  # each may keep decoded sections
def _opened(source: Path, _fingerprint: str) -> Stack:
    from napari_drososeg.io import read_stack

    return read_stack(source)


def open_input(source: Path, fingerprint: str) -> Stack:
    """Open an input, once in each process for every state of it: a folder may have thousands of headers."""
    return _opened(source.absolute(), fingerprint)


def peak_bytes() -> int | None:
    """Return the largest resident size of this process so far; None where the system does not say."""
    if sys.platform == "win32":
        return None
    import resource

    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else size * 1024


def count_labels(labels: NDArray[np.uint8], n_classes: int) -> list[int]:
    """Return the pixels of each label value, 0 to `n_classes`."""
    return [int(n) for n in np.bincount(labels.ravel(), minlength=n_classes + 1)]


def statistics_from(pairs: Mapping[int, tuple[float, float]]) -> dict[int, Statistics]:
    """Return statistics of sections from the (mean, std) that a survey found."""
    from napari_drososeg.data.normalisation import Statistics

    return {z: Statistics(*pair) for z, pair in pairs.items()}
