"""What the Annotate and retrain widget does with networks: show, compare, go back to, save, ask where to go next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QInputDialog, QLineEdit, QWidget

from napari_drososeg._widgets.retrain.choice import IN_USE
from napari_drososeg._widgets.retrain.places import PlaceFinder
from napari_drososeg._widgets.retrain.repainting import Repainter
from napari_drososeg._widgets.retrain.reviewing import Reviewing
from napari_drososeg._widgets.retrain.round_difference import Pair, RoundComparer
from napari_drososeg._widgets.retrain.round_networks import card_of, save_as_network
from napari_drososeg._widgets.work.failures import say_failure
from napari_drososeg.errors import DrososegError
from napari_drososeg.workspace import START

if TYPE_CHECKING:
    import napari
    from napari.layers import Image

    from napari_drososeg._widgets.layers.targets import Target
    from napari_drososeg._widgets.retrain.annotating import ImageAnnotation
    from napari_drososeg.workspace.suggest import Suggestion

AROUND = 512
"""Pixels that are on screen when going to a suggested place."""


class RoundActions(Reviewing):
    """The form with what can be done with networks.

    Attributes
    ----------
    outcome : str
        What came of the last thing that was done.
    """

    def __init__(self, viewer: napari.Viewer, parent: QWidget | None = None) -> None:
        super().__init__(viewer, parent)
        self.repainter = Repainter(viewer, self)
        self.outcome = ""
        self._asked: tuple[ImageAnnotation, Target | None, int] | None = None
        self.comparer = RoundComparer(viewer, self)
        self.finder = PlaceFinder(viewer, self)

    def connect_rounds(self) -> None:
        """Connect the controls."""
        self.repainter.changed.connect(self._look_later)
        self.comparer.changed.connect(self._comparer_changed)
        self.finder.changed.connect(self._finder_changed)
        self.segment_button.clicked.connect(self.segment_section)
        self.next_button.clicked.connect(self.next_place)
        self.take_button.clicked.connect(lambda: self.answer(take=True))
        self.leave_button.clicked.connect(lambda: self.answer(take=False))
        self.compare_button.clicked.connect(self.compare)
        self.use_button.clicked.connect(self.use_selected)
        self.save_button.clicked.connect(self._ask_name)
        self.rounds.itemSelectionChanged.connect(self.show_rounds)

    def said_of(self, image: Image | None, text: str) -> str:
        """Name the image, where another one is chosen by now."""
        return text if image is self._image or image is None else f"{image.name}: {text}"

    def stop_rounds(self) -> None:
        """Stop what goes on, for good."""
        for work in (self.copier, self.repainter, self.comparer, self.finder):
            work.close()

    def show_rounds(self) -> None:
        """Show the history, and which of its buttons make sense."""
        workspace = self.annotation.workspace if self.annotation is not None else None
        rounds = workspace.rounds.all() if workspace is not None else []
        self.history.setVisible(bool(rounds))
        if workspace is None or not rounds:
            return
        in_use = workspace.rounds.in_use
        self.rounds.show_rounds(rounds, in_use)
        chosen = self.rounds.numbers
        self.compare_button.enabled = not self.comparer.busy and (
            len(chosen) == 2 or (len(chosen) == 1 and chosen[0] != in_use)
        )
        self.use_button.enabled = len(chosen) == 1 and chosen[0] != in_use and self.target is not None
        self.use_button.text = "Roll back" if len(chosen) == 1 and chosen[0] < in_use else "Use"
        self.save_button.enabled = len(chosen) <= 1 and (chosen or [in_use])[0] != START

    # ---------------------------------------------------------------- which network is shown

    def segment_section(self) -> None:
        """Add a labels layer of the network to start from, with the section on screen."""
        annotation = self.annotation
        if annotation is None:
            return
        try:
            rounds = annotation.workspace.rounds if annotation.workspace is not None else None
            in_use = rounds is not None and self.start.value == IN_USE and rounds.in_use != START
            card = card_of(rounds, rounds.in_use) if in_use and rounds is not None else self.start_card
            if card is None or card.spec is None:
                raise DrososegError("Choose a start network first; from scratch begins with empty labels.")
        except DrososegError as error:
            say_failure(error)
            return
        target = self.targets.get(annotation.image, card.spec)
        self._choose(target)
        self.repainter.start(target, card, self.predict_config(annotation.image, card.spec), (annotation.section,))

    def show_round(self, annotation: ImageAnnotation, target: Target | None, number: int) -> None:
        """Show the network of a round in a labels layer: what you look at first, then the rest."""
        workspace = annotation.workspace
        if workspace is None:
            return
        try:
            card = card_of(workspace.rounds, number)
            if card.spec is not None and card.spec.classes.names != workspace.classes.names:
                raise DrososegError(f"{card.title} has different classes: the labels are not changed.")
            known = None if number == START else workspace.rounds.prediction(number, workspace.image.shape)
        except DrososegError as error:
            say_failure(error)
            return
        assert card.spec is not None
        if target is None or not target.in_viewer(self.viewer):
            target = self.targets.get(annotation.image, card.spec)
        section, shown = annotation.section, {annotation.section}
        if self.afterwards.value == "stack":
            shown |= set(range(annotation.stack.n_sections))
        elif self.afterwards.value == "shown":
            shown |= target.store.sections | set(workspace.sections)
        order = sorted(shown, key=lambda z: abs(z - section))
        self.repainter.start(target, card, self.predict_config(annotation.image, card.spec), tuple(order), known)
        self._start_chosen = False  # the next round goes on from what is shown
        self.load_networks()

    def ask(self, annotation: ImageAnnotation, target: Target | None, number: int) -> None:
        """Ask whether a round that seems worse is to be used."""
        self._asked = annotation, target, number
        text = f"Round {number} seems worse than the network in use, so it is not used yet."
        self.question_text.value = self.said_of(annotation.image, text)
        self.question.visible = True

    def answer(self, *, take: bool) -> None:
        """Take the answer to `ask`."""
        asked, self._asked = self._asked, None
        self.question.visible = False
        if asked is not None and take:
            self._use(*asked)
        self.altered.emit()

    def use_selected(self) -> None:
        """Go back, or forward, to the selected round."""
        if self.annotation is not None and len(self.rounds.numbers) == 1:
            self._use(self.annotation, self.target, self.rounds.numbers[0])
            self.altered.emit()

    def _use(self, annotation: ImageAnnotation, target: Target | None, number: int) -> None:
        workspace = annotation.workspace
        if workspace is None:
            return
        try:
            card_of(workspace.rounds, number)
            workspace.rounds.use(number)
        except DrososegError as error:
            say_failure(error)
            return
        self.question.visible = False
        self.finder.forget()
        self.outcome = f"Round {number} is in use." if number != START else "The first network is in use again."
        self.show_round(annotation, target, number)

    # ---------------------------------------------------------------- compare, save

    def compare(self) -> None:
        """Show where two rounds differ in the section on screen."""
        annotation = self.annotation
        workspace = annotation.workspace if annotation is not None else None
        if annotation is None or workspace is None or self.comparer.busy:
            return
        chosen = self.rounds.numbers
        first, second = sorted({*chosen, workspace.rounds.in_use} if len(chosen) == 1 else chosen)
        try:
            cards = card_of(workspace.rounds, first), card_of(workspace.rounds, second)
        except DrososegError as error:
            say_failure(error)
            return
        configs = tuple(self.predict_config(annotation.image, card.spec) for card in cards)
        pair = Pair((first, second), cards, configs, annotation.section)
        self.comparer.start(annotation.image, annotation.stack, pair)

    def _comparer_changed(self) -> None:
        self.outcome = self.said_of(self.comparer.image, self.comparer.message)
        self._look_later()

    def _ask_name(self) -> None:
        number = (self.rounds.numbers or [self.in_use])[0]
        image = self._image.name if self._image is not None else "own"
        title, said = QInputDialog.getText(
            self, "Save as network", "Name of the network:", QLineEdit.EchoMode.Normal, f"{image} round {number}"
        )
        if said:
            self.save_network(number, title)

    def save_network(self, number: int, title: str) -> None:
        """Put the network of a round into the user's zoo, and let all widgets know."""
        workspace = self.annotation.workspace if self.annotation is not None else None
        if workspace is None:
            return
        try:
            path = save_as_network(workspace.rounds.checkpoint(number), title)
        except (DrososegError, OSError) as error:
            say_failure(error)
            return
        self.outcome = f"Saved: '{path.stem}' was added to your networks."
        for widget in (self, *self.viewer.window.dock_widgets.values()):
            load = getattr(widget, "load_networks", None)
            if load is not None:
                load()
        self.altered.emit()

    # ---------------------------------------------------------------- where to annotate next

    @property
    def can_suggest(self) -> bool:
        """Whether there is a workspace and a network to ask."""
        workspace = self.annotation.workspace if self.annotation is not None else None
        return workspace is not None and (self.in_use != START or self.start_card is not None)

    def next_place(self) -> None:
        """Go to the next place to annotate; looks for places first, where none are known."""
        annotation = self.annotation
        if annotation is None or annotation.workspace is None or not self.can_suggest:
            return
        if self.finder.busy:
            self.finder.cancel()  # what was found so far will do
            return
        if self.finder.places:
            self._go(self.finder.places.pop(0))
            return
        try:
            card = card_of(annotation.workspace.rounds, self.in_use) if self.in_use != START else self.start_card
            annotation.flush()
        except (DrososegError, OSError) as error:
            say_failure(error)
            return
        if card is not None and card.spec is not None:
            config = self.predict_config(annotation.image, card.spec)
            self.finder.start(annotation.folder, annotation.stack, card, config, annotation.section)

    def _finder_changed(self) -> None:
        finder = self.finder
        self.outcome = finder.message
        if not finder.busy and finder.fresh:
            finder.fresh = False
            if finder.places:
                self._go(finder.places.pop(0))
        self._look_later()

    def _go(self, place: Suggestion) -> None:
        annotation = self.annotation
        if annotation is None:
            return
        image = annotation.image
        y, x = place.centre
        self.go_to(place.section)
        dims = self.viewer.dims
        world = (*(0,) * (dims.ndim - image.ndim), *image.data_to_world((place.section, y, x)[3 - image.ndim :]))
        camera = getattr(self.viewer, "scene", self.viewer).camera
        height = self.viewer.window._qt_viewer.canvas.size[0]
        camera.center = (0, *(world[axis] for axis in dims.displayed[-2:]))
        camera.zoom = max(camera.zoom, height / (AROUND * float(image.scale[-1])))
        left = len(self.finder.places)
        more = f" {left} more places." if left else ""
        self.outcome = f"Section {place.section}, around row {y}, column {x}: the network is uncertain here.{more}"
        self._look_later()
