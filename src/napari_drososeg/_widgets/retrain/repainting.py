"""Showing another network in a labels layer that is there: what it predicted already at once, the rest as it comes."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QTimer, Signal

from napari_drososeg._widgets.controls import checks, preferences
from napari_drososeg._widgets.layers.classes import KEY, label_features
from napari_drososeg._widgets.layers.history import stroke_in_progress
from napari_drososeg._widgets.layers.images import lie_on, shape_of, stack_of, view_of
from napari_drososeg._widgets.layers.targets import Target, Targets, label_colormap
from napari_drososeg._widgets.segment.choice import tile_edge
from napari_drososeg._widgets.segment.running import Runner
from napari_drososeg._widgets.work.job import Job
from napari_drososeg._widgets.work.work import TICK_MS, WRITE_BUDGET
from napari_drososeg.inference import PredictConfig

if TYPE_CHECKING:
    import napari
    from napari.layers import Image

    from napari_drososeg._widgets.controls.grey_values import GreyValues
    from napari_drososeg.checkpoint import NetworkSpec
    from napari_drososeg.workspace.chunks import ChunkedLabels, Key
    from napari_drososeg.zoo import NetworkCard


class _OneTarget(Targets):
    """The layer that is repainted is the only one to be found, whatever other layers show the same network."""

    target: Target | None = None

    def find(self, image: Image | None, network: str) -> Target | None:
        """Find the layer that is repainted."""
        found = self.target
        fits = found is not None and found.image is image and found.network == network
        return found if fits and found is not None and found.in_viewer(self._viewer) else None


class Repainter(QObject):
    """Gives a labels layer to a network, and predicts it anew.

    Attributes
    ----------
    runner : Runner
        Predicts what is not there yet.

    Signals
    -------
    changed
        Progress or message are different.
    """

    changed = Signal()

    def __init__(self, viewer: napari.Viewer, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.viewer = viewer
        self.runner = Runner(viewer, self)
        self._only = self.runner.targets = _OneTarget(viewer)
        self.runner.changed.connect(self.changed)
        self._known: deque[Key] = deque()
        self._timer = QTimer(self)
        self._timer.setInterval(TICK_MS)
        self._timer.timeout.connect(self._tick)

    @property
    def busy(self) -> bool:
        """Whether the layer is being repainted."""
        return self._timer.isActive() or self.runner.busy

    @property
    def waiting(self) -> int:
        """Number of pieces that are predicted already and not shown yet."""
        return len(self._known)

    def start(
        self, target: Target, card: NetworkCard, config: PredictConfig, sections: tuple[int, ...],
        known: ChunkedLabels | None = None,
    ) -> None:  # fmt: skip
        """Begin; what went on before is ended.

        Parameters
        ----------
        target : Target
            The layer.
        card : NetworkCard
            The network that it shows from now on.
        config : PredictConfig
            How it predicts.
        sections : tuple of int
            Sections to be predicted, in any order: what is on screen comes first.
        known : ChunkedLabels, optional
            What it has predicted already.
        """
        self.close()
        self.runner.forget_message()
        assert card.spec is not None
        take_over(target, card.spec)
        self._only.target = target
        self._job = Job(str(card.path or card.name), card.name, card.sha256, config, sections)
        self._card, self._labels = card, known
        target.use_job(self._job, target.image.data)
        self._known = deque(k for z in known.sections for k in known.keys(z)) if known is not None else deque()
        self._timer.start()

    def cancel(self) -> None:
        """Leave it as it is."""
        self._known.clear()
        self._timer.stop()
        self.runner.cancel()

    def close(self) -> None:
        """Stop for good."""
        self._known.clear()
        self._timer.stop()
        self.runner.close()

    def _tick(self) -> None:
        target = self._only.target
        if target is None or not target.in_viewer(self.viewer):
            self.cancel()
            return
        if stroke_in_progress(target.layer):
            return
        until = time.monotonic() + WRITE_BUDGET
        while self._known and self._labels is not None and time.monotonic() < until:
            key = self._known.popleft()
            box = self._labels.box(key)
            target.write(key[0], box, self._labels.read(key[0], *box))
            if not self._known or self._known[0][0] != key[0]:
                _, height, width = shape_of(target.image)
                if self._labels.counts(key[0]).sum() == height * width:  # else it was stopped on the way
                    target.done.add(key[0], (0, height, 0, width))
                if key[0] == view_of(self.viewer, target.image).section:
                    target.layer.refresh(thumbnail=False, highlight=False, extent=False)
        if not self._known:
            self._timer.stop()
            if self._job.missing(target.done, shape_of(target.image)):
                self.runner.start(self._job, self._card, target.image, stack_of(target.image))
            self.changed.emit()


def take_over(target: Target, spec: NetworkSpec) -> None:
    """Let a layer be that of another network; it keeps a name that the user has given it."""
    if target.layer.name == target.named:
        target.layer.name = f"{target.image.name} [{spec.title}]"
        target.named = target.layer.name  # napari may have added a number
    lie_on(target.layer, target.image)
    target.network, target.title = spec.name, spec.title
    if target.classes != spec.classes:
        target.classes = spec.classes
        target.layer.colormap = label_colormap(spec.classes)
        target.layer.features = label_features(spec.classes)
    said = {"network": spec.name, "title": spec.title, "classes": spec.classes.to_list()}
    target.layer.metadata[KEY] = said  # until a run of its own says more


def predict_config(spec: NetworkSpec, pixel_size: float | None, grey: GreyValues) -> PredictConfig:
    """How a network predicts here: with the device, engine and precision that were last chosen for segmenting.

    In one orientation, as the process that trains it does. What this machine cannot do is left to be chosen anew.
    """
    chosen: dict[str, Any] = preferences.load("segment")
    kinds = {name: str(chosen.get(name) or "auto") for name in ("device", "engine", "precision")}
    if checks.machine_problems(**kinds):  # chosen on another machine, and there are no fields for them here
        kinds = dict.fromkeys(kinds, "auto")
    return PredictConfig(
        **kinds,  # type: ignore[arg-type]
        tile=tile_edge(spec, "default"),
        pixel_size=pixel_size,
        **asdict(grey),
    )
