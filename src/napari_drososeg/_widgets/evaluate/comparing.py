"""Comparing two labels layers in a worker thread; the error map is written here, on the GUI thread only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_drososeg._widgets.layers.error_maps import ErrorMap, ErrorMaps
from napari_drososeg._widgets.layers.images import stack_of
from napari_drososeg._widgets.work.work import Work
from napari_drososeg._widgets.work.worker import Control, State, be_polite, handing_over
from napari_drososeg.evaluation import Evaluation, SectionEvaluation, compare

if TYPE_CHECKING:
    import napari
    import numpy as np
    from napari.layers import Labels
    from numpy.typing import NDArray
    from qtpy.QtCore import QObject

    from napari_drososeg.classes import ClassTable
    from napari_drososeg.io import Stack


@dataclass(frozen=True)
class Comparison:
    """What one press of Evaluate compares.

    Parameters
    ----------
    labels, truth : Labels
        Layers on the same grid.
    classes : ClassTable
        What their values mean.
    sections : tuple of int
        Which sections.
    error_map : bool
        Whether wrong pixels are shown as a layer.
    """

    labels: Labels
    truth: Labels
    classes: ClassTable
    sections: tuple[int, ...]
    error_map: bool


@dataclass(frozen=True)
class Compared:
    """Some rows of a section: what was counted, and which pixels (h, X) are wrong, if that is asked for."""

    part: SectionEvaluation
    rows: slice
    wrong: NDArray[np.bool_] | None


def _compare(
    labels: Stack, truth: Stack, classes: ClassTable, sections: tuple[int, ...], show: bool, control: Control
) -> Iterator[Compared]:
    be_polite()
    with handing_over(control):
        for strip in compare(labels, truth, classes, [(z, z) for z in sections]):
            if not control.wait_for_room():
                return
            yield Compared(strip.part, strip.rows, strip.wrong if show else None)


class Comparer(Work):
    """Does one comparison at a time.

    Attributes
    ----------
    result : Evaluation or None
        Of the last comparison: all its sections, or those that were done when it was cancelled.
    title : str
        What was compared, in words.
    n_sections : int
        Sections that the compared layers have.
    """

    def __init__(self, viewer: napari.Viewer, parent: QObject | None = None) -> None:
        super().__init__(viewer, parent)
        self.result: Evaluation | None = None
        self.title = ""
        self.n_sections = 0
        self._maps = ErrorMaps(viewer)
        self._job: Comparison | None = None

    def _clear(self) -> None:
        super()._clear()
        self._sections: dict[int, SectionEvaluation] = {}
        self._whole = 0
        self._map: ErrorMap | None = None
        self._stale = False

    def start(self, job: Comparison) -> None:
        """Start a comparison; the one before must have ended."""
        if self.busy:
            raise RuntimeError("A comparison is in progress.")
        self._clear()
        labels, truth = stack_of(job.labels), stack_of(job.truth)
        self._job = job
        self.n_sections, self._height, self._width = labels.shape
        self._pixels = len(job.sections) * self._height * self._width
        self.title = f"{job.labels.name} against {job.truth.name}"
        self._set_state(State.RUNNING, f"Comparing with {job.truth.name} …")
        arguments = (labels, truth, job.classes, job.sections, job.error_map)
        self._begin("Evaluating", job.labels.name, _compare, *arguments)

    def let_go(self) -> None:
        """Keep nothing of the last comparison whose layers have left the viewer: it may be gigabytes."""
        self._maps.let_go()
        if self.busy or self._job is None:
            return
        if any(layer not in self.viewer.layers for layer in (self._job.labels, self._job.truth)):
            self._job = None
        if self._map is not None and self._map.layer not in self.viewer.layers:
            self._map = None

    def _take(self, piece: Compared) -> None:
        part, z = piece.part, piece.part.labels_section
        self._sections[z] = self._sections[z] + part if z in self._sections else part
        self._whole += piece.rows.stop == self._height
        self._pixels_done += (piece.rows.stop - piece.rows.start) * self._width
        if piece.wrong is not None:
            if self._map is None:  # not before there is something to show
                self._map = self._maps.fresh(self._job.labels, self._job.truth)
            if self._map.in_viewer(self.viewer):  # else it was removed: the numbers come all the same
                self._map.write(z, piece.rows, piece.wrong)
                self._stale = True

    def _refresh(self) -> None:
        if self._map is not None and self._stale and self._map.in_viewer(self.viewer) and self._map.layer.visible:
            self._map.layer.refresh(thumbnail=False, highlight=False, extent=False)
        self._stale = False

    def _conclude(self, _seconds: float) -> None:
        done = tuple(self._sections.values())[: self._whole]
        self.result = Evaluation(self._job.classes, done) if done and self._error is None else None
        if self._map is not None and self._map.in_viewer(self.viewer):
            self._map.layer.refresh(highlight=False, extent=False)

    def _summary(self, cancelled: bool, seconds: float) -> str:
        total = len(self._job.sections)
        if cancelled and self._whole < total:
            return f"Cancelled after {self._whole} of {total} sections" + (
                ": these are counted." if self._whole else "."
            )
        return super()._summary(False, seconds)
