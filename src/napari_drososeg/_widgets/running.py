"""One run from Run to Run again: the worker's results go into the layers here, on the GUI thread only."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_info
from napari.utils.progress import cancelable_progress
from qtpy.QtCore import QObject, QTimer, Signal

from napari_drososeg._widgets.files import say_failure
from napari_drososeg._widgets.job import Job, duration
from napari_drososeg._widgets.layers import (
    Target,
    Targets,
    forget_history,
    history_touches,
    shape_of,
    stroke_in_progress,
    view_of,
)
from napari_drososeg._widgets.ordering import DoneMap, View, area, rect_of
from napari_drososeg._widgets.record import run_record
from napari_drososeg._widgets.worker import Piece, Planned, SegmentWorker, start
from napari_drososeg.zoo import find_network

if TYPE_CHECKING:
    import napari
    from napari.layers import Image

    from napari_drososeg.inference import Predictor
    from napari_drososeg.io import Stack
    from napari_drososeg.zoo import NetworkCard

TICK_MS = 15
WRITE_BUDGET = 0.012
"""Seconds of one tick that may go into writing pieces; the event loop stays free in between."""
REFRESH_SECONDS = 0.2
LONG_RUN_SECONDS = 10.0


class State(Enum):
    """Where a run is. The widget's button says the same."""

    IDLE = "idle"
    LOADING = "loading"
    RUNNING = "running"
    CANCELLING = "cancelling"


TEMPORARY = (
    "The labels are too large for memory. They lie in a temporary file that goes when napari closes: Save keeps them."
)


def foreign_labels(target: Target) -> str:
    """Say what happens to pixels with a label that is no class."""
    n = len(target.classes)
    return f"have a label above {n}, which is no class: they go back to the network's when it is segmented again."


