"""Work from Run to Run again: a worker thread gives pieces, which are used here, on the GUI thread only."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_info
from napari.utils.progress import cancelable_progress
from qtpy.QtCore import QObject, QTimer, Signal
from qtpy.QtWidgets import QApplication, QLabel, QStatusBar

from napari_drososeg._widgets.work.failures import say_failure
from napari_drososeg._widgets.work.job import duration
from napari_drososeg._widgets.work.leaving import when_destroyed
from napari_drososeg._widgets.work.worker import ClosingWorker, Control, State, launch

if TYPE_CHECKING:
    import napari

TICK_MS = 15
WRITE_BUDGET = 0.012
"""Seconds of one tick that may go into using pieces; the event loop stays free in between."""
REFRESH_SECONDS = 0.2
LONG_SECONDS = 10.0
LONG_STROKE = 3.0
"""Seconds; napari's brush that encircles and fills, with the right button, goes on with no button held."""
HELD_UP = "Waiting for your brush stroke to end: press Esc in the viewer to drop it."
SPINNER_PERCENT = 6
"""Of the spinner's own speed: two pictures a second."""


class ActivityBar:
    """The bar of some work in napari's activity dock; it has a button that cancels."""

    _bar: cancelable_progress | None = None

    def begin(self, what: str) -> None:
        """Show the bar, with the work in words."""
        self._bar = cancelable_progress(total=100, desc=what)
        calm_spinners()

    def show(self, fraction: float | None) -> None:
        """Show how much is done; None leaves it as it is."""
        if self._bar is not None and fraction is not None:
            self._bar.update(int(100 * fraction) - self._bar.n)

    @property
    def cancelled(self) -> bool:
        """Whether its button was pressed."""
        return self._bar is not None and self._bar.is_canceled

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def calm_spinners() -> None:
    """Let the spinner in napari's status bar turn slowly.

    For each of its pictures, thirty a second, the whole window is put together anew. Where that is done in software
    (remote desktops, virtual machines) it took a third of a core from the work that the spinner stands for.
    """
    for window in QApplication.topLevelWidgets():
        for bar in window.findChildren(QStatusBar):
            for label in bar.findChildren(QLabel):
                if (movie := label.movie()) is not None:
                    movie.setSpeed(SPINNER_PERCENT)


