"""One run of the Batch widget from Run to Run again: what its process says goes into the table here."""

from __future__ import annotations

import re
import time
from typing import Any

from napari.utils.notifications import show_error, show_info, show_warning
from qtpy.QtCore import QObject, QTimer, Signal

from napari_drososeg._widgets.batch.file_table import FilesModel
from napari_drososeg._widgets.batch.job import BatchJob, in_words
from napari_drososeg._widgets.batch.outlook import FileRow
from napari_drososeg._widgets.batch.process import BatchProcess
from napari_drososeg._widgets.work.job import duration
from napari_drososeg._widgets.work.leaving import when_destroyed
from napari_drososeg._widgets.work.work import LONG_SECONDS, ActivityBar
from napari_drososeg._widgets.work.worker import State

TICK_MS = 50
READ_BUDGET = 0.012
"""Seconds of one tick that may go into what the process said; the event loop stays free in between."""
SHOW_SECONDS = 0.2

DIED = (
    "The worker process was killed, perhaps because memory ran out. Finished results are kept, and Run continues "
    "with the rest."
)


class BatchRunner(QObject):
    """Does one run at a time.

    Parameters
    ----------
    files : FilesModel
        Shows what becomes of the files.

    Attributes
    ----------
    preflight : dict
        What the run will take, as `napari_drososeg.batch.Preflight.to_dict` says it; empty before it is known.

    Signals
    -------
    changed
        State, progress or message are different.
    asked : list of str
        The run is a large one, for these reasons: `go` or `refuse` it.
    """

    changed = Signal()
    asked = Signal(list)

    def __init__(self, files: FilesModel, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.files = files
        self.state = State.IDLE
        self.message = ""
        self.runs_on = ""
        self._process: BatchProcess | None = None
        started = self._processes = []  # outlives the Qt object: napari may delete it without a word
        when_destroyed(self, lambda: [process.leave() for process in started])
        self._bar = ActivityBar()
        self._timer = QTimer(self)
        self._timer.setInterval(TICK_MS)
        self._timer.timeout.connect(self._tick)
        self._clear()

    def _clear(self) -> None:
        self.preflight: dict[str, Any] = {}
        self._notices: dict[str, list[str]] = {}  # by what is the same for all files
        self._error: str | None = None
        self._refused = self._stopping = False
        self._running: dict[str, FileRow] = {}
        self._looked: tuple[int, int] | None = None  # sections looked at, of how many
        self._work = self._work_done = 0.0
        self._started = time.monotonic()
        self._first: float | None = None
        self._show_due = 0.0

    # ---------------------------------------------------------------- what the widget shows

    @property
    def busy(self) -> bool:
        """Whether a run is going on."""
        return self.state is not State.IDLE

    @property
    def fraction(self) -> float | None:
        """Part of the work that is done, None before it has begun."""
        if self._looked is not None:
            return self._looked[0] / max(1, self._looked[1])
        if self._first is None or not self._work:
            return None
        running = sum(row.weight * row.fraction for row in self._running.values())
        return min(1.0, (self._work_done + running) / self._work)

    @property
    def seconds_left(self) -> float | None:
        """Time left at the speed of this run so far."""
        fraction = self.fraction
        if self._first is None or not fraction:
            return None
        return (time.monotonic() - self._first) * (1 - fraction) / fraction

    def told(self) -> list[str]:
        """Return what the run had to say; what it says of many files is said once."""
        kinds = self._notices.values()
        return [texts[0] if len(texts) == 1 else f"{texts[0]} ({len(texts) - 1:,} more like this.)" for texts in kinds]

    # ---------------------------------------------------------------- start and stop

    def start(self, job: BatchJob, title: str) -> None:
        """Start a job; the run before must have ended.

        Raises
        ------
        DrososegError
            If its process cannot be started.
        """
        if self.busy:
            raise RuntimeError("A run is in progress.")
        self._clear()
        self._job = job
        self._process = BatchProcess(job)
        self._processes[:] = [self._process]
        self._bar.begin(f"Segmenting {title}")
        self._set_state(State.LOADING, "Opening the files and loading the network …")
        self._timer.start()

    def go(self) -> None:
        """Start what was asked about."""
        if self._process is not None and self.state is State.LOADING:
            self._process.go()
            self._set_state(State.RUNNING, self.runs_on)

    def cancel(self) -> None:
        """Stop: before the start at once, later after the blocks that are being made. What is done stays."""
        if self._process is None:
            return
        if self.state is State.LOADING:  # nothing is written before it starts
            self._refused = True
            self._set_state(State.CANCELLING, "Cancelling …")
            self._process.leave()
        elif self.state is State.RUNNING:
            self._stopping = True
            self._set_state(State.CANCELLING, "Cancelling: finishing the current block first …")
            self._process.stop()

    def close(self) -> None:
        """Stop for good: the widget or the viewer goes away. The process ends by itself and keeps what is done."""
        self._timer.stop()
        if self._process is not None:
            process, self._process = self._process, None
            process.leave()
        self._bar.close()
        self.state = State.IDLE

    # ---------------------------------------------------------------- what the process says

    def _tick(self) -> None:
        process, until = self._process, time.monotonic() + READ_BUDGET
        while process is not None and process.said and time.monotonic() < until:
            line = process.said.popleft()
            if line["event"] == "over":
                self._end(line["code"], line["text"])
                return
            self._take(line)
        if self._bar.cancelled:
            self.cancel()
        now = time.monotonic()
        if now >= self._show_due:
            self.files.flush()
            self._bar.show(self.fraction)
            self.changed.emit()
            took = time.monotonic() - now
            self._show_due = now + took + max(SHOW_SECONDS, 4 * took)

    def _take(self, line: dict[str, Any]) -> None:
        event = line["event"]
        if event == "plan":
            self._take_plan(line["items"])
        elif event == "ready":
            self._take_ready(line)
        elif event in ("notice", "fault"):
            text = in_words(line["text"])
            self._notices.setdefault(re.sub(r"'.*?'", "", text), []).append(text)
        elif event == "error":
            self._error = in_words(line["text"])
        elif event == "end":
            self.runs_on = line["runs_on"] or self.runs_on
        elif event == "looking":
            self._looked = (line.get("done", 0), line.get("total", 0))
        elif row := self.files.row_of(line.get("input", "")):
            self._take_file(event, row, line)
            self.files.touch(row)

    def _take_plan(self, items: list[list[str]]) -> None:
        if {row.source for row in self.files.rows} != {source for source, _ in items}:
            self.files.show_rows([FileRow(source, target) for source, target in items])
        targets = dict(map(tuple, items))
        for row in self.files.rows:
            if row.state == "done" and not self._job.overwrite:
                continue
            row.state, row.fraction, row.seconds, row.note = "waiting", 0.0, None, ""
            row.target, row.findings, row.classes = targets[row.source], [], []
            self.files.touch(row)
        self._work = sum(row.weight for row in self.files.rows)

    def _take_ready(self, line: dict[str, Any]) -> None:
        self.preflight, self.runs_on = line["preflight"], line["runs_on"]
        concerns = [in_words(text) for text in self.preflight.get("concerns", [])]
        if concerns and self.state is State.LOADING:
            self.message = "Waiting for an answer …"
            self.changed.emit()
            self.asked.emit(concerns)
        else:
            self.go()

    def _take_file(self, event: str, row: FileRow, line: dict[str, Any]) -> None:
        if event == "finding":
            row.findings.append({key: line[key] for key in ("section", "kind", "detail")})
            return
        if event == "finished":
            self._take_outcome(row, line)
            return
        self._looked = None
        self._first = self._first or time.monotonic()
        self._running[row.source] = row
        text = str(line.get("text", ""))
        row.state = "running"
        row.note = "smaller levels" if text.startswith("level") else "drawing overlays" if text == "overlays" else ""
        row.fraction = 1.0 if row.note else line.get("done", 0) / max(1, line.get("total", 0))

    def _take_outcome(self, row: FileRow, line: dict[str, Any]) -> None:
        before = line["state"] == "skipped"
        row.state = "done" if before else line["state"]
        row.note = "done before" if before else in_words(line["error"] or "")
        row.seconds = None if before else line["seconds"]
        row.target, row.findings, row.classes = line["output"], line["findings"] or row.findings, line["classes"]
        self._running.pop(row.source, None)
        if before:
            self._work -= row.weight
        else:
            self._work_done += row.weight

    # ---------------------------------------------------------------- the end

    def _end(self, code: int, last_words: str) -> None:
        self._timer.stop()
        self._process = None
        self._bar.close()
        seconds = time.monotonic() - self._started
        if code and self._error is None and not self._refused:
            self._error = last_words if code > 0 and last_words else DIED
        for row in self.files.rows:
            if row.state == "running":
                row.state, row.note = "stopped", ""
                self.files.touch(row)
            elif self._error is not None and len(self.files.rows) == 1:  # what is wrong with the only file ends the run
                row.state, row.note = "failed", self._error
                self.files.touch(row)
        self.files.flush()
        failed = self.files.counts().get("failed", 0)
        self._set_state(State.IDLE, self._last_message(seconds))
        if self._error is not None:
            show_error(self._error)
        elif failed and not self._stopping and not self._refused:
            show_warning(f"{self.files.summary()}. The table gives the reasons.")
        elif seconds > LONG_SECONDS and not self._stopping and not self._refused:
            show_info(self.message)

    def _last_message(self, seconds: float) -> str:
        if self._error is not None:
            return f"Failed: {self._error}"
        if self._refused:
            return "Not started."
        if self._stopping:
            return f"Cancelled: {self.files.summary()}. Press Run to do the rest."
        runs_on = f" ({self.runs_on})" if self.runs_on else ""
        return f"{self.files.summary()}. Took {duration(seconds)}{runs_on}."

    def _set_state(self, state: State, message: str) -> None:
        self.state, self.message = state, message
        self.changed.emit()
