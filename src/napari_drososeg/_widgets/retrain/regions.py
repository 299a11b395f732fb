"""Drawing a region on the image: a shapes layer that goes as soon as there is one shape on it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Shapes
from qtpy.QtCore import QObject, QTimer

from napari_drososeg._widgets.layers.images import space_of

if TYPE_CHECKING:
    import napari
    from napari.layers import Image

Polygon = list[tuple[float, float]]

RECTANGLE, LASSO = "add_rectangle", "add_polygon_lasso"
"""What can be drawn, as modes of a shapes layer."""


class RegionDrawer(QObject):
    """Lets the user draw one region at a time."""

    def __init__(self, viewer: napari.Viewer, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.viewer = viewer
        self.layer: Shapes | None = None
        self._active: Any = None
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.timeout.connect(self._take)
        self._done: Callable[[int, Polygon], None] = lambda _section, _polygon: None

    @property
    def drawing(self) -> bool:
        """Whether a region is to be drawn now."""
        return self.layer is not None and self.layer in self.viewer.layers

    def begin(self, image: Image, mode: str, name: str, done: Callable[[int, Polygon], None]) -> None:
        """Let a region be drawn.

        Parameters
        ----------
        image : Image
            On which it is drawn.
        mode : str
            `RECTANGLE` or `LASSO`.
        name : str
            Of the layer, which says what to do.
        done : callable
            ``done(section, polygon)`` gets the corners (y, x) in pixels of the image.
        """
        self.cancel()
        self._active = self.viewer.layers.selection.active
        self._done = done
        self.layer = Shapes(
            ndim=image.ndim, name=name, edge_color="white", face_color="transparent", edge_width=2, **space_of(image)
        )
        self.viewer.add_layer(self.layer)
        self.layer.mode = mode
        self.layer.events.data.connect(self._drawn)

    def cancel(self) -> None:
        """Take the layer away, and select again what was selected before."""
        layer, self.layer = self.layer, None
        if layer is None:
            return
        with contextlib.suppress(TypeError, ValueError, RuntimeError):
            layer.events.data.disconnect(self._drawn)
        if layer in self.viewer.layers:
            self.viewer.layers.remove(layer)
        if self._active is not None and self._active in self.viewer.layers:
            self.viewer.layers.selection.active = self._active

    def _drawn(self, event: Any) -> None:
        if str(getattr(event.action, "value", event.action)) in ("added", "changed"):
            self._later.start()  # napari is still busy with the shape

    def _take(self) -> None:
        if not self.drawing or self.layer is None or not self.layer.data:
            return
        corners = np.asarray(self.layer.data[-1], float)
        section = round(float(corners[:, 0].mean())) if corners.shape[1] == 3 else 0
        done = self._done
        self.cancel()
        done(section, [(float(y), float(x)) for y, x in corners[:, -2:]])
