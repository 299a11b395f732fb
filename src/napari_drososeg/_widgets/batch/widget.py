"""The Batch widget: a folder of images to a folder of labels, unattended; its table says what became of each file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.qt.threading import create_worker
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication, QFileDialog, QMenu, QMessageBox, QWidget

from napari_drososeg._widgets.batch.choice import REMEMBERED, BatchChoice
from napari_drososeg._widgets.batch.opening import show_result
from napari_drososeg._widgets.batch.outlook import FileRow
from napari_drososeg._widgets.batch.record import RecordDialog
from napari_drososeg._widgets.batch.running import BatchRunner
from napari_drososeg._widgets.controls.fields import show_fraction
from napari_drososeg._widgets.files.sample_data import synthetic_folder
from napari_drososeg._widgets.work.failures import say_failure
from napari_drososeg._widgets.work.job import duration
from napari_drososeg._widgets.work.worker import State

if TYPE_CHECKING:
    import napari


class BatchWidget(BatchChoice):
    """Segment many files, or a volume larger than memory, into a folder.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        The viewer that results are opened in. napari gives plugins a proxy of it.
    """

    def __init__(self, napari_viewer: napari.Viewer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.viewer = getattr(napari_viewer, "__wrapped__", napari_viewer)
        self.runner = BatchRunner(self.table.files, self)
        self._question: QMessageBox | None = None
        self._was_busy = False
        self._confirmed = False
        self.load_networks()
        self._restore()
        self._connect()
        self.look_soon()

    def _connect(self) -> None:
        self.closing.connect(self.stop)
        self.undocked.connect(self.runner.close)
        self.altered.connect(self.update_state)
        self.looked.connect(self._show_outlook)
        for name in (*REMEMBERED, "network"):
            getattr(self, name).changed.connect(self._remember)
        for field in (
            self.source, self.files, self.pattern, self.subfolders, self.network, self.output, self.form, self.areas,
            self.overlays, self.probabilities, self.existing, *self.how, self.pixel_size, self.workers,
            self.check_sections,
        ):  # fmt: skip
            field.changed.connect(self.look_soon)
        self.source.changed.connect(self._propose_output)
        self.source_button.clicked.connect(lambda: self._source_menu())
        self.output_button.clicked.connect(lambda: self._choose_output())
        self.sample_button.clicked.connect(lambda: self._make_sample())
        self.run_button.clicked.connect(lambda: self.run_or_cancel())
        self.record_button.clicked.connect(lambda: self.open_record())
        self.copy_button.clicked.connect(lambda: self._copy())
        self.table.opened.connect(self.open_file)
        self.table.chosen.connect(self._show_detail)
        self.runner.changed.connect(self._show_run)
        self.runner.asked.connect(self._ask)

    # ---------------------------------------------------------------- what is shown

    def update_state(self) -> None:
        """Bring marks, texts, table and buttons up to date with what is chosen."""
        if self._closed or self.runner.busy:
            return
        self.pattern.enabled = self.subfolders.enabled = not self.files.value
        self.empty.visible = not self.source.value.strip()
        self.probe()
        problems = self.problems()
        self.mark_all(problems)
        self._show_texts()
        self._show_run(problems)

    def _show_outlook(self) -> None:
        """Show the files of another choice; after a run its outcomes stay."""
        if self.outlook is not None and self.shown_job != self.looked_job and not self.runner.busy:
            self.shown_job = self.looked_job
            self.table.files.show_rows(self.outlook.rows)
            self.runner.message = ""
        self.update_state()

    def _show_run(self, problems: dict[str, str] | None = None) -> None:
        if self._closed:
            return
        runner, state = self.runner, self.runner.state
        if self._was_busy and not runner.busy:
            self._was_busy = False
            self._close_question()
            self.probe(again=True)  # the speed is known better now
            self.look_soon()
        self._was_busy = runner.busy
        if problems is None:
            problems = {} if runner.busy else self.problems()
        for part in self.choice:
            part.enabled = not runner.busy
        reason = next(iter(problems.values()), "") if not runner.busy else ""
        self.problem.value, self.problem.visible = reason, bool(reason and self.source.value.strip())
        button = self.run_button
        if runner.busy:
            button.text = "Cancelling" if state is State.CANCELLING else "Cancel"
            button.enabled = state is not State.CANCELLING
            button.tooltip = (
                "Finishes the current block and stops. Finished results are kept; press Run again to do the rest."
            )
        else:
            button.text, button.enabled = "Run", not problems and self.looked_job == self.job()
            button.tooltip = reason or "Segments all files in the table that are not done."
        self._show_progress()
        job, outlook = self.job(), self.outlook
        known = outlook is not None and outlook.recorded and self.looked_job == job
        recorded = job is not None and (known or runner.busy)  # not asked of the disk here, which may be far away
        self.record_button.enabled = recorded
        self.record_button.tooltip = (
            "Shows what was done, with which network and settings, from which files, and what went wrong."
            if recorded
            else "There is no record in the output folder yet."
        )
        self.copy_button.enabled = job is not None
        self.copy_button.tooltip = (
            "Copies the command line for the same job to the clipboard, to run it without a graphical interface."
        )

    def _show_progress(self) -> None:
        runner = self.runner
        fraction, left = runner.fraction, runner.seconds_left
        self.progress.visible = runner.busy
        show_fraction(self.progress, fraction)
        text = runner.message
        if runner.state is State.RUNNING and fraction is not None:
            looking = "Looking for unusual sections" if left is None else self.table.files.summary()
            time_left = f", {duration(left)} left" if left is not None else ""
            text = f"{100 * fraction:.0f} %{time_left} · {looking}"
        self.status.value = "\n".join(dict.fromkeys(line for line in (text, *runner.told()) if line))
        self.status.visible = bool(self.status.value)
        has_rows = bool(self.table.files.rows)
        self.table.setVisible(has_rows)
        card, counts = self.card, self._class_counts()
        self.legend.setVisible(counts is not None)
        if counts is not None and card is not None and card.spec is not None:
            self.legend.set_classes(card.spec.classes)
            self.legend.set_counts(counts)

    def _show_detail(self, row: FileRow | None) -> None:
        self.detail.value = self.table.files.tip(row) if row is not None else ""
        self.detail.visible = row is not None

    def _class_counts(self) -> Any:
        """Pixels of each label value in all files that were done or skipped by this run, None for none."""
        spec = self.card.spec if self.card is not None else None
        rows = [row for row in self.table.files.rows if row.classes]
        if spec is None or not rows or any(len(row.classes) != len(spec.classes) for row in rows):
            return None
        return np.concatenate([[0], np.sum([[c["pixels"] for c in row.classes] for row in rows], axis=0)])

    # ---------------------------------------------------------------- running

    def run_or_cancel(self) -> None:
        """Start, or cancel what runs: the one big button."""
        if self.runner.busy:
            self.runner.cancel()
            return
        job, outlook = self.job(), self.outlook
        if job is None or outlook is None or self.problems() or self.looked_job != job:
            self.update_state()
            return
        if outlook.replaces and not self._confirmed:
            self._ask([f"it replaces {outlook.replaces} of the existing outputs"])
            return
        self._confirmed = False
        self.shown_job = job
        try:
            self.runner.start(job, Path(job.source).name)
        except Exception as error:
            say_failure(error)

    def _ask(self, concerns: list[str]) -> None:
        """Ask about a large run, or one that replaces something."""
        flight = self.runner.preflight if self.runner.busy else {}
        lines = ["Start this run?", *(f"• {text[:1].upper()}{text[1:]}." for text in concerns)]
        if flight:
            lines.append(
                f"{flight['n_items']} to do, {flight['n_done']} done; {flight['pixels'] / 1e6:,.0f} Mpx; at most "
                f"{flight['bytes_needed'] / 1e9:.1f} GB on disk, {flight['bytes_free'] / 1e9:.1f} GB free; about "
                f"{flight['bytes_of_memory'] / 1e9:.1f} GB of memory per worker."
            )
        buttons = QMessageBox.StandardButton.Yes | QMessageBox.StandardButton.No
        self._question = QMessageBox(QMessageBox.Icon.Question, "Batch predict", "\n".join(lines), buttons, self)
        self._question.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self._question.finished.connect(self._answered)
        self._question.open()

    def _answered(self, answer: int) -> None:
        yes, self._question = answer == QMessageBox.StandardButton.Yes.value, None
        if self.runner.busy:
            (self.runner.go if yes else self.runner.cancel)()
        elif yes:
            self._confirmed = True
            self.run_or_cancel()

    def _close_question(self) -> None:
        if self._question is not None:
            question, self._question = self._question, None
            question.finished.disconnect()
            question.close()

    # ---------------------------------------------------------------- what the other buttons do

    def open_file(self, row: FileRow) -> None:
        """Show the image of a file, and its labels if it is done, in the viewer."""
        title = self.card.title if self.card is not None else ""
        show_result(self.viewer, row, title)

    def open_record(self) -> None:
        """Show the record in a window."""
        job = self.job()
        if job is not None and job.record.is_file():  # of a run that has just been started, it may not be there yet
            RecordDialog(job.record, self).show()

    def _copy(self) -> None:
        job = self.job()
        if job is not None:
            QApplication.clipboard().setText(job.command())
            self.status.value, self.status.visible = "Command copied to the clipboard.", True

    def _source_menu(self) -> None:
        menu = QMenu(self)
        menu.addAction("Folder, or zarr…").triggered.connect(
            lambda: self._take_path(self.source, QFileDialog.getExistingDirectory(self, "Folder of images"))
        )
        menu.addAction("File…").triggered.connect(
            lambda: self._take_path(self.source, QFileDialog.getOpenFileName(self, "Image")[0])
        )
        button = self.source_button.native
        menu.popup(button.mapToGlobal(button.rect().bottomLeft()))

    def _choose_output(self) -> None:
        self._take_path(self.output, QFileDialog.getExistingDirectory(self, "Folder for the labels"))

    def _take_path(self, field: Any, path: str) -> None:
        if path:
            field.value = path

    def _make_sample(self) -> None:
        self.sample_button.enabled = False
        worker = create_worker(synthetic_folder, _start_thread=False)
        worker.returned.connect(lambda folder: self._closed or self._take_path(self.source, str(folder)))
        worker.errored.connect(say_failure)
        worker.finished.connect(lambda: self._closed or setattr(self.sample_button, "enabled", True))
        worker.start()

    # ---------------------------------------------------------------- the end

    def stop(self) -> None:
        """Stop timers and run, and let go of the viewer."""
        if not self._closed:
            self._life.over = True
            self._later.stop()
            self.runner.close()
