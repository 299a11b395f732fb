"""The layers that we make: how labels look, and what belongs to a labels layer of ours."""

from __future__ import annotations

import shutil
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from napari.layers import Image, Labels
from napari.utils.colormaps import Colormap, DirectLabelColormap

from napari_drososeg._widgets.layers.classes import KEY, label_features
from napari_drososeg._widgets.layers.history import forget_history, history_touches
from napari_drososeg._widgets.layers.images import (
    add_above,
    lie_on,
    shape_of,
    space_of,
)
from napari_drososeg._widgets.work.ordering import DoneMap
from napari_drososeg._widgets.work.store import LabelsStore, allocate, new_scratch

if TYPE_CHECKING:
    import napari
    from numpy.typing import NDArray

    from napari_drososeg._widgets.work.job import Job
    from napari_drososeg.checkpoint import NetworkSpec
    from napari_drososeg.classes import ClassTable


def label_colormap(classes: ClassTable) -> DirectLabelColormap:
    """Colours of the classes; everything else is transparent."""
    return DirectLabelColormap(color_dict={k: np.array(v) for k, v in classes.color_dict().items()})


CLASS_KEYS = ("Shift-Q", "Shift-W", "Shift-E")
"""Keys that choose what the brush paints: the first three classes."""


def bind_class_keys(layer: Labels) -> None:
    """Let keys choose the class to paint with while the layer is selected, and take up the brush where none is."""

    def choose(value: int) -> Callable[[Labels], None]:
        def chosen(layer: Labels) -> None:
            layer.selected_label = value
            if layer.mode not in ("paint", "fill", "polygon"):  # else the next drag would move the picture, or erase
                layer.mode = "paint"

        return chosen

    for value, key in enumerate(CLASS_KEYS, start=1):
        layer.bind_key(key, choose(value), overwrite=True)


@dataclass(eq=False)
class Target:
    """A labels layer of ours with what belongs to it: its image, network, arrays and what is done."""

    layer: Labels
    image: Image
    network: str
    store: LabelsStore
    classes: ClassTable
    done: DoneMap = field(default_factory=DoneMap)
    done_key: tuple[Any, ...] = ()
    done_grey: tuple[bool, float | None] = (False, None)
    done_data: Any = None
    done_outputs: frozenset[str] = frozenset()
    extra: dict[str, Image] = field(default_factory=dict)
    seconds: float = 0.0
    title: str = ""
    named: str = ""
    before_forgetting: Callable[[], None] = lambda: None

    def write(self, z: int, slices: tuple[slice, slice], new: NDArray[np.uint8]) -> int:
        """Put a prediction (h, w) into a part of section `z`: the one way in which the program writes labels.

        Not during a stroke, and on the GUI thread only. The user's pixels are taken over first and stay, and undo
        cannot reach back over it. Returns how many pixels were left to the user.
        """
        if history_touches(self.layer, z, slices):
            self.before_forgetting()
            forget_history(self.layer)
        return self.store.write(z, slices, new)

    def take_in(self, z: int, slices: tuple[slice, slice], labels: NDArray[np.uint8]) -> None:
        """Put labels (h, w), 0 for none, into a part of section `z` as if the user had painted them.

        What the user has painted there since the program last wrote stays, and undo cannot reach back over it.
        """
        if history_touches(self.layer, z, slices):
            self.before_forgetting()
            forget_history(self.layer)
        at = self.store.index(z, *slices)
        shown = np.asarray(self.store.labels[at])
        free = (labels != 0) & (shown == np.asarray(self.store.written[at]))
        self.store.labels[at] = np.where(free, labels, shown)

    def in_viewer(self, viewer: napari.Viewer) -> bool:
        """Whether the labels layer is still there and still shows our array."""
        return self.layer in viewer.layers and self.layer.data is self.store.labels

    def use_job(self, job: Job, data: Any) -> None:
        """Forget what is done unless it was done by the same job on the same pixels.

        Parameters
        ----------
        job : Job
            What is done from now on.
        data : array-like
            The image layer's data, compared by identity; it is held so that its identity is not given to another.
        """
        if not self.is_job(job, data):
            self.done.clear()
        self.done_key, self.done_data, self.done_outputs = job.key, data, job.outputs
        self.done_grey = job.config.invert, job.config.fill_nan

    def is_job(self, job: Job, data: Any) -> bool:
        """Whether what is done is at least what this job would do on these pixels."""
        return job.key == self.done_key and data is self.done_data and job.outputs <= self.done_outputs


