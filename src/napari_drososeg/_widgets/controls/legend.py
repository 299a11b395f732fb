"""The legend: colour, name and share of the area of each class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import Qt
from qtpy.QtGui import QColor, QPixmap
from qtpy.QtWidgets import QGridLayout, QLabel, QWidget

from napari_drososeg.classes import ClassTable


def percentages(counts: NDArray[np.int64], n_classes: int) -> list[float] | None:
    """Share of each class in the pixels that have one, in per cent.

    Parameters
    ----------
    counts : (256,) int64 array
        Pixels per label value.
    n_classes : int
        Classes 1 to n.

    Returns
    -------
    list of float or None
        None where no pixel has a class.
    """
    used = np.maximum(counts[1 : n_classes + 1], 0)
    total = int(used.sum())
    return [100 * int(n) / total for n in used] if total else None


class Legend(QWidget):
    """One line for each class: label number, colour, name, area percentage."""

    SWATCH = 12

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setVerticalSpacing(2)
        self._grid.setColumnStretch(1, 1)
        self._classes: ClassTable | None = None
        self._shares: list[QLabel] = []
        self.setToolTip(
            "Share of each class in the area segmented so far, in all sections. The number is the label value."
        )

    def set_classes(self, classes: ClassTable) -> None:
        """Show the lines of a class table."""
        if classes == self._classes:
            return
        self._classes = classes
        while self._grid.count():
            item = self._grid.takeAt(0)
            if item.widget() is not None:
                item.widget().hide()  # it is drawn until the event loop comes round to deleting it
                item.widget().deleteLater()
        self._shares = []
        for row, c in enumerate(classes):
            swatch, name, share = QLabel(), QLabel(f"{c.value}  {c.name}"), QLabel("–")
            pixmap = QPixmap(self.SWATCH, self.SWATCH)
            pixmap.fill(QColor(c.color))
            swatch.setPixmap(pixmap)
            share.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            for column, widget in enumerate((swatch, name, share)):
                self._grid.addWidget(widget, row, column)
            self._shares.append(share)

    def set_counts(self, counts: NDArray[np.int64] | None) -> None:
        """Show the percentages of pixel counts per label value; None for no result."""
        shares = None if counts is None else percentages(counts, len(self._shares))
        for i, label in enumerate(self._shares):
            label.setText("–" if shares is None else f"{shares[i]:.1f} %")

    def set_texts(self, texts: Sequence[str]) -> None:
        """Show something else than percentages, one text for each class."""
        for label, text in zip(self._shares, texts, strict=True):
            label.setText(text)

    def texts(self) -> list[str]:
        """Return the percentages as they are shown."""
        return [label.text() for label in self._shares]
