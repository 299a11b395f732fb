"""The Annotate and retrain widget: paint over what is wrong, press Retrain, look again."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from napari.qt.threading import create_worker
from napari.utils.notifications import show_error, show_info
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication, QWidget

from napari_drososeg._widgets.controls import grey_values, pixel_size
from napari_drososeg._widgets.controls.fields import show_fraction
from napari_drososeg._widgets.files import dialogs
from napari_drososeg._widgets.files.reader import FILES_KEY
from napari_drososeg._widgets.layers.images import file_of
from napari_drososeg._widgets.layers.targets import Target
from napari_drososeg._widgets.retrain.choice import REMEMBERED
from napari_drososeg._widgets.retrain.round_actions import RoundActions
from napari_drososeg._widgets.retrain.training_run import Stage, TrainingRun, image_file
from napari_drososeg._widgets.retrain.training_state import command_line, remember_speed
from napari_drososeg._widgets.work.job import duration
from napari_drososeg._widgets.work.leaving import WindowWatch
from napari_drososeg._widgets.work.work import HELD_UP, LONG_SECONDS
from napari_drososeg.errors import DrososegError

if TYPE_CHECKING:
    import napari

    from napari_drososeg._widgets.retrain.annotating import ImageAnnotation
    from napari_drososeg.classes import ClassTable
    from napari_drososeg.workspace.recipes import RetrainSettings

TICK_MS, BUSY_MS = 250, 20
"""Between two looks at what was painted, and between two pieces of work while there is some."""
KEYS = {"Shift-R": "toggle_reviewed", "Shift-N": "next_place", "Shift-T": "retrain_or_stop"}


class RetrainWidget(RoundActions):
    """Correct labels by painting, and train a better network from that.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        The viewer whose layers are read and painted on. napari gives plugins a proxy of it.
    """

    def __init__(self, napari_viewer: napari.Viewer, parent: QWidget | None = None) -> None:
        # the proxy hands out proxies of layers, which are not equal to those that the layer combos hand out
        super().__init__(getattr(napari_viewer, "__wrapped__", napari_viewer), parent)
        self.training = TrainingRun(self)
        self._trained: tuple[ImageAnnotation, Target | None, RetrainSettings, str] | None = None
        self._trained_classes: ClassTable
        self._ticking = QTimer(self)
        self._ticking.setInterval(TICK_MS)
        self._ticking.timeout.connect(self.tick)
        self.restore()
        self.load_networks()
        self._connect()
        self.reset_choices()
        self._ticking.start()
        for module in ("pandas", "zarr"):  # which the first stroke needs: a thread loads them while the user looks on
            create_worker(import_module, module, _start_thread=True)

    def _connect(self) -> None:
        self.closing.connect(self.stop)
        self.undocked.connect(self.stop)
        self.altered.connect(self.update_state)
        self.image.changed.connect(self.reset_choices)
        self.labels.changed.connect(self._labels_chosen)
        self.start.changed.connect(self._start_picked)
        self.nm.changed.connect(self._answer_pixel_size)
        for answer in (self.grey.invert, self.grey.fill, self.grey.fill_value):
            answer.changed.connect(self._answer_grey_values)
        for name in REMEMBERED:  # at once: napari closes its widgets in more ways than can be waited for
            getattr(self, name).changed.connect(self.remember)
        for field in (self.steps, self.outline):
            field.changed.connect(self.update_state)
        self.open_button.clicked.connect(lambda: dialogs.open_menu(self, self.viewer, self.open_button.native))
        self.sample_button.clicked.connect(lambda: dialogs.open_sample(self.viewer, self.sample_button, self._life))
        self.run_button.clicked.connect(self.retrain_or_stop)
        self.copy_button.clicked.connect(self._copy)
        self.training.changed.connect(self.show_run)
        self.training.finished.connect(self._trained_one)
        self.connect_reviewing()
        self.connect_rounds()
        events = self.viewer.layers.events
        for event in (events.inserted, events.removed, events.reordered, events.renamed):
            event.connect(self.reset_choices)
        self.viewer.dims.events.point.connect(self._look_later)
        self._keys = {key: self._key(name) for key, name in KEYS.items()}
        for key, pressed in self._keys.items():
            self.viewer.bind_key(key, pressed, overwrite=True)
        self._watch = WindowWatch(self.viewer.window._qt_window, self.stop, self)

    def _key(self, name: str) -> Callable[[Any], None]:
        def pressed(_viewer: Any) -> None:
            if not self._closed:
                getattr(self, name)()

        return pressed

    def _image_changed(self) -> None:
        if self.image.value is not self._image:  # what was said and asked is of the image before
            self.outcome, self._asked, self.question.visible = "", None, False
            self.finder.forget()
            self.drawer.cancel()
            self.repainter.runner.forget_message()
            self.copier.forget_message()
        super()._image_changed()

    def _start_picked(self) -> None:
        self._start_chosen = True
        self.update_state()

    def _labels_chosen(self) -> None:
        self._picked = self.labels.value
        self.load_networks()
        self.update_state()

    # ---------------------------------------------------------------- what is painted

    def tick(self) -> None:
        """Keep what was painted, a little at a time."""
        if self._closed:
            return
        busy, news = False, False
        for annotation in self.annotations.values():
            before = annotation.news
            busy |= annotation.tick()
            news |= annotation.news != before
            if annotation.refused:
                n, annotation.refused = annotation.refused, 0
                show_info(
                    f"{n:,} pixels were painted with a label that is not a class: the prediction is shown there again."
                )
        self._ticking.setInterval(BUSY_MS if busy else TICK_MS)
        if news or self.grey.value != self.grey_values:  # they follow the labels, once these are segmented
            self._look_later()

    # ---------------------------------------------------------------- what is shown

    def update_state(self) -> None:
        """Bring marks, texts and buttons up to date with what is chosen."""
        if self._closed:
            return
        image, annotation, target = self._image, self.annotation, self.target
        foreign = self.labels.value is not None and target is None
        self.empty.visible = image is None
        self.show_reading()
        self.new_button.enabled = annotation is not None
        self.begin.visible = annotation is not None and self.labels.value is None
        self.foreign.visible, self.foreign.enabled = foreign, not self.copier.busy
        self.show_annotation()
        self.show_rounds()
        self.show_efforts()
        self.start_text.value = self.other_classes()
        self.start_text.visible = bool(self.start_text.value)
        if annotation is not None:
            kept = annotation.folder
            self.folder_text.value = f"Stored in {kept.parent.name}/{kept.name}"
            self.folder_text.tooltip = str(kept)
        problems = self.problems()
        self.mark_all(problems)
        self.show_run(problems)

    def show_run(self, problems: dict[str, str] | None = None) -> None:
        """Show what goes on."""
        if self._closed:
            return
        training, repainting = self.training, self.repainter
        if problems is None:
            problems = {} if training.busy else self.problems()
        for part in (self.choice, self.advanced, self.effort):
            part.enabled = not training.busy
        reason = "" if training.busy else next(iter(problems.values()), "")
        self.problem.value, self.problem.visible = reason, bool(reason)
        self._show_button(problems, reason)
        self._show_progress()
        if self._trained is not None and training.state.losses:  # whatever image is chosen now
            trained = self._trained[0]
            locked = trained.overview is not None and bool(trained.overview.locked.any())
            self.plot.draw(training.state, self._trained_classes, locked)
        self.plot.setVisible(bool(training.state.losses))
        annotation = self.annotation
        can_copy = annotation is not None and annotation.workspace is not None and not training.busy
        self.copy_button.enabled = can_copy
        self.copy_button.tooltip = (
            "Copies the command line for the same round to the clipboard, to train it without a graphical interface."
            if can_copy
            else "Nothing is annotated yet, so there is nothing for the command line to train on."
        )
        self.next_button.enabled = annotation is not None and self.can_suggest and not repainting.runner.busy

    def _show_button(self, problems: dict[str, str], reason: str) -> None:
        button, training = self.run_button, self.training
        if training.busy:
            button.text = "Stopping" if training.stage is Stage.STOPPING else "Stop"
            button.enabled = training.stage is Stage.TRAINING
            button.tooltip = "Ends the training now. The best network so far is kept as a round."
        else:
            button.text, button.enabled = "Retrain", not problems
            button.tooltip = reason or (
                "Trains a new network on all annotations, and predicts what is on screen with it, then the rest. "
                "Painted pixels are kept. You can go on painting meanwhile."
            )

    def _show_progress(self) -> None:
        training, runner, copier = self.training, self.repainter.runner, self.copier
        busy = training.busy or self.repainter.busy or copier.busy
        shown = training.state if training.busy else copier if copier.busy else runner
        self.progress.visible = busy
        show_fraction(self.progress, shown.fraction)
        if training.busy:
            stopping = "Stopping: " if training.stage is Stage.STOPPING else ""
            self.status.value = "\n".join((f"{stopping}{training.state.words}", *training.state.notices))
        elif copier.busy:
            self.status.value = HELD_UP if copier.held_up else copier.message
        elif self.repainter.busy:
            left = runner.seconds_left
            rest = f", {duration(left)} left" if left is not None else ""
            doing = HELD_UP if runner.held_up else f"Predicting{rest} …"
            self.status.value = f"{self.outcome}\n{doing}".strip()
        else:
            failed = runner.message if runner.message.startswith("Failed") else ""
            ended = copier.message if not copier.message.startswith("Done") else ""
            self.status.value = "\n".join(line for line in (self.outcome, failed, ended) if line)
        self.status.visible = bool(self.status.value)

    # ---------------------------------------------------------------- what the buttons do

    def retrain_or_stop(self) -> None:
        """Train a round, or end the one that is trained: the one big button."""
        if self.training.busy:
            self.training.stop()
            return
        annotation = self.annotation
        try:
            if annotation is not None and annotation.workspace is not None:
                annotation.flush()
            if annotation is None or self.problems():
                self.update_state()
                return
            workspace, settings = annotation.open(), self.settings()
            pixel_size.keep(annotation.image, workspace)
            grey_values.keep(self.grey_values, workspace)
        except (DrososegError, OSError) as error:
            self._say(str(error), failed=True)
            return
        self.question.visible = False
        self.repainter.cancel()
        self._trained = annotation, self.target, settings, self.kind
        self._trained_classes = annotation.classes
        find = partial(image_file, annotation.stack, workspace, file_of(annotation.image), settings.predict)
        self.training.start(workspace.folder, settings, find, annotation.image.name)
        self.update_state()

    def _trained_one(self, error: str | None) -> None:
        if self._closed or self._trained is None:
            return
        annotation, target, settings, kind = self._trained
        state, wall = self.training.state, self.training.wall
        if error is not None:
            self._say(self.said_of(annotation.image, error), failed=True)
        elif state.round is None:
            self._say(self.said_of(annotation.image, "Stopped before anything was learnt."))
        else:
            remember_speed(kind, settings, state, wall)
            self.finder.forget()
            number, verdict = state.round["number"], state.round["verdict"]
            took = f"Round {number} in {duration(wall)}"
            self._say(self.said_of(annotation.image, f"{took}. {verdict}"))
            if state.round["adopted"]:
                pixel_size.recall(annotation.image, annotation.workspace)
                self.show_round(annotation, target, number)
            else:
                self.ask(annotation, target, number)
            if wall > LONG_SECONDS:
                show_info(f"{annotation.image.name}: {took}. {verdict}")
        self.load_networks()
        self.update_state()

    def _say(self, text: str, *, failed: bool = False) -> None:
        self.outcome = f"Failed: {text}" if failed else text
        if failed:
            show_error(text)
        self._show_progress()

    def _copy(self) -> None:
        annotation = self.annotation
        if annotation is None or annotation.workspace is None:
            return
        known = annotation.workspace.image.path is not None or FILES_KEY in annotation.image.metadata
        path = None if known else file_of(annotation.image)
        QApplication.clipboard().setText(command_line(annotation.folder, self.settings(), path))
        self._say("Command copied to the clipboard.")

    # ---------------------------------------------------------------- the end

    def stop(self) -> None:
        """Keep what was painted, stop timers, training and prediction, and let go of the viewer."""
        if self._closed:
            return
        self._life.over = True
        for each in (self._later, self._ticking, self._watch):
            each.stop()
        self.training.close()
        self.stop_rounds()
        self.drawer.cancel()
        for annotation in self.annotations.values():
            annotation.close()
        self.annotations.clear()
        for key, pressed in self._keys.items():
            if any(bound is pressed for bound in self.viewer.keymap.values()):  # else another widget has taken it
                self.viewer.bind_key(key, None)
