"""The table of the files of a run: state, time and note; quick with tens of thousands of rows."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from qtpy.QtCore import QAbstractTableModel, QModelIndex, Qt, Signal
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import (
    QAbstractItemView,
    QApplication,
    QHeaderView,
    QSizePolicy,
    QStyledItemDelegate,
    QTableView,
    QWidget,
)

from napari_drososeg._widgets.batch.outlook import FileRow
from napari_drososeg._widgets.work.job import duration

COLUMNS = ("file", "state", "time", "note")
STATES = ("failed", "running", "stopped", "waiting", "done")
"""In the order in which a click on the column's title sorts them."""

FINDINGS_SHOWN = 15
NOTHING = QModelIndex()


def printable(text: str) -> str:
    """Return a text on one line, with a sign in place of what cannot be shown, such as a newline in a file's name."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


class FilesModel(QAbstractTableModel):
    """Files and what becomes of them.

    Attributes
    ----------
    rows : list of FileRow
        As they are shown; change one and call `touch`.
    """

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self.rows: list[FileRow] = []
        self._names: dict[str, str] = {}
        self._places: dict[str, int] = {}
        self._touched: set[int] = set()
        self._order: tuple[int, Qt.SortOrder] | None = None

    def show_rows(self, rows: Sequence[FileRow]) -> None:
        """Show other files."""
        folders = {os.path.dirname(row.source) for row in rows}  # noqa: PTH120 -- thousands of them
        base = os.path.commonpath(folders) if folders else ""
        self.beginResetModel()
        self.rows = list(rows)
        self._names = {row.source: printable(os.path.relpath(row.source, base)) for row in rows}
        self._touched.clear()
        self._arrange()
        self.endResetModel()

    def row_of(self, source: str) -> FileRow | None:
        """Return the row of an input."""
        place = self._places.get(source)
        return None if place is None else self.rows[place]

    def touch(self, row: FileRow) -> None:
        """Note that a row has changed; shown by the next `flush`."""
        self._touched.add(self._places[row.source])

    def flush(self) -> None:
        """Show the rows that have changed."""
        if self._touched:
            first, last = min(self._touched), max(self._touched)
            self._touched.clear()
            self.dataChanged.emit(self.index(first, 0), self.index(last, len(COLUMNS) - 1))

    def counts(self) -> dict[str, int]:
        """Return the number of files by state."""
        found: dict[str, int] = {}
        for row in self.rows:
            found[row.state] = found.get(row.state, 0) + 1
        return found

    def summary(self) -> str:
        """Say how many files are in which state, and how many sections there are to look at."""
        counts = self.counts()
        parts = [f"{counts[state]} {state}" for state in ("done", "failed", "stopped", "waiting") if counts.get(state)]
        n = sum(len(row.findings) for row in self.rows)
        text = ", ".join(parts)
        return f"{text}; {n} section{'s' if n > 1 else ''} to look at" if n else text

    # ---------------------------------------------------------------- what Qt asks for

    def rowCount(self, parent: QModelIndex = NOTHING) -> int:
        """See Qt."""
        return 0 if parent.isValid() else len(self.rows)

    def columnCount(self, parent: QModelIndex = NOTHING) -> int:
        """See Qt."""
        return 0 if parent.isValid() else len(COLUMNS)

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """See Qt."""
        if orientation == Qt.Orientation.Horizontal and role == Qt.ItemDataRole.DisplayRole:
            return COLUMNS[section]
        return None

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """See Qt."""
        row = self.rows[index.row()]
        if role == Qt.ItemDataRole.DisplayRole:
            return self.text(row, index.column())
        if role == Qt.ItemDataRole.ToolTipRole:
            return self.tip(row)
        if role == Qt.ItemDataRole.TextAlignmentRole and COLUMNS[index.column()] == "time":
            return Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        return None

    def text(self, row: FileRow, column: int) -> str:
        """Return what a cell says."""
        if column == 0:
            return self._names[row.source]
        if column == 1:
            return row.state
        if column == 2:
            if row.state == "running":
                return f"{100 * row.fraction:.0f} %"
            if row.seconds is None or row.state != "done":
                return ""
            return f"{row.seconds:.1f} s" if row.seconds < 10 else duration(row.seconds)
        n = len(row.findings)
        look = f"{n} section{'s' if n > 1 else ''} to look at" if n else ""
        return "; ".join(part for part in (look, self._note(row)) if part)

    def _note(self, row: FileRow) -> str:
        """Return the note without the path, which the first column says."""
        return printable(row.note.replace(f"'{row.source}'", "it").replace(row.source, "it"))

    def tip(self, row: FileRow) -> str:
        """Return everything known about a file."""
        lines = [printable(row.source), f"{row.state}: {self._note(row)}" if row.note else row.state]
        if row.state == "done":
            lines.append(f"labels: {printable(row.target)}")
            lines += [f"{c['name']}: {100 * c['fraction']:.1f} %" for c in row.classes]
        if row.findings:
            lines.append("Sections to look at (predicted as they are):")
            lines += [f"{f['section']}: {f['kind']}, {f['detail']}" for f in row.findings[:FINDINGS_SHOWN]]
            more = len(row.findings) - FINDINGS_SHOWN
            lines += [f"and {more} more, see the record"] if more > 0 else []
        return "\n".join(lines)

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        """Sort the rows as they are now."""
        self.layoutAboutToBeChanged.emit()
        before = self.persistentIndexList()
        sources = [self.rows[index.row()].source for index in before]
        self._order = (column, order) if column >= 0 else None
        self._arrange()
        after = [self.index(self._places[s], i.column()) for s, i in zip(sources, before, strict=True)]
        self.changePersistentIndexList(before, after)
        self.layoutChanged.emit()

    def _arrange(self) -> None:
        from napari_drososeg.io.folder import natural_key

        if self._order is not None:
            column, order = self._order
            keys: dict[int, Callable[[FileRow], Any]] = {
                0: lambda row: natural_key(Path(self._names[row.source])),
                1: lambda row: STATES.index(row.state),
                2: lambda row: row.seconds or 0.0,
                3: lambda row: (-len(row.findings), row.note),
            }
            self.rows.sort(key=keys[column], reverse=order == Qt.SortOrder.DescendingOrder)
        self._places = {row.source: k for k, row in enumerate(self.rows)}
        self._touched.clear()


class CellDelegate(QStyledItemDelegate):
    """Cuts long names in their middle, since they differ at both ends, and long notes at their end."""

    def initStyleOption(self, option: Any, index: QModelIndex) -> None:
        """See Qt."""
        super().initStyleOption(option, index)
        modes = Qt.TextElideMode
        option.textElideMode = modes.ElideRight if index.column() else modes.ElideMiddle


class FileTable(QTableView):
    """Shows a `FilesModel`; a double click or Enter asks for a file to be opened.

    Signals
    -------
    opened : FileRow
        To be opened.
    chosen : FileRow or None
        Another one is the current one, or its state is another.
    """

    opened = Signal(object)
    chosen = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.files = FilesModel(self)
        self.setModel(self.files)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setItemDelegate(CellDelegate(self))
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setWordWrap(False)
        self.setShowGrid(False)
        self.setTabKeyNavigation(False)  # the Tab key goes on to the next control
        self.setMinimumHeight(140)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Expanding)
        rows, columns = self.verticalHeader(), self.horizontalHeader()
        rows.hide()
        rows.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)  # measuring thousands of rows takes seconds
        rows.setDefaultSectionSize(self.fontMetrics().height() + 6)
        columns.setMinimumSectionSize(24)
        columns.setSectionsClickable(True)
        columns.setHighlightSections(False)
        columns.setStretchLastSection(True)
        width = self.fontMetrics().horizontalAdvance
        columns.setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        for column, text in enumerate(("section_001.tif", "running", "10 min")):
            self.setColumnWidth(column, width(text) + 8)
        columns.setSortIndicator(-1, Qt.SortOrder.AscendingOrder)
        self.setSortingEnabled(True)
        self.doubleClicked.connect(lambda index: self.opened.emit(self.files.rows[index.row()]))
        self.selectionModel().currentChanged.connect(lambda *_: self.chosen.emit(self.current))
        for signal in (self.files.dataChanged, self.files.modelReset):
            signal.connect(lambda *_: self.chosen.emit(self.current))

    @property
    def current(self) -> FileRow | None:
        """The current row."""
        index = self.currentIndex()
        return self.files.rows[index.row()] if index.isValid() else None

    def keyPressEvent(self, event: Any) -> None:
        """Open with Enter; copy the selected rows with their whole reasons."""
        chosen = sorted(index.row() for index in self.selectionModel().selectedRows())
        if chosen and event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self.opened.emit(self.files.rows[chosen[0]])
        elif chosen and event.matches(QKeySequence.StandardKey.Copy):
            rows = (self.files.rows[k] for k in chosen)
            lines = ("\t".join((r.source, *(self.files.text(r, c) for c in (1, 2, 3)))) for r in rows)
            QApplication.clipboard().setText("\n".join(lines))
        else:
            super().keyPressEvent(event)
