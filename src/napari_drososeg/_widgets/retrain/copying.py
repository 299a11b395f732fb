"""Copying a labels layer that is not ours: read in a thread, written into one of ours on the GUI thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.notifications import show_info

from napari_drososeg._widgets.layers.history import stroke_in_progress
from napari_drososeg._widgets.work.ordering import area, rect_of
from napari_drososeg._widgets.work.store import Pixels, Slices, index_of, pieces
from napari_drososeg._widgets.work.work import Work
from napari_drososeg._widgets.work.worker import Control, State, be_polite, handing_over

if TYPE_CHECKING:
    from napari.layers import Labels

    from napari_drososeg._widgets.layers.targets import Target
    from napari_drososeg._widgets.retrain.annotating import ImageAnnotation


@dataclass(frozen=True)
class Part:
    """Part of a section: its labels, 0 where there is none, and how many were left out since they are not a class."""

    z: int
    slices: Slices
    known: Pixels
    left_out: int


def read_parts(data: Any, shape: tuple[int, ...], n_classes: int, control: Control) -> Iterator[Part]:
    """Read a labels layer's data, in a worker thread.

    Parameters
    ----------
    data : array-like of integers, shape (Z, Y, X) or (Y, X)
        Any that can be indexed.
    shape : tuple of int
        Its shape.
    n_classes : int
        Labels above it are left out.
    control : Control
        Stops it; has its error at the end.
    """
    be_polite()
    with handing_over(control):
        for z in range(shape[0] if len(shape) == 3 else 1):
            for part in pieces((slice(0, shape[-2]), slice(0, shape[-1]))):
                values = np.asarray(data[index_of(shape, z, *part)])
                known = np.where((values > 0) & (values <= n_classes), values, 0).astype(np.uint8)
                left_out = int(np.count_nonzero(values)) - int(np.count_nonzero(known))
                if not control.wait_for_room():
                    return
                yield Part(z, part, known, left_out)


class LabelsCopier(Work):
    """Copies one labels layer at a time into one of ours."""

    def start(
        self, layer: Labels, annotation: ImageAnnotation, target: Target, *, right: bool, alive: Callable[[], bool]
    ) -> None:
        """Begin; the one before must have ended.

        Parameters
        ----------
        layer : Labels
            What is copied. It is hidden at the end.
        annotation : ImageAnnotation
            That of its image.
        target : Target
            Our layer.
        right : bool
            Whether the labels count as annotated; else they are a prediction to be corrected.
        alive : callable
            Whether the annotation is still that of the image.
        """
        self._clear()
        self._left_out = 0
        self._layer, self._annotation, self._target, self._right, self._alive = layer, annotation, target, right, alive
        shape = target.store.shape
        self._pixels = int(np.prod(shape))
        self._begin("Copying", layer.name, read_parts, layer.data, shape, len(target.classes))
        self._set_state(State.RUNNING, f"Copying {layer.name} …")

    def forget_message(self) -> None:
        """Say no more of the last time: another image is chosen now."""
        if not self.busy:
            self.message = ""

    def _ready(self) -> bool:
        if not self._target.in_viewer(self.viewer) or not self._alive():
            self._lose()
            return False
        return not stroke_in_progress(self._target.layer)

    def _take(self, part: Part) -> None:
        if part.known.any():
            if self._right:
                self._target.take_in(part.z, part.slices, part.known)
                self._annotation.look_at(self._target, part.z, part.slices)
            else:
                self._target.write(part.z, part.slices, part.known)
        self._left_out += part.left_out
        self._pixels_done += area(rect_of(part.slices))

    def _refresh(self) -> None:
        if self._target.in_viewer(self.viewer) and not stroke_in_progress(self._target.layer):
            self._target.layer.refresh(thumbnail=False, highlight=False, extent=False)

    def _conclude(self, _seconds: float) -> None:
        self._refresh()
        if self._error is None and self._pixels_done == self._pixels:
            self._layer.visible = False
        if self._left_out:
            named = ", ".join(f"{c.value} {c.name}" for c in self._target.classes)
            show_info(f"{self._left_out:,} pixels have a label that is not a class ({named}): they were left out.")

    def _summary(self, cancelled: bool, seconds: float) -> str:
        if self._lost:
            return "Stopped: the labels layer was removed, or the image was given other data."
        if cancelled:
            return f"Cancelled: {100 * self._pixels_done // self._pixels} % of {self._name} were copied."
        return super()._summary(cancelled, seconds)
