"""Noticing that napari is closed, which does not close the widgets docked in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QEvent, QObject
from qtpy.QtWidgets import QApplication, QWidget


class WindowWatch(QObject):
    """Calls a function once when a window has been closed, or the application ends.

    Parameters
    ----------
    window : QWidget
        The window.
    closed : callable
        Called then, while the window and what is in it are still there.
    parent : QObject
        Whatever must be there for the call.
    """

    def __init__(self, window: QWidget, closed: Callable[[], None], parent: QObject) -> None:
        super().__init__(parent)
        self._window, self._closed = window, closed
        window.installEventFilter(self)
        app = QApplication.instance()
        if app is not None:
            app.aboutToQuit.connect(self._end)

    def stop(self) -> None:
        """Watch no more."""
        self._closed = lambda: None

    def eventFilter(self, watched: Any, event: QEvent | None) -> bool:
        """Let the window decide whether it closes, for napari may ask; if it does, say so before it is gone."""
        if event is None or event.type() != QEvent.Type.Close or watched is not self._window:
            return bool(super().eventFilter(watched, event))
        handled = bool(watched.event(event))
        if event.isAccepted():
            self._end()
        return handled

    def _end(self) -> None:
        self._closed()
