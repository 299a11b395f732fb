"""The Segment widget: from an image layer and a network to a labels layer that fills while one watches."""

from __future__ import annotations

import contextlib
import time
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.qt.threading import create_worker
from napari.utils.notifications import show_info
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication, QWidget

from napari_drososeg._widgets.controls import pixel_size
from napari_drososeg._widgets.controls.fields import show_fraction
from napari_drososeg._widgets.files import dialogs
from napari_drososeg._widgets.files.reader import FILES_KEY
from napari_drososeg._widgets.layers.images import file_of, notices_of, shape_of, stack_of, view_of, voxel_size_of
from napari_drososeg._widgets.layers.targets import Target
from napari_drososeg._widgets.segment.choice import REMEMBERED, Choice
from napari_drososeg._widgets.segment.form import SCOPES
from napari_drososeg._widgets.segment.running import Runner, foreign_labels
from napari_drososeg._widgets.work.failures import say_failure
from napari_drososeg._widgets.work.job import Scope, command_line, duration
from napari_drososeg._widgets.work.work import HELD_UP, LONG_SECONDS
from napari_drososeg._widgets.work.worker import State
from napari_drososeg.errors import DrososegError

if TYPE_CHECKING:
    import napari


MAX_RECOUNT = 4_000_000
"""Pixels of a section up to which strokes are recounted for the legend as they happen."""
NO_UNCERTAINTY = "The uncertainty is not included: the command line has no option for it."


