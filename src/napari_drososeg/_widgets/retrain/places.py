"""Looking for places to annotate next."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from napari_drososeg._widgets.work.work import Work
from napari_drososeg._widgets.work.worker import Control, State, be_polite, handing_over

if TYPE_CHECKING:
    import napari
    from qtpy.QtCore import QObject

    from napari_drososeg.inference import PredictConfig
    from napari_drososeg.io import Stack
    from napari_drososeg.workspace.suggest import Suggestion
    from napari_drososeg.zoo import NetworkCard


def _look(
    folder: Path, stack: Stack, card: NetworkCard, config: PredictConfig, first: int, control: Control
) -> Iterator[Suggestion]:
    from napari_drososeg.inference import Predictor
    from napari_drososeg.workspace import open_workspace
    from napari_drososeg.workspace.suggest import spread, suggest

    be_polite()
    # a workspace of its own: the one of the widget changes while this thread reads
    with handing_over(control), open_workspace(folder, write=False) as workspace:
        predictor = Predictor(str(card.path or card.name), config, cancelled=control.stop.is_set)
        for z in sorted({*spread(stack.n_sections), first}, key=lambda z: abs(z - first)):
            if control.stop.is_set():
                return
            yield from suggest(workspace, stack, predictor, sections=[z])


class PlaceFinder(Work):
    """Asks a network where it is unsure.

    Attributes
    ----------
    places : list of Suggestion
        Found and not visited yet, the best first.
    fresh : bool
        Whether a search has just ended; whoever goes to its first place sets it to False.
    """

    def __init__(self, viewer: napari.Viewer, parent: QObject | None = None) -> None:
        self.places: list[Suggestion] = []
        self.fresh = False
        super().__init__(viewer, parent)

    def start(self, folder: Path, stack: Stack, card: NetworkCard, config: PredictConfig, first: int) -> None:
        """Look at sections all over the stack, beginning with `first`; what is on disk counts as annotated."""
        self._clear()
        self.places, self.fresh = [], False
        self._set_state(State.RUNNING, "Looking for places where the network is uncertain …")
        self._begin("Looking for places in", stack.name, _look, folder, stack, card, config, first)

    def forget(self) -> None:
        """Stop, and forget what was found: the network or the image is another."""
        self.close()
        self.places, self.fresh = [], False

    def _take(self, piece: Suggestion) -> None:
        if piece.score > 0:
            self.places.append(piece)

    def _conclude(self, _seconds: float) -> None:
        self.places.sort(key=lambda place: -place.score)
        self.fresh = True

    def _summary(self, _cancelled: bool, _seconds: float) -> str:
        none = "No place stands out: uncertain places are annotated already, or the network is certain."
        return "" if self.places else none
