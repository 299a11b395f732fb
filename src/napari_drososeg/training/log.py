"""The log of a training: one CSV row an event."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from types import TracebackType

from napari_drososeg.errors import DrososegError
from napari_drososeg.io import atomic
from napari_drososeg.training.config import TrainEvent

COLUMNS = ("step", "loss", "learning_rate", "seconds", "validation_loss", "mean_iou")


class TrainLog:
    """Append events to a CSV file; rows after the step that a run resumes from are made again, so they go first.

    Parameters
    ----------
    path : Path or None
        The file; None writes nothing.
    step : int
        Where the run resumes, 0 at its start.
    n_classes : int
        Columns ``iou_1``, ``iou_2``, ... are added for each.
    """

    def __init__(self, path: Path | None, step: int, n_classes: int) -> None:
        self._file: io.TextIOWrapper | None = None
        if path is None:
            return
        header = [*COLUMNS, *(f"iou_{c}" for c in range(1, n_classes + 1))]
        text = io.StringIO(newline="")
        csv.writer(text).writerows([header, *self._rows_until(path, step)])
        atomic.write_bytes(path, text.getvalue().encode())
        self._file = path.open("a", newline="", encoding="utf-8")

    @staticmethod
    def _rows_until(path: Path, step: int) -> list[list[str]]:
        if not step or not path.exists():
            return []
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            text = file.read()
        whole = text[: text.rfind("\n") + 1]  # the last row may be half a row, if the power failed
        rows = list(csv.reader(io.StringIO(whole, newline="")))[1:]
        return [row for row in rows if row and row[0].isdecimal() and int(row[0]) <= step]

    def write(self, event: TrainEvent) -> None:
        """Append a row.

        Raises
        ------
        DrososegError
            If the disk is full.
        """
        if self._file is None:
            return
        row = [event.step, f"{event.loss:.6g}", f"{event.learning_rate:.6g}", f"{event.seconds:.1f}"]
        if event.scores is not None:
            row += [f"{v:.6g}" for v in (event.validation_loss or 0.0, event.scores.mean_iou, *event.scores.iou)]
        try:
            csv.writer(self._file).writerow(row)
            self._file.flush()
        except OSError as error:
            raise DrososegError(f"Cannot write '{self._file.name}': {error.strerror or error}.") from error

    def __enter__(self) -> TrainLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
