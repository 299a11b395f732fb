"""Noticing the end: of napari, which does not close the widgets docked in it, and of Qt's objects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QEvent, QObject
from qtpy.QtWidgets import QApplication, QWidget

_waiting: set[Callable[[], None]] = set()


def when_destroyed(target: QObject, callback: Callable[[], object]) -> None:
    """Call `callback`, which must not refer to `target`, when Qt deletes `target`.

    Until then it is kept here: a slot that only `target` holds may be cleared by Python's garbage collector just before
    Qt calls it, and that ends the program.
    """

    def once() -> None:
        _waiting.discard(once)
        callback()

    _waiting.add(once)
    target.destroyed.connect(once)


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
