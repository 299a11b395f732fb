"""One run from Run to Run again: the worker's results go into the layers here, on the GUI thread only."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, Signal

from napari_drososeg._widgets.layers.classes import KEY
from napari_drososeg._widgets.layers.history import stroke_in_progress
from napari_drososeg._widgets.layers.images import shape_of, view_of
from napari_drososeg._widgets.layers.targets import Target, Targets
from napari_drososeg._widgets.segment.record import run_record
from napari_drososeg._widgets.work.job import Job, duration
from napari_drososeg._widgets.work.ordering import DoneMap, View, area, rect_of
from napari_drososeg._widgets.work.work import Work
from napari_drososeg._widgets.work.worker import Piece, Planned, State, segment

if TYPE_CHECKING:
    import napari
    from napari.layers import Image

    from napari_drososeg.inference import Predictor
    from napari_drososeg.io import Stack
    from napari_drososeg.zoo import NetworkCard

TEMPORARY = (
    "The labels are too large for memory. They are kept in a temporary file that is deleted when napari closes: "
    "use Save to keep them."
)


def foreign_labels(target: Target) -> str:
    """Say what happens to pixels with a label that is not a class."""
    n = len(target.classes)
    return f"have a label above {n}, which is not a class: the prediction replaces them when you segment again."


SAMPLED = 48
"""Along each axis, so many pixels of an array in memory are looked at to see whether it was changed in place."""


def sample_of(data: Any) -> int | None:
    """Digest of a grid of pixels of an array in memory, in about a millisecond; None for data read from elsewhere."""
    if not isinstance(data, np.ndarray) or isinstance(data, np.memmap):
        return None
    grid = data[tuple(slice(None, None, -(-n // SAMPLED)) for n in data.shape)]
    return zlib.crc32(np.ascontiguousarray(grid).tobytes())


class Runner(Work):
    """Runs one job at a time and writes its results into the layers of a viewer.

    Signals
    -------
    noticed : str
        The engine has something to say.
    """

    noticed = Signal(str)

    def __init__(self, viewer: napari.Viewer, parent: QObject | None = None) -> None:
        super().__init__(viewer, parent)
        self.targets = Targets(viewer)
        self.target: Target | None
        self.notices: list[str] = []
        self.hints: list[str] = []  # said, but no part of the record
        self._image: Image | None = None
        self._data: Any = None
        self._predictor: tuple[tuple[Any, ...], Predictor] | None = None
        self._seen: tuple[Any, int | None, Stack] | None = None  # pixels of the last int8 run, and their stack
        self.noticed.connect(self._on_notice)

    def _clear(self) -> None:
        super()._clear()
        self.target = None
        self._lost_what = "the labels layer was removed, or given other data or another network"
        self._kept = 0
        self._stale: set[int] = set()

    # ---------------------------------------------------------------- start and stop

    def start(self, job: Job, card: NetworkCard, image: Image, stack: Stack) -> None:
        """Start a job; the run before must have ended."""
        if self.busy:
            raise RuntimeError("A run is in progress.")
        self._clear()
        if job.config.precision == "int8":
            stack = self._same_stack(image, stack)
        self.notices, self.hints = list(stack.notices), []
        self._job, self._card, self._image, self._data = job, card, image, image.data
        self.view = view_of(self.viewer, image)
        found = self.targets.find(image, card.name)
        if found is not None:
            self.targets.forget_removed(found)
            found.use_job(job, image.data)
            if job.missing(found.done, shape_of(image)) == 0:  # pressed again: once more from the start
                rect = job.rect_in(shape_of(image))
                for z in job.sections:
                    found.done.remove(z, rect)
        self._done = found.done if found is not None else DoneMap()
        self._set_state(State.LOADING, f"Loading {card.spec.title} …")
        arguments = (self._loader(job), stack, job, self._done, lambda: self.view, self.noticed.emit)
        self._begin("Segmenting", image.name, segment, *arguments)

    def _same_stack(self, image: Image, stack: Stack) -> Stack:
        """Return the stack of the run before where it shows the same pixels.

        A predictor calibrates int8 anew for each stack, reading sections all over it: too much for a press of Segment
        on what is on screen.
        """
        data, sample = image.data, sample_of(image.data)
        if self._seen is not None:
            before, sampled, kept = self._seen
            if before is data and sampled == sample and replace(stack, data=kept.data) == kept:
                return kept
        image.events.data.connect(self._forget_stack)  # once, however often it is said
        self._seen = data, sample, stack
        return stack

    def _forget_stack(self, _event: Any = None) -> None:
        """Calibrate anew: the layer was given data, which may be the same array with other pixels."""
        self._seen = None

    def _loader(self, job: Job) -> Callable[[Callable[[str], None]], Predictor]:
        def load(notify: Callable[[str], None]) -> Predictor:
            from napari_drososeg.inference import Predictor

            key, kept = (job.sha256, job.network, job.config), self._predictor
            if kept is not None and kept[0] == key:
                return kept[1]
            kept = self._predictor = None  # two networks need not fit into memory together
            predictor = Predictor(job.network, job.config, notify=notify, cancelled=lambda: self._control.stop.is_set())
            self._predictor = (key, predictor)
            return predictor

        return load

    def forget_message(self) -> None:
        """Say no more of the last run: something else is chosen now."""
        if not self.busy:
            self.message, self.notices, self.hints = "", [], []

    def let_go(self) -> None:
        """Keep nothing of the last run whose layers have left the viewer: it may be gigabytes."""
        if self.busy:
            return
        layers = self.viewer.layers
        if self.target is not None and self.target.layer not in layers:
            self.target = None
        if self._image is not None and self._image not in layers:
            self._image = self._data = self._seen = None
            self._done = DoneMap()

    def close(self) -> None:
        """Stop for good: the widget or the viewer goes away."""
        was_busy = self.busy
        super().close()
        if was_busy and self.target is not None:
            self._record()

    # ---------------------------------------------------------------- from the worker (GUI thread)

    def _on_yielded(self, what: Planned | Piece) -> None:
        if isinstance(what, Piece):
            super()._on_yielded(what)
            return
        self._running = what.predictor
        self._spec = what.predictor.spec
        self._pixels = what.pixels
        self._first = time.monotonic()
        if self.state is State.LOADING:
            self._set_state(State.RUNNING, what.predictor.description)

    def _make_target(self) -> Target:
        found = self.targets.find(self._image, self._spec.name)
        target = self.targets.get(self._image, self._spec)
        if found is None and target.store.folder is not None:
            self.hints.append(TEMPORARY)
        target.use_job(self._job, self._data)
        target.done = self._done
        target.layer.metadata[KEY] = self._record_now(target, finished=False)
        return target

    def _on_notice(self, text: str) -> None:
        self.notices.append(text)
        self.changed.emit()

    # ---------------------------------------------------------------- the tick

    def _tick(self) -> None:
        try:
            if self._image in self.viewer.layers:
                self.view: View = view_of(self.viewer, self._image)
        except Exception as error:  # a layer in an unforeseen state
            self._fail(error)
        super()._tick()

    def _ready(self) -> bool:
        image_there = self.target is not None or self._image in self.viewer.layers
        if self._image.data is not self._data or not image_there:
            self._lost_what = "the image was removed, or given other data"
            self._lose()
            return False
        if self.target is None:  # not before there is something to show: a run that fails leaves no empty layer
            self.target = self._make_target()
        target = self.target
        # another round may have taken the layer over
        if not target.in_viewer(self.viewer) or target.network != self._spec.name:
            self._lose()
            return False
        return not stroke_in_progress(target.layer)

    def _take(self, piece: Piece) -> None:
        target, result = self.target, piece.result
        assert target is not None
        refused = target.store.refused
        self._kept += target.write(result.z, piece.slices, piece.part(result.labels))
        if target.store.refused > refused:
            n = len(target.classes)
            hint = f"Pixels painted with a label above {n}, which is not a class, were replaced by the prediction."
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

    def _refresh(self) -> None:
        target = self.target
        if target is not None and self._stale and not stroke_in_progress(target.layer):
            if target.in_viewer(self.viewer) and (self.view.section in self._stale or self.viewer.dims.ndisplay == 3):
                for layer in (target.layer, *target.extra.values()):
                    if layer.visible and layer in self.viewer.layers:
                        layer.refresh(thumbnail=False, highlight=False, extent=False)
            self._stale.clear()

    # ---------------------------------------------------------------- the end

    def _conclude(self, seconds: float) -> None:
        target = self.target
        if target is not None and self._pixels and target.in_viewer(self.viewer):
            target.seconds += seconds
            self._record()
            for layer in (target.layer, *target.extra.values()):
                if layer in self.viewer.layers:
                    layer.refresh(highlight=False, extent=False)

    def _summary(self, cancelled: bool, seconds: float) -> str:
        if self._lost:
            return f"Stopped: {self._lost_what}."
        if cancelled:
            part = f"{100 * self.fraction:.0f} %" if self.fraction else "nothing"
            return f"Cancelled, {part} done. Press Segment to do the rest."
        if not self._pixels:
            return "Everything here is already segmented."
        kept = f", {self._kept:,} painted pixels kept" if self._kept else ""
        return f"Done in {duration(seconds)} ({self._running.description}){kept}."

    def _record(self) -> None:
        if self.target is not None:
            self.target.layer.metadata[KEY] = self._record_now(self.target, finished=True)

    def _record_now(self, target: Target, *, finished: bool) -> dict[str, Any]:
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
