"""Comparing two rounds on a section: a layer shows where they differ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Labels
from numpy.typing import NDArray

from napari_drososeg._widgets.layers.classes import label_features
from napari_drososeg._widgets.layers.error_maps import MARK
from napari_drososeg._widgets.layers.images import add_above, shape_of, space_of
from napari_drososeg._widgets.layers.targets import label_colormap
from napari_drososeg._widgets.work.store import IN_MEMORY_BYTES
from napari_drososeg._widgets.work.work import Work
from napari_drososeg._widgets.work.worker import Control, State, be_polite, handing_over

if TYPE_CHECKING:
    import napari
    from napari.layers import Image
    from qtpy.QtCore import QObject

    from napari_drososeg.classes import ClassTable
    from napari_drososeg.inference import PredictConfig
    from napari_drososeg.io import Stack
    from napari_drososeg.zoo import NetworkCard


@dataclass(frozen=True)
class Pair:
    """What is compared.

    Parameters
    ----------
    numbers : (int, int)
        Of the rounds, the earlier first.
    cards : (NetworkCard, NetworkCard)
        Their networks.
    configs : (PredictConfig, PredictConfig)
        How each predicts: rounds may be of two architectures.
    section : int
        z.
    """

    numbers: tuple[int, int]
    cards: tuple[NetworkCard, NetworkCard]
    configs: tuple[PredictConfig, PredictConfig]
    section: int


def _differences(stack: Stack, pair: Pair, control: Control) -> Iterator[NDArray[np.uint8]]:
    from napari_drososeg.inference import Predictor

    be_polite()
    with handing_over(control):
        found = []
        for card, config in zip(pair.cards, pair.configs, strict=True):
            labels = np.zeros(stack.shape[1:], np.uint8)
            predictor = Predictor(str(card.path or card.name), config, cancelled=control.stop.is_set)
            for result in predictor.run(stack, predictor.plan(stack, sections=[pair.section])):
                if control.stop.is_set():
                    return
                labels[result.slices] = result.labels
            found.append(labels)
        yield np.where(found[0] == found[1], np.uint8(0), found[1])


class RoundComparer(Work):
    """Compares two rounds at a time, and shows the classes of the later where they differ."""

    def __init__(self, viewer: napari.Viewer, parent: QObject | None = None) -> None:
        super().__init__(viewer, parent)
        self.layer: Labels | None = None
        self.image: Image | None = None

    def start(self, image: Image, stack: Stack, pair: Pair) -> None:
        """Begin; the comparison before must have ended."""
        self._clear()
        self.image, self._pair = image, pair
        self._share = 0.0
        first, second = pair.numbers
        self._set_state(State.RUNNING, f"Comparing round {first} with round {second} …")
        self._begin("Comparing rounds on", image.name, _differences, stack, pair)

    def _take(self, piece: NDArray[np.uint8]) -> None:
        self._share = float(np.count_nonzero(piece)) / piece.size
        spec = self._pair.cards[1].spec
        if self.image in self.viewer.layers and spec is not None:
            self.layer = self._layer(spec.classes)
            flat, single = self.layer.ndim == 2, self.layer.data.shape[0] == 1
            self.layer.data[... if flat else 0 if single else self._pair.section] = piece
            self.layer.visible = True
            self.layer.refresh()

    def _layer(self, classes: ClassTable) -> Labels:
        """Return the layer of this pair, which is made where it is not there."""
        image, (first, second) = self.image, self._pair.numbers
        name = f"{image.name} round {first} or {second}"
        shape = shape_of(image)[3 - image.ndim :]
        whole = image.ndim == 2 or int(np.prod(shape, dtype=np.int64)) <= IN_MEMORY_BYTES
        if not whole:  # of a huge stack the section alone, in its place
            shape = (1, *shape[1:])
        for layer in self.viewer.layers:
            if MARK in layer.metadata and layer.name == name and layer.data.shape == shape:
                break
        else:
            layer = self._make(name, shape, classes)
        if not whole:
            layer.translate = image.data_to_world((self._pair.section, 0, 0))
        return layer

    def _make(self, name: str, shape: tuple[int, ...], classes: ClassTable) -> Labels:
        image = self.image
        layer = Labels(
            np.zeros(shape, np.uint8),
            name=name,
            colormap=label_colormap(classes),
            features=label_features(classes),
            metadata={MARK: {"labels": image.name}},
            **space_of(image),
        )
        add_above(self.viewer, layer)
        return layer

    def _summary(self, cancelled: bool, _seconds: float) -> str:
        if cancelled:
            return "Cancelled."
        first, second = self._pair.numbers
        return f"Round {first} and {second} differ in {self._share:.1%} of section {self._pair.section}."
