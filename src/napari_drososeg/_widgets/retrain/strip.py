"""The strip of sections: which are annotated, reviewed or locked, and which is on screen. A click goes there."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from qtpy.QtCore import QEvent, QPointF, QRectF, QSize, Qt, Signal
from qtpy.QtGui import QBrush, QColor, QHelpEvent, QPainter, QPen
from qtpy.QtWidgets import QSizePolicy, QToolTip, QWidget

from napari_drososeg._widgets.retrain.overview import SectionState

HEIGHT = 22
NARROW = 4.0
"""Width in px below which cells have no gap and no letter."""


def cells(n: int, width: int) -> list[tuple[int, int]]:
    """Group sections so that every cell is at least two pixels wide.

    Parameters
    ----------
    n : int
        Number of sections.
    width : int
        Pixels to draw in.

    Returns
    -------
    list of (int, int)
        First and last section + 1 of each cell.
    """
    count = max(1, min(n, width // 2))
    edges = [round(i * n / count) for i in range(count + 1)]
    return list(itertools.pairwise(edges))


class SectionStrip(QWidget):
    """One cell for each section, or for a few where there are many.

    Half-filled is annotated, filled is reviewed (R), hatched is locked for validation (L); the frame is what is on
    screen.

    Signals
    -------
    chosen : int
        A section was clicked.
    """

    chosen = Signal(int)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setAccessibleName("Sections")
        self.setToolTip("Sections")  # what is under the mouse is said in `event`
        self._n, self._current = 0, 0
        self._states: Mapping[int, SectionState] = {}

    def show_sections(self, n: int, current: int, states: Mapping[int, SectionState]) -> None:
        """Show `n` sections of which the one at `current` is on screen."""
        self._n, self._current, self._states = n, current, dict(states)
        self.update()

    def sizeHint(self) -> QSize:
        """See Qt."""
        return QSize(200, HEIGHT)

    minimumSizeHint = sizeHint

    def section_at(self, x: float) -> int | None:
        """Section under a horizontal position in px."""
        if not self._n:
            return None
        groups = cells(self._n, self.width())
        first, last = groups[min(len(groups) - 1, max(0, int(x * len(groups) / max(1, self.width()))))]
        return next((z for z in range(first, last) if z in self._states), first)

    def mousePressEvent(self, event: Any) -> None:
        """Go to the section that is clicked."""
        section = self.section_at(event.position().x())
        if section is not None:
            self.chosen.emit(section)

    def event(self, event: QEvent | None) -> bool:
        """Say what the section under the mouse is."""
        if isinstance(event, QHelpEvent):
            section = self.section_at(event.x())
            if section is not None:
                state = self._states.get(section)
                text = f"Section {section}: {state.words if state else 'not annotated'}. Click to go there."
                QToolTip.showText(event.globalPos(), text, self)
            return True
        return bool(super().event(event))

    def paintEvent(self, _event: Any) -> None:
        """Draw the cells in the colours of the theme."""
        if not self._n:
            return
        painter = QPainter(self)
        palette = self.palette()
        ink, mark = palette.text().color(), palette.highlight().color()
        groups = cells(self._n, self.width())
        width = self.width() / len(groups)
        gap = 1.0 if width >= NARROW else 0.0
        for i, (first, last) in enumerate(groups):
            box = QRectF(i * width, 2, width - gap, HEIGHT - 4)
            states = [self._states[z] for z in range(first, last) if z in self._states]
            self._cell(painter, box, states, ink)
            if first <= self._current < last:
                painter.setPen(QPen(mark, 2))
                painter.setBrush(Qt.BrushStyle.NoBrush)
                painter.drawRect(box.adjusted(0, -1, 0, 1))
        painter.end()

    def _cell(self, painter: QPainter, box: QRectF, states: list[SectionState], ink: QColor) -> None:
        faint = QColor(ink)
        faint.setAlphaF(0.18)
        painter.fillRect(box, faint)
        painted = any(s.trains.any() for s in states)
        reviewed, locked = any(s.reviewed for s in states), any(s.locked.any() for s in states)
        strong = QColor(ink)
        strong.setAlphaF(0.75)
        if locked:
            painter.fillRect(box, QBrush(strong, Qt.BrushStyle.BDiagPattern))
        if reviewed:
            painter.fillRect(box, strong)
        elif painted:
            painter.fillRect(QRectF(box.left(), box.center().y(), box.width(), box.height() / 2), strong)
        letter = "L" if locked else "R" if reviewed else ""
        if letter and box.width() >= 9:
            painter.setPen(self.palette().window().color() if reviewed else ink)
            middle = box.center() + QPointF(0, -1 if painted and not reviewed else 0)
            painter.drawText(QRectF(middle.x() - 8, middle.y() - 9, 16, 18), Qt.AlignmentFlag.AlignCenter, letter)