class Targets:
    """The result layers of one viewer: one for each image and network, however often Run is pressed."""

    # Kept per viewer for as long as the viewer lives, so that a widget closed and opened again finds its layers.
    _of_viewer: ClassVar[weakref.WeakKeyDictionary[Any, list[Target]]] = weakref.WeakKeyDictionary()

    def __init__(self, viewer: napari.Viewer) -> None:
        self._viewer = viewer
        self._all = self._of_viewer.setdefault(viewer, [])

    def find(self, image: Image | None, network: str) -> Target | None:
        """Find the result layer of an image and a network if it is still in the viewer."""
        self._all[:] = [t for t in self._all if t.in_viewer(self._viewer)]
        for target in self._all:
            fits = image is not None and target.store.shape == _grid(image)
            if target.image is image and target.network == network and fits:
                return target
        return None

    def of_image(self, image: Image) -> list[Target]:
        """Find all result layers of an image that are in the viewer."""
        self._all[:] = [t for t in self._all if t.in_viewer(self._viewer)]
        return [t for t in self._all if t.image is image and t.store.shape == _grid(image)]

    def of_layer(self, layer: Any) -> Target | None:
        """Find what belongs to one of our labels layers."""
        return next((t for t in self._all if t.layer is layer), None)

    def get(self, image: Image, spec: NetworkSpec) -> Target:
        """Find the result layer of an image and a network, or make it and show it above the image."""
        found = self.find(image, spec.name)
        if found is not None:
            lie_on(found.layer, image)
            if found.classes != spec.classes:
                found.classes = spec.classes
                found.store.keeper.n_classes = len(spec.classes)
                found.layer.colormap = label_colormap(spec.classes)
                found.layer.features = label_features(spec.classes)
            return found
        return self.add(image, spec.name, spec.title, spec.classes)

    def add(self, image: Image, network: str, title: str, classes: ClassTable) -> Target:
        """Make an empty result layer and show it above the image; `network` may be empty, for labels by hand."""
        store = LabelsStore(_grid(image), len(classes))
        layer = Labels(
            store.labels,
            name=f"{image.name} [{title}]",
            colormap=label_colormap(classes),
            features=label_features(classes),
            opacity=0.5,
            metadata={KEY: {"classes": classes.to_list()}},
            **space_of(image),
        )
        bind_class_keys(layer)
        if store.folder is not None:  # gone with the layer, or at exit
            weakref.finalize(layer, shutil.rmtree, store.folder, ignore_errors=True)
        add_above(self._viewer, layer)
        target = Target(layer, image, network, store, classes, title=title, named=layer.name)
        self._all.append(target)
        return target

    def forget_removed(self, target: Target) -> None:
        """Let what was shown in layers beside the labels that were removed be made again."""
        for kind in [k for k, layer in target.extra.items() if layer not in self._viewer.layers]:
            del target.extra[kind]
            target.done_outputs -= {"entropy" if kind == "uncertainty" else "probabilities"}

    def extra(self, target: Target, kind: str, name: str, colour: str | None, visible: bool) -> Any:
        """Array of a float layer beside the labels (a class's probability, the uncertainty), made when missing."""
        layer = target.extra.get(kind)
        if layer is None or layer not in self._viewer.layers:
            folder = None if target.store.folder is None else new_scratch()  # of its own: either layer may go first
            data = allocate(target.store.shape, np.float16, folder, kind)
            layer = Image(
                data,
                name=f"{target.layer.name} {name}",
                contrast_limits=(0, 1),
                colormap="inferno" if colour is None else Colormap([(0, 0, 0), colour], name=colour),
                blending="additive",
                visible=visible,
                **space_of(target.image),
            )
            if folder is not None:
                weakref.finalize(layer, shutil.rmtree, folder, ignore_errors=True)
            index = self._viewer.layers.index(target.layer)
            self._viewer.layers.insert(index, layer)
            target.extra[kind] = layer
        return layer.data


def _grid(image: Image) -> tuple[int, ...]:
    return shape_of(image)[3 - image.ndim :]
