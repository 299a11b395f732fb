"""Tables of an evaluation: the scores of each class, and which class was taken for which."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtGui import QResizeEvent
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QSizePolicy, QTableWidget, QTableWidgetItem, QWidget

if TYPE_CHECKING:
    from napari_drososeg.evaluation import Evaluation
    from napari_drososeg.metrics import Scores

COLUMNS = {
    "IoU": "Intersection over union: of all pixels of this class in either layer, the share that has it in both.",
    "F1": "F1, the Dice coefficient: twice the overlap divided by the sum of both areas.",
    "prec.": "Precision: of the pixels labelled as this class, the share that is correct.",
    "recall": "Of the pixels of this class in the truth, the share that was found. Its mean is the mean pixel "
    "accuracy.",
}

Rows = list[tuple[str, list[str]]]
"""Name of each row and its cells."""


def number(value: float) -> str:
    """Write a score with three digits; a dash where it is not defined."""
    return "–" if math.isnan(value) else f"{value:.3f}"


def score_rows(scores: Scores, names: Sequence[str]) -> Rows:
    """One row for each class and one of the means, in the order of `COLUMNS`."""
    each = zip(scores.iou, scores.f1, scores.precision, scores.recall, strict=True)
    rows = [(name, [number(v) for v in values]) for name, values in zip(names, each, strict=True)]
    means = (scores.mean_iou, scores.mean_f1, _mean(scores.precision), scores.mean_pixel_accuracy)
    return [*rows, ("mean", [number(v) for v in means])]


def confusion_rows(result: Evaluation, *, counts: bool) -> Rows:
    """One row for each true class: pixels of it by label, as counts or in per cent of the row."""
    rows: Rows = []
    for c, row in zip(result.classes, result.confusion, strict=True):
        total = int(row.sum())
        share = [f"{100 * v / total:.1f}" if total else "–" for v in row]
        rows.append((f"{c.value} {c.name}", [f"{v:,}" for v in row] if counts else share))
    return rows


def as_text(corner: str, columns: Sequence[str], rows: Rows) -> str:
    """Return a table with tabs between its cells, as spreadsheets take it."""
    return "\n".join("\t".join(line) for line in ([corner, *columns], *([name, *cells] for name, cells in rows)))


def _mean(values: Sequence[float]) -> float:
    known = [v for v in values if not math.isnan(v)]
    return sum(known) / len(known) if known else math.nan


class NumberTable(QTableWidget):
    """A table to read, as high as its rows; it scrolls sideways where it is too wide."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.setWordWrap(False)
        self.setTabKeyNavigation(False)  # the Tab key goes on to the next control
        for header in (self.horizontalHeader(), self.verticalHeader()):
            header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
            header.setMinimumSectionSize(16)

    def show_rows(self, columns: Sequence[str], rows: Rows, tips: Sequence[str] = ()) -> None:
        """Show a table; `tips` are the tooltips of its columns."""
        self.setColumnCount(len(columns))
        self.setRowCount(len(rows))
        self.setHorizontalHeaderLabels(list(columns))
        self.setVerticalHeaderLabels([name for name, _ in rows])
        for column, tip in enumerate(tips):
            self.horizontalHeaderItem(column).setToolTip(tip)
        for r, (_, cells) in enumerate(rows):
            for c, text in enumerate(cells):
                item = QTableWidgetItem(text)
                item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
                self.setItem(r, c, item)
        self.resizeRowsToContents()
        self._fit()

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """Leave room for the scroll bar where it is needed."""
        super().resizeEvent(event)
        self._fit()

    def _fit(self) -> None:
        columns = self.horizontalHeader()
        height = columns.sizeHint().height() + sum(self.rowHeight(r) for r in range(self.rowCount()))
        wide = self.verticalHeader().sizeHint().width() + columns.length() > self.width()
        bar = self.horizontalScrollBar().sizeHint().height() if wide else 0
        self.setFixedHeight(height + bar + 2 * self.frameWidth() + 2)

    def texts(self) -> list[list[str]]:
        """Return the cells as they are shown."""
        return [[self.item(r, c).text() for c in range(self.columnCount())] for r in range(self.rowCount())]