class Work(QObject):
    """Does one piece of work at a time: state, progress, activity dock, cancelling, and an end on every way out.

    What the pieces are used for is said by `_take`, `_refresh`, `_conclude` and `_summary`.

    Attributes
    ----------
    state : State
        Where it is.
    message : str
        The same in words.

    Signals
    -------
    changed
        State, progress, results or message are different.
    """

    changed = Signal()

    def __init__(self, viewer: napari.Viewer, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.viewer = viewer
        self.state = State.IDLE
        self.message = ""
        self._timer = QTimer(self)
        self._timer.setInterval(TICK_MS)
        self._timer.timeout.connect(self._tick)
        self._worker: ClosingWorker | None = None
        self._control = Control()
        started = self._controls = []  # outlives the Qt object: napari may delete it without a word
        when_destroyed(self, lambda: [control.stop.set() for control in started])
        self._bar = ActivityBar()
        self._clear()

    def _clear(self) -> None:
        """Forget the work before."""
        self._pending: deque[Any] = deque()
        self._finished = False
        self._error: Exception | None = None
        self._lost = False
        self._pixels = self._pixels_done = 0
        self._started = self._first = time.monotonic()
        self._refresh_due = 0.0
        self._wait_since: float | None = None

    @property
    def held_up(self) -> bool:
        """Whether it has waited for the end of a stroke for longer than strokes take."""
        return self._wait_since is not None and time.monotonic() - self._wait_since > LONG_STROKE

    @property
    def busy(self) -> bool:
        """Whether work is going on."""
        return self.state is not State.IDLE

    @property
    def fraction(self) -> float | None:
        """Part of the pixels that is done, None before their number is known."""
        return self._pixels_done / self._pixels if self._pixels else None

    @property
    def seconds_left(self) -> float | None:
        """Time left at the speed of this work so far, None before the first piece."""
        if not self._pixels_done:
            return None
        return (time.monotonic() - self._first) * (self._pixels - self._pixels_done) / self._pixels_done

    # ---------------------------------------------------------------- start and stop

    def _begin(self, what: str, name: str, function: Callable[..., Iterator[Any]], *arguments: Any) -> None:
        """Start the worker.

        Parameters
        ----------
        what, name : str
            The work and the layer it is for, for the activity dock and the notification at the end.
        function, *arguments
            The generator of the pieces, as `launch` takes it.
        """
        self._name = name
        self._bar.begin(f"{what} {name}")
        self._control = Control()
        self._controls[:] = [self._control]
        handlers = {"yielded": self._on_yielded, "finished": self._on_finished}
        self._worker = launch(function, *arguments, control=self._control, connect=handlers)
        self._timer.start()

    def cancel(self) -> None:
        """Stop at the next step; what is done stays."""
        if self.state in (State.LOADING, State.RUNNING):
            self._set_state(State.CANCELLING, "Cancelling …")
            self._control.stop.set()

    def close(self) -> None:
        """Stop for good: the widget or the viewer goes away."""
        self._timer.stop()
        if self._worker is not None:
            worker, self._worker = self._worker, None
            for signal in (worker.yielded, worker.finished):
                with contextlib.suppress(TypeError, RuntimeError):
                    signal.disconnect()
            worker.quit()
        self._bar.close()
        self._pending.clear()
        self.state = State.IDLE

    # ---------------------------------------------------------------- from the worker (GUI thread)

    def _on_yielded(self, piece: Any) -> None:
        if not self._lost:
            self._pending.append(piece)

    def _on_finished(self) -> None:
        self._finished = True
        self._error = self._error or self._control.error

    def _fail(self, error: Exception) -> None:
        """Use no more pieces and stop the worker; the work ends when that has."""
        self._error = self._error or error
        self._lose()

    def _lose(self) -> None:
        """Use no more pieces: there is nothing left that they are for."""
        self._pending.clear()
        self._lost = True
        self.cancel()

    # ---------------------------------------------------------------- the tick

    def _tick(self) -> None:
        try:
            until, ready = time.monotonic() + WRITE_BUDGET, True
            while self._pending and (ready := self._ready()):
                self._take(self._pending.popleft())
                self._control.written()
                if time.monotonic() > until:
                    break
            if self.state is State.CANCELLING and not ready:  # a stroke may never end
                self._pending.clear()
            self._wait_since = None if ready else self._wait_since or time.monotonic()
            self._refresh_if_due()
        except Exception as error:  # a full disk, a layer in an unforeseen state: end the work and say so once
            self._fail(error)
        if self._bar.cancelled:
            self.cancel()
        if self._finished and not self._pending:
            self._end()

    def _ready(self) -> bool:
        """Whether a piece may be used now."""
        return True

    def _take(self, piece: Any) -> None:
        """Use a piece; the worker is told afterwards that there is room for another."""

    def _refresh(self) -> None:
        """Show what has been done."""

    def _refresh_if_due(self) -> None:
        now = time.monotonic()
        if now < self._refresh_due:
            return
        self._refresh()
        self._bar.show(self.fraction)
        # a section of 16k pixels takes napari long to show: never spend more than a fifth of the time on it
        took = time.monotonic() - now
        self._refresh_due = now + took + max(REFRESH_SECONDS, 4 * took)
        self.changed.emit()

    # ---------------------------------------------------------------- the end

    def _end(self) -> None:
        self._timer.stop()
        cancelled = self.state is State.CANCELLING
        seconds = time.monotonic() - self._started
        self._worker = None
        self._bar.close()
        try:
            self._conclude(seconds)
        except Exception as error:  # arrays on a disk that has gone
            self._error = self._error or error
        message = self._summary(cancelled, seconds)
        if self._error is not None:
            message = f"Failed: {(str(self._error).strip() or type(self._error).__name__).splitlines()[0]}"
        self._set_state(State.IDLE, message)
        if self._error is not None:
            say_failure(self._error)
        elif seconds > LONG_SECONDS and not cancelled:
            show_info(f"{self._name}: {message}")

    def _conclude(self, _seconds: float) -> None:
        """Finish the result."""

    def _summary(self, cancelled: bool, seconds: float) -> str:
        """Say how it ended, where it did not fail."""
        return "Cancelled." if cancelled else f"Done in {duration(seconds)}."

    def _set_state(self, state: State, message: str) -> None:
        self.state, self.message = state, message
        self.changed.emit()
