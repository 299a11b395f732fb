"""One round from Retrain to Retrain again: the image is made ready, a process trains, its events are shown."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from napari.qt.threading import create_worker
from qtpy.QtCore import QObject, QTimer, Signal

from napari_drososeg._widgets.retrain.annotating import is_image
from napari_drososeg._widgets.retrain.training_process import TrainingProcess
from napari_drososeg._widgets.retrain.training_state import TrainingState, arguments
from napari_drososeg._widgets.work.job import duration
from napari_drososeg._widgets.work.work import ActivityBar
from napari_drososeg.errors import DrososegError

if TYPE_CHECKING:
    from napari_drososeg.io import Stack
    from napari_drososeg.workspace import Workspace
    from napari_drososeg.workspace.recipes import RetrainSettings

POLL_MS = 100
PATIENCE = 300.0
"""Seconds after Stop until the process is ended, and its round with it; where much is annotated, fitting and scoring
may take minutes."""

SHOW_SECONDS = 1.0
"""Between two looks at the progress: each makes the whole window be put together anew, which is taken from the training
where it is done in software."""

Prepared = tuple[object, Path | None, Exception | None]
"""For which press of Retrain, the file of the image, and what went wrong."""


class Stage(Enum):
    """Where a round is. The widget's button says the same."""

    IDLE = "idle"
    TRAINING = "training"
    STOPPING = "stopping"


class TrainingRun(QObject):
    """Trains one round at a time.

    Attributes
    ----------
    state : TrainingState
        Of the round that is being trained, or of the last one.
    wall : float
        Seconds that it took, from the press to the end.

    Signals
    -------
    changed
        There is something new to show.
    finished : object
        The error in words, or None; `state.round` has the round.
    """

    changed = Signal()
    finished = Signal(object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.stage = Stage.IDLE
        self.state = TrainingState()
        self.wall = 0.0
        self._process: TrainingProcess | None = None
        self._press: object = None
        self._bar = ActivityBar()
        self._news, self._shown = False, 0.0
        self._timer = QTimer(self)
        self._timer.setInterval(POLL_MS)
        self._timer.timeout.connect(self._poll)

    @property
    def busy(self) -> bool:
        """Whether a round is being trained."""
        return self.stage is not Stage.IDLE

    @property
    def pid(self) -> int | None:
        """Number of the process, None where there is none."""
        return self._process.pid if self._process is not None else None

    def start(self, folder: Path, settings: RetrainSettings, image: Callable[[], Path | None], name: str) -> None:
        """Begin.

        Parameters
        ----------
        folder : Path
            Of the workspace; what was painted is on disk.
        settings : RetrainSettings
            How.
        image : callable
            Gives the file of the image, None for the one the workspace names; called in a thread.
        name : str
            Of the image, for the activity dock.
        """
        if self.busy:
            raise RuntimeError("A round is being trained.")
        self.stage, self.state = Stage.TRAINING, TrainingState()
        self._begin = time.monotonic()
        self._job = folder, settings
        self._bar.begin(f"Retraining on {name}")
        press = self._press = object()

        def prepare() -> Prepared:
            try:
                return press, image(), None
            except Exception as error:
                return press, None, error

        worker = create_worker(prepare, _start_thread=False)
        worker.returned.connect(self._prepared)
        worker.start()
        self._timer.start()
        self.changed.emit()

    def stop(self) -> None:
        """End the training now, and keep the best so far."""
        if self.stage is not Stage.TRAINING:
            return
        if self._process is None:
            self._end(None)
            return
        self.stage = Stage.STOPPING
        self._stopped = time.monotonic()
        self._process.stop()
        self.changed.emit()

    def close(self) -> None:
        """Let go: the widget or napari goes away. A round that has learnt something ends by itself and is kept."""
        self._timer.stop()
        self.stage = Stage.IDLE
        if self._process is not None:
            process, self._process = self._process, None
            if self.state.step:
                process.stop()
            else:
                process.kill()
            process.close()
        self._bar.close()

    # ---------------------------------------------------------------- from the thread and the process

    def _prepared(self, prepared: Prepared) -> None:
        press, image, failure = prepared
        if self.stage is not Stage.TRAINING or press is not self._press:
            return  # stopped before it began, and perhaps begun again
        if failure is not None:
            self._end(str(failure))
            return
        folder, settings = self._job
        try:
            self._process = TrainingProcess([*arguments(folder, settings, image), "--json"])
        except DrososegError as error:
            self._end(str(error))
            return
        self.state.phase = "starting"
        self.changed.emit()

    def _poll(self) -> None:
        process = self._process
        if process is None:  # the image is being made ready
            if self._bar.cancelled:
                self.stop()
            return
        over = process.over  # before reading: what it said last must not be missed
        events = process.events()
        phase = self.state.phase
        for event in events:
            self.state.take(event)
        self._news |= bool(events)
        if self._bar.cancelled:
            self.stop()
        late = self.stage is Stage.STOPPING and time.monotonic() > self._stopped + PATIENCE
        if late and not over and self.state.round is None:
            process.kill()
            self._end(
                f"The training did not stop within {duration(PATIENCE)} and was terminated: nothing of it is kept."
            )
            return
        if self.state.round is not None:  # all is on disk; what libraries do at the end of a process takes seconds
            process.kill()
        if over or self.state.round is not None:
            self._end(None)
        elif self._news and (self.state.phase != phase or time.monotonic() > self._shown + SHOW_SECONDS):
            self._news, self._shown = False, time.monotonic()
            self._bar.show(self.state.fraction)
            self.changed.emit()

    def _end(self, error: str | None) -> None:
        self._timer.stop()
        self.wall = time.monotonic() - self._begin
        if self._process is not None:
            process, self._process = self._process, None
            reason = process.close() or "The training ended without a message; see the log of napari."
            if self.state.round is None:
                error = error or reason
        self._bar.close()
        self.stage = Stage.IDLE
        self.changed.emit()
        self.finished.emit(error)


def image_file(stack: Stack, workspace: Workspace, path: str | None, sections: Iterable[int]) -> Path | None:
    """Find a file that another process can read the image from; copy sections into the workspace where there is none.

    Parameters
    ----------
    stack : Stack
        The image as the viewer has it.
    workspace : Workspace
        Of the image.
    path : str or None
        Where the layer was opened from.
    sections : iterable of int
        Those that are needed, besides the annotated ones.

    Returns
    -------
    Path or None
        None where the workspace knows the file, or has the copies.

    Raises
    ------
    DrososegError
        If the sections cannot be written.
    """
    for candidate in (workspace.image.path, path):
        if candidate is not None and is_image(candidate, workspace.image):
            return None if candidate == workspace.image.path else Path(candidate)
    workspace.copy.add(stack, {*sections, *workspace.sections})
    return None
