"""The live plot: loss above, IoU of each class on the locked regions below."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QVBoxLayout, QWidget

if TYPE_CHECKING:
    from napari_drososeg._widgets.retrain.training_state import TrainingState
    from napari_drososeg.classes import ClassTable

HEIGHTS = 80, 120
"""Of the two plots in px."""
SYMBOLS = "otsd+x"
"""One for each class, so that colour is not the only difference."""
STYLES = (Qt.PenStyle.SolidLine, Qt.PenStyle.DashLine, Qt.PenStyle.DotLine, Qt.PenStyle.DashDotLine)


class TrainingPlot(QWidget):
    """Loss and scores of the round that is being trained. pyqtgraph is loaded when there is something to draw."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.setSpacing(0)
        self._plots: tuple[Any, Any] | None = None
        self._loss: Any = None
        self._lines: list[Any] = []
        self._classes: ClassTable | None = None
        self.setToolTip(
            "Loss: how far the network is from the annotation; it should fall. IoU: how well each class "
            "fits the locked regions, which are never used for training; without any there is none."
        )

    @property
    def points(self) -> tuple[list[float], list[list[float]]]:
        """Losses, and the IoU of each class, as they are drawn."""
        if self._plots is None:
            return [], []
        drawn = (line.getData()[1] for line in (self._loss, *self._lines))
        losses, *scores = ([] if y is None else [float(v) for v in y] for y in drawn)
        return losses, scores

    def draw(self, state: TrainingState, classes: ClassTable, locked: bool) -> None:
        """Draw what is known so far.

        Parameters
        ----------
        state : TrainingState
            Of the round.
        classes : ClassTable
            Names and colours.
        locked : bool
            Whether there are locked regions.
        """
        if self._plots is None or classes != self._classes:
            if not state.losses:
                return
            self._build(classes)
        assert self._plots is not None
        self._plots[1].setVisible(locked)
        steps, losses = np.array(state.losses, float).reshape(-1, 2).T
        self._loss.setData(steps, losses)
        for k, line in enumerate(self._lines):
            found = [(step, iou[k]) for step, _, iou in state.scores if iou[k] is not None]
            line.setData(*np.array(found, float).reshape(-1, 2).T)

    def use_theme(self) -> None:
        """Take the colours of the window."""
        if self._plots is None:
            return
        palette = self.palette()
        ink = palette.text().color()
        for plot in self._plots:
            plot.setBackground(palette.window().color())
            for side in ("left", "bottom"):
                axis = plot.getAxis(side)
                axis.setPen(ink)
                axis.setTextPen(ink)
            if plot.plotItem.legend is not None:
                plot.plotItem.legend.setLabelTextColor(ink)
                for _sample, label in plot.plotItem.legend.items:
                    label.setText(label.text, color=ink.name())
        self._loss.setPen(ink, width=1.5)

    def changeEvent(self, event: Any) -> None:
        """Follow the theme."""
        super().changeEvent(event)
        if event is not None and event.type() in (event.Type.PaletteChange, event.Type.StyleChange):
            self.use_theme()

    def _build(self, classes: ClassTable) -> None:
        import pyqtgraph

        for plot in self._plots or ():
            self._layout.removeWidget(plot)
            plot.deleteLater()
        self._classes = classes
        loss, iou = pyqtgraph.PlotWidget(), pyqtgraph.PlotWidget()
        self._plots = loss, iou
        for plot, title, height in zip(self._plots, ("loss", "IoU"), HEIGHTS, strict=True):
            plot.setFixedHeight(height)
            plot.setMenuEnabled(False)
            plot.hideButtons()
            plot.setMouseEnabled(x=False, y=False)
            plot.setLabel("left", title)
            plot.getAxis("left").setWidth(44)
            self._layout.addWidget(plot)
        self._loss = loss.plot(antialias=True)
        iou.setYRange(0, 1, padding=0.08)
        legend = iou.addLegend(offset=(-4, -4), verSpacing=-6)
        legend.setColumnCount(len(classes) if sum(len(n) for n in classes.names) < 32 else 2)
        self._lines = [
            iou.plot(
                name=c.name,
                pen=pyqtgraph.mkPen(QColor(c.color), width=2, style=STYLES[k % len(STYLES)]),
                symbol=SYMBOLS[k % len(SYMBOLS)],
                symbolSize=6,
                symbolBrush=QColor(c.color),
                symbolPen=None,
                antialias=True,
            )
            for k, c in enumerate(classes)
        ]
        self.use_theme()