class Runner(QObject):
    """Runs one job at a time and writes its results into the layers of a viewer.

    Signals
    -------
    changed
        State, progress, counts or message are different.
    noticed : str
        The engine has something to say.
    """

    changed = Signal()
    noticed = Signal(str)

    def __init__(self, viewer: napari.Viewer, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.viewer = viewer
        self.targets = Targets(viewer)
        self.state = State.IDLE
        self.message = ""
        self.target: Target | None
        self.notices: list[str] = []
        self.hints: list[str] = []  # said, but no part of the record
        self._predictor: tuple[tuple[Any, ...], Predictor] | None = None
        self._timer = QTimer(self)
        self._timer.setInterval(TICK_MS)
        self._timer.timeout.connect(self._tick)
        self._worker: SegmentWorker | None = None
        self._bar: cancelable_progress | None = None
        self._clear()
        self.noticed.connect(self._on_notice)

    def _clear(self) -> None:
        self.target = None
        self._pending: deque[Piece] = deque()
        self._finished = False
        self._error: Exception | None = None
        self._lost = False
        self._pixels = self._pixels_done = self._kept = 0
        self._started = self._first = time.monotonic()
        self._refresh_due = 0.0
        self._stale: set[int] = set()
        self._bar_shown = 0

    # ---------------------------------------------------------------- what the widget shows

    @property
    def busy(self) -> bool:
        """Whether a run is going on."""
        return self.state is not State.IDLE

    @property
    def fraction(self) -> float | None:
        """Part of the pixels that is written, None before the tiles are known."""
        return self._pixels_done / self._pixels if self._pixels else None

    @property
    def seconds_left(self) -> float | None:
        """Time left at the speed of this run so far, None before the first tile."""
        if not self._pixels_done:
            return None
        return (time.monotonic() - self._first) * (self._pixels - self._pixels_done) / self._pixels_done

    # ---------------------------------------------------------------- start and stop

    def start(self, job: Job, card: NetworkCard, image: Image, stack: Stack) -> None:
        """Start a job; the run before must have ended."""
        if self.busy:
            raise RuntimeError("A run is going on.")
        self._clear()
        self.notices, self.hints = list(stack.notices), []
        self._job, self._card, self._image = job, card, image
        self.view = view_of(self.viewer, image)
        found = self.targets.find(image, card.name)
        if found is not None:
            found.use_job(job, image.data)
            if job.missing(found.done, shape_of(image)) == 0:  # pressed again: once more from the start
                rect = job.rect_in(shape_of(image))
                for z in job.sections:
                    found.done.remove(z, rect)
        self._done = found.done if found is not None else DoneMap()
        self._set_state(State.LOADING, f"Loading {card.spec.title} …")
        self._bar = cancelable_progress(total=100, desc=f"Segmenting {image.name}")
        self._worker = start(
            self._loader(job),
            stack,
            job,
            self._done,
            lambda: self.view,
            self.noticed.emit,
            {"yielded": self._on_yielded, "finished": self._on_finished},
        )
        self._timer.start()

    def _loader(self, job: Job) -> Callable[[Callable[[str], None]], Predictor]:
        def load(notify: Callable[[str], None]) -> Predictor:
            key = (job.sha256, job.network, job.config)
            if self._predictor is None or self._predictor[0] != key:
                from napari_drososeg.inference import Predictor, choose

                if choose(job.config).engine == "openvino":
                    from napari_drososeg.inference.openvino_engine import convert_elsewhere

                    convert_elsewhere(find_network(job.network))
                self._predictor = None  # two networks need not fit into memory together
                self._predictor = (key, Predictor(job.network, job.config, notify=notify))
            return self._predictor[1]

        return load

    def cancel(self) -> None:
        """Stop after the tile that is being predicted; what is done stays."""
        if self.state in (State.LOADING, State.RUNNING):
            self._set_state(State.CANCELLING, "Cancelling …")
            if self._worker is not None:
                self._worker.control.stop.set()

    def close(self) -> None:
        """Stop for good: the widget or the viewer goes away."""
        self._timer.stop()
        if self._worker is not None:
            worker, self._worker = self._worker, None
            for signal in (worker.yielded, worker.finished):
                with contextlib.suppress(TypeError, RuntimeError):
                    signal.disconnect()
            worker.quit()
        self._close_bar()
        self._pending.clear()
        if self.state is not State.IDLE and self.target is not None:
            self._record()
        self.state = State.IDLE

    # ---------------------------------------------------------------- from the worker (GUI thread)

    def _on_yielded(self, what: Planned | Piece) -> None:
        if isinstance(what, Piece):
            if self._lost:
                return
            self._pending.append(what)
            if self.target is None:  # not before there is something to show: a run that fails leaves no empty layer
                try:
                    self._make_target()
                except Exception as error:  # the scratch folder cannot be written, the disk is full
                    self._fail(error)
            return
        self._running = what.predictor
        self._spec = what.predictor.spec
        self._pixels = what.pixels
        self._first = time.monotonic()
        if self.state is State.LOADING:
            self._set_state(State.RUNNING, what.predictor.description)

    def _make_target(self) -> None:
        found = self.targets.find(self._image, self._spec.name)
        self.target = self.targets.get(self._image, self._spec)
        if found is None and self.target.store.folder is not None:
            self.hints.append(TEMPORARY)
        self.target.use_job(self._job, self._image.data)
        self.target.done = self._done
        self.target.layer.metadata["drososeg"] = self._record_now(finished=False)

    def _on_finished(self) -> None:
        self._finished = True
        if self._worker is not None and self._error is None:
            self._error = self._worker.control.error

    def _on_notice(self, text: str) -> None:
        self.notices.append(text)
        self.changed.emit()

    def _fail(self, error: Exception) -> None:
        """Write no more and stop the worker; the run ends when that has."""
        self._error = self._error or error
        self._pending.clear()
        self._lost = True
        self.cancel()

    # ---------------------------------------------------------------- the tick

    def _tick(self) -> None:
        try:
            self._write_pending()
            self._refresh_if_due()
        except Exception as error:  # a full disk, a layer in an unforeseen state: end the run and say so once
            self._fail(error)
        if self._bar is not None and self._bar.is_canceled:
            self.cancel()
        if self._lost and self.state is not State.CANCELLING:
            self.cancel()
        if self._finished and not self._pending:
            self._end()

    def _write_pending(self) -> None:
        if self._image in self.viewer.layers:
            self.view: View = view_of(self.viewer, self._image)
        until = time.monotonic() + WRITE_BUDGET
        target = self.target
        while self._pending and target is not None:
            if self._lost or not target.in_viewer(self.viewer):
                self._lost = True
                self._pending.clear()
                return
            if stroke_in_progress(target.layer):
                return
            self._write(target, self._pending.popleft())
            if time.monotonic() > until:
                return

    def _write(self, target: Target, piece: Piece) -> None:
        result = piece.result
        if history_touches(target.layer, result.z, piece.slices):
            forget_history(target.layer)
        refused = target.store.refused
        self._kept += target.store.write(result.z, piece.slices, piece.part(result.labels))
        if target.store.refused > refused:
            n = len(target.classes)
            hint = f"Pixels painted with a label above {n}, which is no class, were given back to the network."
            self.hints += [hint] if hint not in self.hints else []
        at = target.store.index(result.z, *piece.slices)
        if result.entropy is not None:
            data = self.targets.extra(target, "uncertainty", "uncertainty", None, visible=True)
            data[at] = piece.part(result.entropy)
        if result.probabilities is not None:
            for c, values in zip(target.classes, piece.part(result.probabilities), strict=True):
                name = f"p({c.name})"
                data = self.targets.extra(target, f"probability-{c.value}", name, c.color, visible=False)
                data[at] = values
        self._pixels_done += area(rect_of(piece.slices))
        if piece.last:
            target.done.add(result.z, rect_of(result.slices))
        self._stale.add(result.z)
        if self._worker is not None:
            self._worker.control.written()

    def _refresh_if_due(self) -> None:
        now = time.monotonic()
        if now < self._refresh_due:
            return
        target = self.target
        if target is not None and self._stale and not stroke_in_progress(target.layer):
            if target.in_viewer(self.viewer) and (self.view.section in self._stale or self.viewer.dims.ndisplay == 3):
                for layer in (target.layer, *target.extra.values()):
                    if layer.visible and layer in self.viewer.layers:
                        layer.refresh(thumbnail=False, highlight=False, extent=False)
            self._stale.clear()
        if self._bar is not None and self.fraction is not None:
            percent = int(100 * self.fraction)
            self._bar.update(percent - self._bar_shown)
            self._bar_shown = percent
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
        self._close_bar()
        target = self.target
        if target is not None and self._pixels and target.in_viewer(self.viewer):
            target.seconds += seconds
            try:
                self._record()
                for layer in (target.layer, *target.extra.values()):
                    if layer in self.viewer.layers:
                        layer.refresh(highlight=False, extent=False)
            except Exception as error:  # arrays on a disk that has gone
                self._error = self._error or error
        message = self._summary(cancelled, seconds)
        self._set_state(State.IDLE, message)
        if self._error is not None:
            say_failure(self._error)
        elif seconds > LONG_RUN_SECONDS and not cancelled:
            show_info(f"{self._image.name}: {message}")

    def _summary(self, cancelled: bool, seconds: float) -> str:
        if self._error is not None:
            first = (str(self._error).strip() or type(self._error).__name__).splitlines()[0]
            return f"Failed: {first}"
        if self._lost:
            return "Stopped: the labels layer was removed or given other data."
        if cancelled:
            part = f"{100 * self.fraction:.0f} %" if self.fraction else "nothing"
            return f"Cancelled, {part} of it done. Segment does the rest."
        if not self._pixels:
            return "Everything here was done already."
        kept = f", {self._kept:,} painted pixels kept" if self._kept else ""
        return f"Done in {duration(seconds)} ({self._running.description}){kept}."

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _record(self) -> None:
        if self.target is not None:
            self.target.layer.metadata["drososeg"] = self._record_now(finished=True)

    def _record_now(self, *, finished: bool) -> dict[str, Any]:
        target = self.target
        assert target is not None
        return run_record(
            self._job,
            self._spec,
            image=self._image.name,
            sections=target.done.sections(target.store.shape[-2:]),  # type: ignore[arg-type]
            seconds=target.seconds,
            description=self._running.description,  # by now it may have fallen back to the CPU
            notices=self.notices,
            time=datetime.now().astimezone() if finished else None,
        )

    def _set_state(self, state: State, message: str) -> None:
        self.state, self.message = state, message
        self.changed.emit()