class SegmentWidget(Choice):
    """Segment the stack of an image layer with a trained network.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        The viewer whose layers are read and added to. napari gives plugins a proxy of it.
    """

    def __init__(self, napari_viewer: napari.Viewer, parent: QWidget | None = None) -> None:
        # the proxy hands out proxies of layers, which are not equal to those that the layer combos hand out
        viewer = getattr(napari_viewer, "__wrapped__", napari_viewer)
        super().__init__(viewer, parent)
        self.runner = Runner(viewer, self)
        self._saving = False
        self._was_busy = False
        self._watched: Any = None
        self._foreign = ""
        self._strokes = QTimer(self)
        self._strokes.setSingleShot(True)
        self._strokes.setInterval(500)
        self._strokes.timeout.connect(self._count_strokes)
        self.load_networks()
        self.restore(REMEMBERED)
        self._connect()
        self.reset_choices()
        # napari imports pandas for the first labels layer, for over a second: a thread does it while the user looks on
        create_worker(import_module, "pandas", _start_thread=True)

    # ---------------------------------------------------------------- set up

    def _connect(self) -> None:
        self.closing.connect(self.stop)
        self.undocked.connect(self.runner.close)
        self.altered.connect(self.update_state)
        self.image.changed.connect(self._image_changed)
        self.network.changed.connect(self._network_changed)
        for field in (self.scope, self.first, self.last, *self.how, self.probabilities, self.uncertainty):
            field.changed.connect(self.update_state)
        for name in (*REMEMBERED, "network"):  # at once: napari closes its widgets in more ways than can be waited for
            getattr(self, name).changed.connect(lambda _value: self.remember(REMEMBERED))
        self.pixel_size.changed.connect(self._pixel_size_changed)
        self.open_button.clicked.connect(lambda: dialogs.open_menu(self, self.viewer, self.open_button.native))
        self.sample_button.clicked.connect(lambda: dialogs.open_sample(self.viewer, self.sample_button, self._life))
        self.run_button.clicked.connect(self.run_or_cancel)
        self.save_button.clicked.connect(self._save)
        self.copy_button.clicked.connect(self._copy)
        self.runner.changed.connect(self._show_run)
        events = self.viewer.layers.events
        for event in (events.inserted, events.removed, events.reordered, events.renamed):
            event.connect(self.reset_choices)
        self.viewer.dims.events.point.connect(self._look_later)
        self.viewer.dims.events.ndisplay.connect(self._look_later)
        # napari 0.9 moved the camera to the scene
        getattr(self.viewer, "scene", self.viewer).camera.events.connect(self._look_later)

    def _image_changed(self) -> None:
        if self.image.value is not self._image:
            self.runner.forget_message()
        super()._image_changed()

    def reset_choices(self, _event: Any = None) -> None:
        """Read the viewer's layers again. napari calls this when layers come, go or are renamed."""
        super().reset_choices()
        self.runner.let_go()

    def _network_changed(self) -> None:
        self.runner.forget_message()
        super()._network_changed()

    # ---------------------------------------------------------------- what is shown

    @property
    def target(self) -> Target | None:
        """Result layer of the chosen image and network, if there is one."""
        return self.runner.targets.find(self._image, self.network.value) if self.network.value else None

    def update_state(self) -> None:
        """Bring marks, texts and buttons up to date with what is chosen."""
        if self._closed:
            return
        self.empty.visible = self._image is None
        self.range_row.visible = self.scope.value is Scope.RANGE
        self.probe()
        problems = self.problems()
        self.mark_all(problems)
        if "pixel_size" not in problems and not self.runner.busy:
            self.mark("pixel_size", self._pixel_question())
        self._show_texts(timed="pixel_size" not in problems)
        self._show_run(problems)

    def _show_texts(self, *, timed: bool = True) -> None:
        card = self.card
        times: dict[Scope, str] = {}
        for scope in Scope:
            job = self.job(scope)
            seconds = self.expected_seconds(job) if job is not None and timed else None
            times[scope] = f"about {duration(seconds)}" if seconds else ""
            text = SCOPES[scope] + (f"  ({times[scope]})" if times[scope] else "")
            self.scope_button(scope).setText(text)
        self.show_card(f"{times[Scope.STACK]} for this stack" if times[Scope.STACK] else None)
        if card is None:
            return
        classes = self.target.classes if self.target is not None else card.spec.classes if card.spec else None
        if classes is not None:
            self.legend.set_classes(classes)

    def _show_run(self, problems: dict[str, str] | None = None) -> None:
        if self._closed:
            return
        state, runner = self.runner.state, self.runner
        if self._was_busy and not runner.busy:  # the speed is known better now
            self.probe(again=True)
            self._look_later()
        self._was_busy = runner.busy
        if problems is None:
            problems = {} if runner.busy else self.problems()
        for part in (self.choice, self.advanced):
            part.enabled = not runner.busy
        reason = next(iter(problems.values()), "") if not runner.busy else ""
        question = None if reason or runner.busy else self._pixel_question()  # hinders nothing, but wants to be seen
        self.problem.value, self.problem.visible = reason or question or "", bool(reason or question)
        button = self.run_button
        if runner.busy:
            button.text = "Cancelling" if state is State.CANCELLING else "Cancel"
            button.enabled = state is not State.CANCELLING
            button.tooltip = "Stops after the current tile. Finished parts are kept."
        else:
            button.text = "Segment again" if self._all_done() else "Segment"
            button.enabled = not problems
            button.tooltip = reason or (
                "Fills the labels layer, beginning with what is on screen. Pixels you painted are kept, also when "
                "you segment again, for as long as the layer exists; erase them to have the prediction there again."
            )
        self._watch(self.target)
        self._show_progress()
        self._show_result_buttons()

    def _show_progress(self) -> None:
        runner = self.runner
        self.progress.visible = runner.busy
        fraction, left = runner.fraction, runner.seconds_left
        show_fraction(self.progress, fraction)
        text = runner.message
        if runner.state is State.RUNNING and fraction is not None and left is not None:
            text = f"{100 * fraction:.0f} %, {duration(left)} left · {runner.message}"
        if runner.held_up:
            text = HELD_UP
        notices = (*notices_of(self._image), *runner.notices, self.contrast_hint)
        lines = (text, *notices, *runner.hints, self._foreign)
        self.status.value = "\n".join(dict.fromkeys(line for line in lines if line))
        target = runner.target if runner.busy else self.target
        self.legend.set_counts(None if target is None else target.store.total_counts())

    def _show_result_buttons(self) -> None:
        target, image = self.target, self._image
        self.save_button.enabled = target is not None and not self.runner.busy and not self._saving
        self.save_button.tooltip = (
            "Writes the labels to a file that any program can read, with their colours where the format supports it."
            if target is not None
            else "There are no labels for this image and network yet."
        )
        path = file_of(image) if image is not None else None
        several = image is not None and FILES_KEY in image.metadata
        self.copy_button.enabled = path is not None and not several and self.job() is not None
        without = f" {NO_UNCERTAINTY}" if self.uncertainty.value else ""
        self.copy_button.tooltip = (
            "The image was opened from several files: put them into a folder and open that, so that the command line "
            "also sees one stack."
            if several
            else (
                "Copies the command line for the same job to the clipboard, to run it without a graphical "
                f"interface.{without}"
            )
            if path
            else "The image was not opened from a file, so the command line cannot read it."
        )

    def _count_strokes(self) -> None:
        """Let the legend follow strokes and undo: recount what differs in the section on screen."""
        target = None if self._closed else self.target
        if target is None or target.store.shape[-2] * target.store.shape[-1] > MAX_RECOUNT:
            return
        foreign = target.store.count_strokes(view_of(self.viewer, target.image).section)
        self._foreign = f"{foreign:,} pixels here {foreign_labels(target)}" if foreign else ""
        self._show_progress()

    def _watch(self, target: Target | None) -> None:
        """Follow the user's painting in a result layer."""
        layer = None if target is None else target.layer
        if layer is self._watched:
            return
        before, self._watched, self._foreign = self._watched, layer, ""
        # undo and redo do not say "paint", but they show the section anew
        for name in ("paint", "set_data"):
            if before is not None:
                with contextlib.suppress(TypeError, ValueError, RuntimeError):
                    getattr(before.events, name).disconnect(self._strokes_later)
            if layer is not None:
                getattr(layer.events, name).connect(self._strokes_later)

    def _strokes_later(self, _event: Any = None) -> None:
        if not self._closed and not self._strokes.isActive():
            self._strokes.start()

    def _all_done(self) -> bool:
        job, target = self.job(), self.target
        if job is None or target is None or self._image is None or not target.is_job(job, self._image.data):
            return False
        return job.missing(target.done, shape_of(self._image)) == 0

    # ---------------------------------------------------------------- what the buttons do

    def run_or_cancel(self) -> None:
        """Start, or cancel what runs: the one big button."""
        if self.runner.busy:
            self.runner.cancel()
            return
        if self.network_problem() is None and self.card is not None and not self.card.is_current:
            self.load_networks()
        job, card, image = self.job(), self.card, self._image
        if job is None or card is None or image is None or self.problems():
            self.update_state()
            return
        if self._known_pixel_size() is None:
            pixel_size.answer(image, self.pixel_size.value)  # asked and answered
        try:
            stack = stack_of(image)
        except Exception as error:
            say_failure(error)
            return
        self.runner.start(job, card, image, stack)
        self.update_state()

    def _save(self) -> None:
        target, image = self.target, self._image
        if target is None or image is None:
            return
        chosen = dialogs.save_dialog(self, target.layer.name)
        if chosen is not None:
            self.save_to(*chosen)

    def save_to(self, path: Path, form: str) -> None:
        """Write the labels of the chosen image and network to a file, in a worker thread; never over the image."""
        from napari_drososeg.batch.plan import Item, guarded

        target = self.target
        if target is None or self._image is None:
            return
        source = file_of(self._image)
        try:
            if source is not None:
                guarded(Item(Path(source), path))
        except DrososegError as error:
            say_failure(error)
            return
        self._saving = True
        started = time.monotonic()

        def finished(error: Exception | None) -> None:
            self._saving = False
            if error is not None:
                say_failure(error)
            elif time.monotonic() - started > LONG_SECONDS:
                show_info(f"Saved {path}")
            if not self._closed:
                self.runner.message = f"Not saved: {error}" if error is not None else f"Saved {path.name}"
                self.update_state()

        dialogs.save(target, path, form, voxel_size_of(self._image), finished)
        self.update_state()

    def _copy(self) -> None:
        job, image = self.job(), self._image
        path = file_of(image) if image is not None else None
        if job is None or image is None or path is None:
            return
        QApplication.clipboard().setText(command_line(job, path, shape_of(image)[0]))
        without = f" {NO_UNCERTAINTY}" if "entropy" in job.outputs else ""
        self.status.value = f"Command copied to the clipboard.{without}"

    # ---------------------------------------------------------------- the end

    def stop(self) -> None:
        """Stop timers and run, and let go of the viewer."""
        if not self._closed:
            self._life.over = True
            self._later.stop()
            self._strokes.stop()
            self.runner.close()
