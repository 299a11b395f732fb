"""The Evaluate widget: a labels layer against a true one, as tables and as a layer of the wrong pixels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Image, Labels
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication, QFileDialog, QWidget

from napari_drososeg._widgets.controls import preferences
from napari_drososeg._widgets.evaluate import checks
from napari_drososeg._widgets.evaluate.comparing import Comparer, Comparison
from napari_drososeg._widgets.evaluate.form import EvaluateForm
from napari_drososeg._widgets.evaluate.score_tables import COLUMNS, as_text, confusion_rows, number, score_rows
from napari_drososeg._widgets.files import dialogs
from napari_drososeg._widgets.layers.error_maps import is_error_map
from napari_drososeg._widgets.layers.images import shape_of, view_of
from napari_drososeg._widgets.layers.targets import Targets
from napari_drososeg._widgets.work.failures import say_failure
from napari_drososeg._widgets.work.job import duration
from napari_drososeg._widgets.work.worker import State
from napari_drososeg.errors import DrososegError

if TYPE_CHECKING:
    import napari

    from napari_drososeg.metrics import Scores

REMEMBERED = ("in_view", "error_map", "averaged", "in_pixels")


class EvaluateWidget(EvaluateForm):
    """Compare a labels layer with a true one.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        The viewer whose layers are compared. napari gives plugins a proxy of it.
    """

    def __init__(self, napari_viewer: napari.Viewer, parent: QWidget | None = None) -> None:
        # the proxy hands out proxies of layers, which are not equal to those that the viewer holds
        self.viewer = getattr(napari_viewer, "__wrapped__", napari_viewer)
        super().__init__(parent)
        self.comparer = Comparer(self.viewer, self)
        self._values = checks.KnownValues()
        self._watched: list[Any] = []
        self._picked: dict[str, Any] = {}  # the layers that the user chose
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.setInterval(150)
        self._later.timeout.connect(self.update_state)
        preferences.restore("evaluate", self, REMEMBERED)
        self._connect()
        self.reset_choices()

    def _connect(self) -> None:
        self.closing.connect(self.stop)
        self.undocked.connect(self.comparer.close)
        for combo in (self.labels, self.truth):
            combo.changed.connect(self._pick)
        for field in (self.in_view, self.error_map):
            field.changed.connect(self.update_state)
        for name in REMEMBERED:
            getattr(self, name).changed.connect(self._remember)
        for field in (self.averaged, self.in_pixels):
            field.changed.connect(self._show_result)
        self.sample_button.clicked.connect(lambda: dialogs.open_sample(self.viewer, self.sample_button, self._life))
        self.run_button.clicked.connect(self.run_or_cancel)
        self.copy_button.clicked.connect(self._copy)
        self.save_button.clicked.connect(self._save)
        self.comparer.changed.connect(self._show_run)
        events = self.viewer.layers.events
        for event in (events.inserted, events.removed, events.reordered, events.renamed):
            event.connect(self.reset_choices)
        self.viewer.dims.events.point.connect(self._look_later)

    def _remember(self, _changed: Any = None) -> None:
        preferences.update("evaluate", {name: getattr(self, name).value for name in REMEMBERED})

    # ---------------------------------------------------------------- what is chosen

    def reset_choices(self, _event: Any = None) -> None:
        """Read the viewer's layers again. napari calls this when layers come, go or are renamed."""
        if self._closed:
            return
        self.comparer.let_go()
        self._picked = {name: layer for name, layer in self._picked.items() if layer in self.viewer.layers}
        layers = [x for x in self.viewer.layers if isinstance(x, Labels) and not is_error_map(x)]
        others = [x for x in self.viewer.layers if isinstance(x, Image) and not x.rgb and x.dtype.kind in "ui"]
        labels, truth = checks.propose(layers, self._picked.get("labels"), self._picked.get("truth"))
        for combo, chosen in ((self.labels, labels), (self.truth, truth)):
            with combo.changed.blocked():
                combo.choices = [(layer.name, layer) for layer in (*layers, *others)] if layers else []
                if chosen is not None:
                    combo.value = chosen
        self.empty.visible = len(layers) < 2
        self._watch(layers)
        self.update_state()

    def _pick(self, _layer: Any = None) -> None:
        self._picked = {"labels": self.labels.value, "truth": self.truth.value}
        self.update_state()

    def _watch(self, layers: list[Any]) -> None:
        """Follow the user's painting in the layers, which changes what can be compared."""
        for layer in layers:
            if not any(layer is known for known in self._watched):
                for event in (layer.events.paint, layer.events.set_data, layer.events.data):
                    event.connect(self._altered)  # undo says "set_data", as each step through the sections does
        self._watched = layers

    def _altered(self, event: Any) -> None:
        layer = event.source
        if event.type == "data" or layer.multiscale or layer.ndim not in (2, 3):
            self._values.forget(layer)
        else:
            self._values.forget(layer, view_of(self.viewer, layer).section)
        self._look_later()

    def _look_later(self, _event: Any = None) -> None:
        if not self._closed and not self._later.isActive() and not self.comparer.busy:
            self._later.start()

    def job(self) -> Comparison | None:
        """Return what Evaluate would do, or None where the form does not say it yet."""
        labels, truth = self.labels.value, self.truth.value
        if labels is None or truth is None or checks.layer_problem(labels):
            return None
        classes = checks.classes_for(labels, truth)
        sections, _ = self._sections(labels)
        return Comparison(labels, truth, classes, sections, bool(self.error_map.value))

    def _sections(self, labels: Labels) -> tuple[tuple[int, ...], str]:
        """Sections to compare, and what is to be known of that."""
        in_view = view_of(self.viewer, labels).section if self.in_view.value else None
        target = Targets(self.viewer).of_layer(labels)
        return checks.sections_of(target, shape_of(labels)[0], in_view)

    def problems(self) -> dict[str, str]:
        """Fields that cannot work, with the reason."""
        job = self.job()
        sections = job.sections if job is not None else ()
        return checks.problems(self.labels.value, self.truth.value, sections, self._values)

    # ---------------------------------------------------------------- what is shown

    def update_state(self) -> None:
        """Bring marks, texts and buttons up to date with what is chosen."""
        if self._closed:
            return
        problems = self.problems()
        self.mark_all(problems)
        self._show_coverage(bool(problems))
        self._show_run(problems)

    def _show_coverage(self, cannot: bool) -> None:
        labels = self.labels.value
        self.coverage.value = "" if cannot else self._sections(labels)[1]
        self.coverage.visible = bool(self.coverage.value)

    def _show_run(self, problems: dict[str, str] | None = None) -> None:
        state, comparer = self.comparer.state, self.comparer
        if problems is None:
            problems = {} if comparer.busy else self.problems()
        self.choice.enabled = not comparer.busy
        reason = next(iter(problems.values()), "") if not comparer.busy else ""
        self.problem.value, self.problem.visible = reason, bool(reason)
        button = self.run_button
        if comparer.busy:
            button.text = "Cancelling" if state is State.CANCELLING else "Cancel"
            button.enabled = state is not State.CANCELLING
            button.tooltip = "Stops; the scores of finished sections are kept."
        else:
            button.text, button.enabled = "Evaluate", not problems
            button.tooltip = reason or "Counts the pixels on which the two layers agree. Neither layer is changed."
        self.progress.visible = comparer.busy
        self.progress.value = int(100 * (comparer.fraction or 0)) if comparer.busy else 0
        left = comparer.seconds_left if comparer.busy else None
        percent = f"{self.progress.value} %, {duration(left)} left · " if left is not None else ""
        notices = comparer.result.notices if comparer.result is not None and not comparer.busy else ()
        # where what is chosen now cannot be judged, the heading of the tables says what was
        message = "" if reason and comparer.result is not None else comparer.message
        self.status.value = "\n".join(line for line in (f"{percent}{message}", *notices) if line)
        self.status.visible = bool(self.status.value)
        if not comparer.busy:
            self._show_result()

    @property
    def scores(self) -> Scores | None:
        """What the table shows: pooled or averaged scores of the last comparison."""
        result = self.comparer.result
        if result is None:
            return None
        return result.averaged if self.averaged.value else result.pooled

    def _show_result(self) -> None:
        result, scores = self.comparer.result, self.scores
        self.results.setVisible(result is not None)
        if result is None or scores is None:
            return
        names = result.classes.names
        n = len(result.sections)
        total = self.comparer.n_sections
        some = f"{n} of {total}" if n < total else f"{n}"
        self.heading.value = f"{self.comparer.title}, {some} section{'s' if total > 1 else ''}"
        self.table.show_rows(list(COLUMNS), score_rows(scores, names), list(COLUMNS.values()))
        self.accuracies.value = (
            f"Mean IoU {number(scores.mean_iou)}, pixel accuracy {number(scores.pixel_accuracy)}, "
            f"mean pixel accuracy {number(scores.mean_pixel_accuracy)}, of {scores.pixels:,} pixels with a truth."
        )
        unit = "pixels" if self.in_pixels.value else "per cent of each"
        self.confusion_text.value = f"Confusion: true classes (rows), {unit} by label (columns)"
        values = [str(c.value) for c in result.classes]
        rows = confusion_rows(result, counts=self.in_pixels.value)
        tips = [f"Labelled {name}." for name in (*names, "nothing")]
        self.confusion.show_rows([*values, "none"], rows, tips)

    # ---------------------------------------------------------------- what the buttons do

    def run_or_cancel(self) -> None:
        """Start, or cancel what runs: the one big button."""
        if self.comparer.busy:
            self.comparer.cancel()
            return
        job = self.job()
        if job is None or self.problems():
            self.update_state()
            return
        try:
            self.comparer.start(job)
        except Exception as error:
            say_failure(error)

    def table_text(self) -> str:
        """Both tables with tabs between the cells."""
        result, scores = self.comparer.result, self.scores
        if result is None or scores is None:
            return ""
        names = result.classes.names
        kind = "mean over sections" if self.averaged.value else "pooled"
        table = as_text(kind, list(COLUMNS), score_rows(scores, names))
        unit = "pixels" if self.in_pixels.value else "per cent"
        rows = confusion_rows(result, counts=self.in_pixels.value)
        confusion = as_text(f"{unit} of true class", [*(f"labelled {name}" for name in names), "unlabelled"], rows)
        return f"{table}\npixel accuracy\t{number(scores.pixel_accuracy)}\n\n{confusion}\n"

    def _copy(self) -> None:
        QApplication.clipboard().setText(self.table_text())
        self._say("Tables copied to the clipboard.")

    def _save(self) -> None:
        name = f"{self.labels.current_choice or 'labels'} scores.csv"
        chosen, _ = QFileDialog.getSaveFileName(self, "Save scores", name, "CSV (*.csv)")
        if chosen:
            path = Path(chosen)
            self.save_to(path if path.suffix else path.with_suffix(".csv"))

    def save_to(self, path: Path) -> None:
        """Write the scores of every section as a CSV file, as ``drososeg evaluate --csv`` does."""
        from napari_drososeg.evaluation import write_csv

        if self.comparer.result is None:
            return
        try:
            write_csv(path, self.comparer.result)
        except DrososegError as error:
            say_failure(error)
            return
        self._say(f"Saved {path.name}")

    def _say(self, text: str) -> None:
        self.status.value, self.status.visible = text, True

    # ---------------------------------------------------------------- the end

    def stop(self) -> None:
        """Stop timers and comparison, and let go of the viewer."""
        if not self._closed:
            self._life.over = True
            self._later.stop()
            self.comparer.close()
