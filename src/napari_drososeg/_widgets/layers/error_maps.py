"""The layer that shows in yellow where two labels layers differ."""

from __future__ import annotations

import shutil
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from napari.layers import Labels
from napari.utils.colormaps import DirectLabelColormap

from napari_drososeg._widgets.layers.images import add_above, lie_on, shape_of, space_of
from napari_drososeg._widgets.work import store
from napari_drososeg.evaluation import ERROR_COLOR, strips

if TYPE_CHECKING:
    import napari
    from numpy.typing import NDArray

MARK = "drososeg_error_map"
"""Key in a layer's metadata that says that it is an error map, and of what."""
WRONG = 1


def is_error_map(layer: Any) -> bool:
    """Whether a layer is an error map, which is not to be evaluated itself."""
    return MARK in layer.metadata


@dataclass(eq=False)
class ErrorMap:
    """A layer of wrong pixels with what it was made of."""

    layer: Labels
    labels: Labels
    truth: Labels
    data: Any

    def in_viewer(self, viewer: napari.Viewer) -> bool:
        """Whether the layer is still there and still shows our array."""
        return self.layer in viewer.layers and self.layer.data is self.data

    def write(self, z: int, rows: slice, wrong: NDArray[np.bool_]) -> None:
        """Put in which pixels (h, X) of some rows of a section are wrong."""
        at = (rows,) if self.layer.ndim == 2 else (z, rows)
        self.data[at] = wrong.view(np.uint8) * np.uint8(WRONG)


class ErrorMaps:
    """The error maps of one viewer: one for each pair of layers, however often they are compared."""

    # Kept per viewer for as long as the viewer lives, so that a widget closed and opened again finds its layers.
    _of_viewer: ClassVar[weakref.WeakKeyDictionary[Any, list[ErrorMap]]] = weakref.WeakKeyDictionary()

    def __init__(self, viewer: napari.Viewer) -> None:
        self._viewer = viewer
        self._all = self._of_viewer.setdefault(viewer, [])

    def let_go(self) -> None:
        """Forget the maps that have left the viewer, and those of layers that have."""
        here = self._viewer.layers
        self._all[:] = [m for m in self._all if m.layer in here and m.labels in here and m.truth in here]

    def fresh(self, labels: Labels, truth: Labels) -> ErrorMap:
        """Give an error map without wrong pixels: the pair's own, emptied, or a new one above the labels."""
        data = _allocate(labels)
        self.let_go()
        for found in self._all:
            if found.labels is labels and found.truth is truth:
                found.data = found.layer.data = data
                lie_on(found.layer, labels)
                return found
        layer = Labels(
            data,
            name=f"{labels.name} errors",
            colormap=_colormap(),
            features={"index": [0, WRONG], "pixel": ["not wrong", "wrong"]},
            opacity=0.8,
            metadata={MARK: {"labels": labels.name, "truth": truth.name}},
            **space_of(labels),
        )
        add_above(self._viewer, layer)
        made = ErrorMap(layer, labels, truth, data)
        self._all.append(made)
        return made


def _colormap() -> DirectLabelColormap:
    clear, yellow = np.zeros(4), np.array([*(c / 255 for c in ERROR_COLOR), 1.0])
    return DirectLabelColormap(color_dict={None: clear, 0: clear, WRONG: yellow})


def _allocate(labels: Labels) -> Any:
    """Make an array of zeros on the grid of a layer; on disk, large ones, with the strips of a comparison as chunks."""
    shape = shape_of(labels)[3 - labels.ndim :]
    if int(np.prod(shape, dtype=np.int64)) <= store.IN_MEMORY_BYTES:
        return np.zeros(shape, np.uint8)
    folder = store.new_scratch()
    rows = next(strips(shape))
    data = store.allocate(shape, np.uint8, folder, "errors", chunk=(rows.stop, shape[-1]))
    weakref.finalize(data, shutil.rmtree, folder, ignore_errors=True)
    return data
