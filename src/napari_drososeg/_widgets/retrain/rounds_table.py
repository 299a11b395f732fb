"""The history: one row for each round, and the network before the first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QSizePolicy, QTableWidget, QTableWidgetItem, QWidget

from napari_drososeg._widgets.work.job import duration
from napari_drososeg.workspace import START, Round

COLUMNS = {
    "#": "Rounds in the order they were trained; 0 is the network before the first.",
    "score, %": "Before and after: mean IoU on the locked regions, or, without any, the share of annotated pixels "
    "that are correct.",
    "pixels": "Annotated pixels it was trained on.",
    "time": "Duration of the round.",
    "": "Which network is in use: it is shown, and the next round starts from it.",
}


def score_words(scores: dict[str, Any], before: dict[str, Any]) -> str:
    """Scores of a round as a person reads them, for example ``IoU 81.0 → 84.2``."""
    for key, name, digits in (("mean_iou", "IoU", 1), ("annotated_right", "right", 0)):
        if scores.get(key) is not None:
            old = f"{100 * before[key]:.{digits}f} → " if before.get(key) is not None else ""
            return f"{name} {old}{100 * scores[key]:.{digits}f}"
    return "–"


def rows(rounds: Sequence[Round], in_use: int) -> list[tuple[int, list[str], str]]:
    """Return number, cells and tooltip of each row, oldest first."""
    first = rounds[0].before if rounds else {}
    found = [(START, ["0", score_words(first, {}), "–", "–", _state(START, in_use, True)], "The start network.")]
    for r in rounds:
        cells = [
            str(r.number),
            score_words(r.after, r.before),
            f"{sum(r.annotated_pixels.values()):,}",
            duration(r.seconds),
            _state(r.number, in_use, r.adopted),
        ]
        tip = [r.verdict, f"From {r.parent.rpartition(' ')[0] or r.parent}, {r.settings.get('effort', '')}."]
        tip += ["Stopped before its last step."] if r.stopped else []
        found.append((r.number, cells, "\n".join(tip)))
    return found


def _state(number: int, in_use: int, adopted: bool) -> str:
    return "● in use" if number == in_use else "" if adopted else "not used"


class RoundsTable(QTableWidget):
    """As tall as its rows, up to seven."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(0, len(COLUMNS), parent)
        self.setHorizontalHeaderLabels(list(COLUMNS))
        for column, tip in enumerate(COLUMNS.values()):
            self.horizontalHeaderItem(column).setToolTip(tip)
        self.verticalHeader().hide()
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setShowGrid(False)
        self.setWordWrap(False)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        header = self.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(1, QHeaderView.ResizeMode.Stretch)
        header.setMinimumSectionSize(24)
        self._rows: list[tuple[int, list[str], str]] = []

    @property
    def numbers(self) -> list[int]:
        """Rounds that are selected."""
        return sorted(self._rows[i.row()][0] for i in self.selectionModel().selectedRows())

    def select(self, *numbers: int) -> None:
        """Select rounds."""
        self.clearSelection()
        for i, (number, _, _) in enumerate(self._rows):
            if number in numbers:
                for column in range(self.columnCount()):
                    self.item(i, column).setSelected(True)

    def show_rounds(self, rounds: Sequence[Round], in_use: int) -> None:
        """Show other rounds; the selection stays where it can."""
        found = rows(rounds, in_use)
        if found == self._rows:
            return
        selected = self.numbers
        self._rows = found
        self.setRowCount(len(found))
        for i, (_, cells, tip) in enumerate(found):
            for column, text in enumerate(cells):
                item = QTableWidgetItem(text)
                item.setToolTip(tip)
                if column in (2, 3):
                    item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
                self.setItem(i, column, item)
        self.resizeRowsToContents()
        height = sum(self.rowHeight(i) for i in range(min(7, len(found))))
        self.setFixedHeight(self.horizontalHeader().sizeHint().height() + height + 4)
        self.select(*selected)
        self.scrollToBottom()
