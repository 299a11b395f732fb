"""What runs in worker threads: how they start, stop and fail, and segmenting: load, plan, predict tile by tile."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from napari.qt.threading import GeneratorWorker, create_worker

from napari_drososeg._widgets.work.job import Job
from napari_drososeg._widgets.work.ordering import (
    DoneMap,
    View,
    area,
    has_moved,
    rect_of,
    unfinished,
    unfinished_in,
    visit_order,
)
from napari_drososeg._widgets.work.store import pieces
from napari_drososeg.inference import Interrupted

if TYPE_CHECKING:
    from napari_drososeg.inference import Predictor, Result
    from napari_drososeg.io import Stack

PENDING = 12
"""Pieces that may wait for the GUI thread before the prediction waits for it."""


@dataclass(frozen=True)
class Planned:
    """The network is loaded and the tiles are known."""

    predictor: Predictor
    pixels: int


@dataclass(frozen=True)
class Piece:
    """Part of one tile, small enough to be written by the GUI thread in a few milliseconds."""

    result: Result
    slices: tuple[slice, slice]
    last: bool

    def part(self, values: Any) -> Any:
        """Cut the piece out of the tile's (..., h, w) values."""
        (ys, xs), (ty, tx) = self.slices, self.result.slices
        return values[..., ys.start - ty.start : ys.stop - ty.start, xs.start - tx.start : xs.stop - tx.start]


class State(Enum):
    """Where a run is. The widget's button says the same."""

    IDLE = "idle"
    LOADING = "loading"
    RUNNING = "running"
    CANCELLING = "cancelling"


class Control:
    """What both threads know of a run: whether it should stop, and how much waits to be written."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.error: Exception | None = None
        self._room = threading.Semaphore(PENDING)

    def wait_for_room(self) -> bool:
        """Block until the GUI thread has caught up; False when the run should stop."""
        while not self.stop.is_set():
            if self._room.acquire(timeout=0.1):
                return True
        return False

    def written(self) -> None:
        """Tell that one piece has been written."""
        self._room.release()


class ClosingWorker(GeneratorWorker):
    """A generator worker that closes its generator in its own thread.

    `quit` leaves a plain worker's generator suspended: its clean-up would run in the GUI thread when the object
    is collected, and wait there for the read-ahead thread.
    """

    control: Control

    def quit(self) -> None:
        """Stop at the next step."""
        self.control.stop.set()
        super().quit()

    def work(self) -> Any:
        """Run the generator to its end or until `quit`."""
        try:
            return super().work()
        finally:
            self._gen.close()

    def _relay_warning(self, warning: tuple[Any, ...]) -> None:
        """Log what libraries warn about while they work; what the user should know comes as a notice."""
        logging.getLogger("napari_drososeg").info("%s: %s", warning[1].__name__, warning[0])


def launch(
    function: Callable[..., Iterator[Any]], *arguments: Any, control: Control, connect: dict[str, Callable[..., None]]
) -> ClosingWorker:
    """Run ``function(*arguments, control)``, a generator, in a worker thread.

    Parameters
    ----------
    function : callable
        The generator function.
    *arguments
        Its arguments but the last.
    control : Control
        Its last argument.
    connect : dict
        Handlers of the worker's signals.
    """
    worker = create_worker(
        function, *arguments, control, _worker_class=ClosingWorker, _start_thread=False, _connect=connect
    )
    worker.control = control
    worker.start()
    return worker


@contextlib.contextmanager
def handing_over(control: Control) -> Iterator[None]:
    """Leave an error with `control` and end in peace.

    superqt takes a RuntimeError that leaves a generator for a deleted worker and then never says that it has finished;
    torch raises RuntimeErrors.
    """
    try:
        yield
    except Interrupted:
        return
    except Exception as error:
        control.error = error


def segment(
    load: Callable[[Callable[[str], None]], Predictor],
    stack: Stack,
    job: Job,
    done: DoneMap,
    view: Callable[[], View],
    notify: Callable[[str], None],
    control: Control,
) -> Iterator[Planned | Piece]:
    """Predict, in a worker thread: `Planned` once, and then pieces, what is looked at first.

    Parameters
    ----------
    load : callable
        Gives the loaded network; called with `notify`.
    stack : Stack
        What to segment.
    job : Job
        How, and which part of it.
    done : DoneMap
        Finished tiles, which are left out. Read before the first tile only.
    view : callable
        What is on screen now; called in the thread, so it must only read a value that the GUI thread keeps.
    notify : callable
        Takes notices of the engine, called in the thread.
    control : Control
        Stops the run; has its error at the end.
    """
    be_polite()
    with handing_over(control):
        predictor = load(notify)
        if control.stop.is_set():
            return
        tasks = predictor.plan(stack, sections=job.sections, roi=job.roi)
        whole_sections = predictor.spec.global_context
        tasks = unfinished(tasks, done, whole_sections=whole_sections)
        yield Planned(predictor, sum(area(rect_of(t.tile.write)) for t in tasks))
        mine = DoneMap()
        while tasks and not control.stop.is_set():
            seen = view()
            results = predictor.run(stack, visit_order(tasks, seen), outputs=job.outputs)
            try:
                for result in results:
                    parts = pieces(result.slices)
                    for i, part in enumerate(parts):
                        if not control.wait_for_room():
                            return
                        yield Piece(result, part, last=i == len(parts) - 1)
                    if control.stop.is_set():
                        return
                    mine.add(result.z, rect_of(result.slices))
                    # the user has gone elsewhere: what is left is sorted anew around what they see there
                    if has_moved(seen, view()) and (not whole_sections or unfinished_in(tasks, mine, result.z) == 0):
                        break
            finally:
                results.close()
            tasks = unfinished(tasks, mine, whole_sections=whole_sections)


def be_polite() -> None:
    """Let the GUI thread go first where threads have priorities of their own (Linux).

    Threads inherit this from the one that starts them, so the engine's own threads follow. Elsewhere nothing is done.
    """
    if sys.platform == "linux":
        try:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 5)
        except OSError:
            return
