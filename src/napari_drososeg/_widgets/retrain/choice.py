"""What the Annotate and retrain form says: image, labels layer, network to start from, and how a round is trained."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from napari.layers import Image, Labels
from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import QWidget

from napari_drososeg._widgets.controls import checks, grey_values, pixel_size, preferences
from napari_drososeg._widgets.controls.grey_values import GreyValues
from napari_drososeg._widgets.controls.network_card import choice_title
from napari_drososeg._widgets.layers.error_maps import is_error_map
from napari_drososeg._widgets.layers.images import image_problem, shape_of
from napari_drososeg._widgets.layers.targets import Target, Targets
from napari_drososeg._widgets.retrain.annotating import ImageAnnotation
from napari_drososeg._widgets.retrain.form import RetrainForm
from napari_drososeg._widgets.retrain.repainting import predict_config
from napari_drososeg._widgets.retrain.training_state import SECTION, expected_seconds, known_speed
from napari_drososeg._widgets.retrain.workspace_folder import folder_of
from napari_drososeg._widgets.work.job import duration
from napari_drososeg.classes import DROSOPHILA_CLASSES, ClassTable
from napari_drososeg.errors import DrososegError
from napari_drososeg.workspace import START
from napari_drososeg.workspace.recipes import EFFORTS, SCRATCH, RetrainSettings
from napari_drososeg.zoo import DEFAULT_NETWORK, NetworkCard, list_networks

if TYPE_CHECKING:
    import napari

    from napari_drososeg.checkpoint import NetworkSpec
    from napari_drososeg.inference import PredictConfig

REMEMBERED = ("effort", "loss", "rate", "augmentation", "steps", "afterwards", "outline")
IN_USE = ""
"""Choice of the network to start from that stands for the round in use."""


class RetrainChoice(RetrainForm):
    """The form with its meaning. Says nothing of training.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer whose layers are read.

    Signals
    -------
    altered
        Something else is chosen, or known of what is chosen: marks, texts and buttons may have to change.
    """

    altered = Signal()

    def __init__(self, viewer: napari.Viewer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.viewer = viewer
        self.targets = Targets(viewer)
        self.cards: list[NetworkCard] = []
        self.annotations: dict[Image, ImageAnnotation] = {}
        self._image: Image | None = None
        self._start_chosen = False  # by the user, for this image
        self._picked: Labels | None = None  # labels that were chosen, and not fallen back to
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.setInterval(150)
        self._later.timeout.connect(self.altered)

    def restore(self) -> None:
        """Take what was chosen last time."""
        preferences.restore(SECTION, self, REMEMBERED)

    def remember(self, _changed: Any = None) -> None:
        """Keep what is chosen for the next time."""
        preferences.update(SECTION, {name: getattr(self, name).value for name in REMEMBERED})

    def _look_later(self, _event: Any = None) -> None:
        if not self._closed and not self._later.isActive():
            self._later.start()

    # ---------------------------------------------------------------- image and labels

    def reset_choices(self, _event: Any = None) -> None:
        """Read the viewer's layers again. napari calls this when layers come, go or are renamed."""
        if self._closed:
            return
        for image in [i for i in self.annotations if i not in self.viewer.layers]:
            self.annotations.pop(image).close(later=_soon)
        self.image.reset_choices()
        self._image_changed()
        self._fill_labels()
        self.altered.emit()

    def _image_changed(self) -> None:
        image = self.image.value
        if image is self._image:
            return
        if self._image is not None:
            for name in ("scale", "units", "metadata"):
                with contextlib.suppress(TypeError, ValueError, RuntimeError):
                    getattr(self._image.events, name).disconnect(self._image_altered)
        self._image, self._start_chosen = image, False
        if image is not None:
            for name in ("scale", "units", "metadata"):
                getattr(image.events, name).connect(self._image_altered)
        self._open_annotation()
        self._fill_labels()
        self.load_networks()

    def _image_altered(self, event: Any) -> None:
        if not self._closed and self._image is not None and event.type != "metadata":
            pixel_size.restated(self._image)
        self._look_later()

    def _data_changed(self, event: Any) -> None:
        """Begin anew, whichever image is chosen: it shows other pixels, and what was annotated belongs to the old."""
        image = event.source
        if not self._closed and image in self.annotations:
            self.annotations.pop(image).close()
            if image is self._image:
                self._open_annotation()
                self._look_later()

    def _open_annotation(self) -> None:
        image = self._image
        if image is None or image_problem(image) or image in self.annotations:
            return
        try:
            self.annotations[image] = ImageAnnotation(self.viewer, image, folder_of(image), self._new_classes())
        except (DrososegError, OSError):  # an image that cannot be read; `problems` says so
            return
        image.events.data.connect(self._data_changed)  # once, however often it is said
        pixel_size.recall(image, self.annotations[image].workspace)

    @property
    def annotation(self) -> ImageAnnotation | None:
        """The annotation of the chosen image."""
        return self.annotations.get(self._image) if self._image is not None else None

    def _fill_labels(self) -> None:
        chosen, found = self.labels.value, self._labels_layers()
        with self.labels.changed.blocked():
            self.labels.choices = [(layer.name, layer) for layer in found]
            ours = [layer for layer in found if self.targets.of_layer(layer) is not None]
            if chosen in found and (chosen in ours or not ours or chosen is self._picked):
                self.labels.value = chosen
            elif ours:
                self.labels.value = ours[-1]

    def _labels_layers(self) -> list[Labels]:
        """Labels layers on the grid of the image."""
        if self._image is None or image_problem(self._image):
            return []
        shape = shape_of(self._image)[3 - self._image.ndim :]
        here = {id(t.layer) for t in self.targets.of_image(self._image)}
        found = []
        for layer in self.viewer.layers:
            if not isinstance(layer, Labels) or is_error_map(layer) or layer.multiscale:
                continue
            of_other = self.targets.of_layer(layer) is not None and id(layer) not in here
            if tuple(layer.data.shape) == shape and not of_other:
                found.append(layer)
        return found

    @property
    def target(self) -> Target | None:
        """The chosen labels layer, if it is one of ours."""
        return self.targets.of_layer(self.labels.value) if self.labels.value is not None else None

    def _new_classes(self) -> ClassTable:
        """Classes of new labels: those of the chosen layer, else of the network to start from."""
        if (target := self.target) is not None:
            return target.classes
        card = self.start_card
        return card.spec.classes if card is not None and card.spec is not None else DROSOPHILA_CLASSES

    # ---------------------------------------------------------------- the network to start from

    def load_networks(self) -> None:
        """Read the list of networks again, and offer the round in use first."""
        try:
            self.cards = list_networks(left_out=[])
        except (DrososegError, OSError, ValueError, KeyError, TypeError):  # a damaged registry
            self.cards = []
        number = self.in_use
        choices = [(f"round {number}, in use", IN_USE)] if number != START else []
        choices += [(choice_title(card), card.name) for card in self.cards] + [("from scratch", SCRATCH)]
        chosen, names = self.start.value, [name for _, name in choices]
        target = self.target
        wanted = [chosen] if self._start_chosen else []
        wanted += [IN_USE, target.network if target is not None else None, DEFAULT_NETWORK]
        with self.start.changed.blocked():
            self.start.choices = choices
            self.start.value = next((name for name in wanted if name in names), SCRATCH)

    @property
    def in_use(self) -> int:
        """Number of the round in use, `START` if there is none."""
        workspace = self.annotation.workspace if self.annotation is not None else None
        return workspace.rounds.in_use if workspace is not None else START

    @property
    def start_card(self) -> NetworkCard | None:
        """The chosen network of the zoo; None for a round and for scratch."""
        return next((c for c in self.cards if c.name == self.start.value), None)

    # ---------------------------------------------------------------- how

    def _known(self, image: Image | None) -> tuple[float | None, GreyValues]:
        if image is None:
            return None, GreyValues()
        annotation = self.annotations.get(image)
        workspace = annotation.workspace if annotation is not None else None
        grey = grey_values.known(image, workspace, self.targets.of_image(image))
        return pixel_size.known(image, workspace), grey

    @property
    def pixel_size(self) -> float | None:
        """Pixel size of the chosen image in nm, None where it is not known."""
        return self._known(self._image)[0]

    @property
    def grey_values(self) -> GreyValues:
        """How the grey values of the chosen image are taken."""
        return self._known(self._image)[1]

    def predict_config(self, image: Image, spec: NetworkSpec) -> PredictConfig:
        """How a network predicts an image, which need not be the chosen one."""
        return predict_config(spec, *self._known(image))

    def _answer_pixel_size(self) -> None:
        """Keep the answer with the image, where the Segment widget finds it, too; 0 takes it back.

        What the round in use found out stays.
        """
        if self._image is None:
            return
        pixel_size.answer(self._image, self.nm.value)
        self.altered.emit()

    def _answer_grey_values(self) -> None:
        if self._image is not None:
            grey_values.answer(self._image, self.grey.value)
            self.altered.emit()

    def show_reading(self) -> None:
        """Show what is known of the image's pixels; the user may know better."""
        image = self._image
        self.nm_row.visible = image is not None and not image_problem(image)
        pixel_size.put_size(self.nm, self.pixel_size or 0)
        self.grey.show(self.grey_values)

    def settings(self) -> RetrainSettings:
        """How a round is trained, as the form says it."""
        size = self.pixel_size
        return RetrainSettings(
            start=self.start.value if self.start.value != IN_USE else None,
            effort=self.effort.value,
            steps=int(self.steps.value) or None,
            learning_rate=self.rate.value or None,
            loss=self.loss.value,
            augmentation=self.augmentation.value,
            pixel_size=round(size, 4) if size is not None else None,
            **asdict(self.grey_values),
            predict=(self.annotation.section,) if self.annotation is not None else (),
        )

    @property
    def kind(self) -> str:
        """What the expected time belongs to."""
        if self.start.value != IN_USE:
            return str(self.start.value)
        target = self.target
        return target.network if target is not None and target.network else SCRATCH

    @property
    def base(self) -> str:
        """What the classes of the next round are learnt upon; see `napari_drososeg.workspace.rounds.Round`."""
        if self.start.value == IN_USE:
            workspace = self.annotation.workspace if self.annotation is not None else None
            rounds = workspace.rounds if workspace is not None else ()
            return next((r.base for r in rounds if r.number == self.in_use), "")
        return str(self.start.value) if self.start.value == SCRATCH or self.other_classes() else ""

    def show_efforts(self) -> None:
        """Say behind each effort how long it takes on this machine, where that is known."""
        names, speed = {}, known_speed(self.kind)
        for effort in EFFORTS:
            seconds = expected_seconds(speed, self.base, effort, int(self.steps.value) or None)
            names[effort] = f"{effort}, about {duration(seconds)}" if seconds is not None else effort
        if list(names.values()) != [self.effort.native.itemText(i) for i in range(len(names))]:
            for i, text in enumerate(names.values()):
                self.effort.native.setItemText(i, text)

    def problems(self) -> dict[str, str]:
        """Fields that cannot work, with the reason, in the order of the form."""
        found: dict[str, str | None] = {"image": image_problem(self._image)}
        annotation, target, card = self.annotation, self.target, self.start_card
        if not found["image"] and annotation is None:
            found["image"] = "This image cannot be read; check its file."
        if self.nm.value:
            known = card.spec.pixel_size if card is not None and card.spec is not None else None
            found["pixel_size"] = checks.pixel_size_problem(self.nm.value, known)
        if annotation is not None:
            found["labels"] = self._labels_problem(annotation, target)
        return {name: reason for name, reason in found.items() if reason}

    def other_classes(self) -> str:
        """Return what to know of a network to start from that has other classes; nothing of any other."""
        annotation, card = self.annotation, self.start_card
        known = card.spec.classes.names if card is not None and card.spec is not None else ()
        if annotation is None or not known or known == annotation.classes.names:
            return ""
        return (
            f"The network knows other classes ({', '.join(known)}): it keeps what it has learnt about images, and "
            "learns your classes from your annotations."
        )

    def _labels_problem(self, annotation: ImageAnnotation, target: Target | None) -> str | None:
        if self.labels.value is None:
            return "There are no labels to correct yet: segment the image, or begin with empty labels."
        if target is None:
            return "Copy these labels first, as annotation or as prediction."
        if annotation.problem:
            return annotation.problem
        if not annotation.fits(target):
            return (
                f"The workspace of this image has different classes ({', '.join(annotation.classes.names)}): choose "
                "other labels, or another folder under Advanced."
            )
        if annotation.overview is None or not annotation.overview.trains.any():
            return "Nothing is annotated yet: paint over what is wrong, or mark correct areas as reviewed."
        return None


def _soon(act: Callable[[], None]) -> None:
    """Do something once the viewer is through with what it is doing."""
    QTimer.singleShot(0, lambda: act())  # a method alone would not be kept
