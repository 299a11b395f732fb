"""What of a comparison cannot work, and why: known before the click."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
from napari.layers import Labels, Layer

from napari_drososeg._widgets.layers.classes import classes_in, made_by
from napari_drososeg._widgets.layers.images import shape_of
from napari_drososeg.classes import DROSOPHILA_CLASSES, ClassTable

if TYPE_CHECKING:
    from napari_drososeg._widgets.layers.targets import Target

MAX_CHECKED = 64_000_000
"""Pixels in memory up to which all sections are looked at before the click; beyond, and on disk, when they are read."""


def propose(layers: Sequence[Labels], labels: Layer | None, truth: Layer | None) -> tuple[Layer | None, Layer | None]:
    """Say which layers to compare where the user did not: what a network made against what it did not.

    Parameters
    ----------
    layers : sequence of Labels
        What there is.
    labels, truth : Layer or None
        What the user chose; it is kept if it is still there.
    """
    labels, truth = (chosen if any(chosen is layer for layer in layers) else None for chosen in (labels, truth))
    predicted = sorted(layers, key=lambda layer: "network" not in made_by(layer.metadata))
    if labels is None:
        labels = next((layer for layer in predicted if layer is not truth), truth)
    if truth is None:
        truth = next((layer for layer in reversed(predicted) if layer is not labels), labels)
    return labels, truth


def classes_for(labels: Labels, truth: Layer) -> ClassTable:
    """Class table of the labels, else of the truth, else of the shipped networks."""
    return classes_in(labels.metadata) or classes_in(truth.metadata) or DROSOPHILA_CLASSES


def layer_problem(layer: Layer | None) -> str | None:
    """Why a layer cannot be compared at all, or None."""
    if layer is None:
        return "There is no labels layer yet; open or make one first."
    if not isinstance(layer, Labels):
        return (
            f"'{layer.name}' is an image layer, not labels: right-click it in the layer list and choose Convert to "
            "Labels."
        )
    if layer.ndim not in (2, 3):
        return f"'{layer.name}' has {layer.ndim} axes; labels have two (Y, X) or three (Z, Y, X)."
    if 0 in shape_of(layer):
        return f"'{layer.name}' is empty; choose another layer."
    return None


class KnownValues:
    """Largest and smallest values of the sections of layers in memory, kept until `forget`."""

    def __init__(self) -> None:
        self._kept: WeakKeyDictionary[Labels, dict[int, tuple[int, int]]] = WeakKeyDictionary()

    def forget(self, layer: Labels, section: int | None = None) -> None:
        """Look again next time: somebody painted in a section, or the layer was given other data."""
        if section is None:
            self._kept.pop(layer, None)
        else:
            self._kept.get(layer, {}).pop(section, None)

    def of(self, layer: Labels, sections: tuple[int, ...]) -> tuple[int, int] | None:
        """Smallest and largest value in some sections; None where looking would take long."""
        data = layer.data[0] if layer.multiscale else layer.data
        size = len(sections) * int(np.prod(shape_of(layer)[1:], dtype=np.int64))
        if not isinstance(data, np.ndarray) or isinstance(data, np.memmap) or size > MAX_CHECKED:
            return None
        kept = self._kept.setdefault(layer, {})
        for z in sections:
            if z not in kept:
                part = data if data.ndim == 2 else data[z]
                kept[z] = int(part.min()), int(part.max())
        return min(kept[z][0] for z in sections), max(kept[z][1] for z in sections)


def sections_of(target: Target | None, n_sections: int, in_view: int | None) -> tuple[tuple[int, ...], str]:
    """Decide which sections are compared, and say what is to be known of it.

    Parameters
    ----------
    target : Target or None
        The labels, if they are a result of ours.
    n_sections : int
        Of the labels.
    in_view : int or None
        The section that alone is to be compared, None for all.

    Returns
    -------
    sections : tuple of int
        Of a result those that are segmented whole, if there are any, else those that are begun. Those that are as the
        last network and settings made them go before others.
    notice : str
        What is left out, or counts as wrong though nothing was predicted there; empty where neither is so.
    """
    chosen = tuple(range(n_sections)) if in_view is None else (in_view,)
    if target is None or not target.store.sections:  # labels by hand, or a result that has not begun
        return chosen, ""
    left, size = target.store.left, target.store.shape[-2] * target.store.shape[-1]
    begun = sorted(target.store.sections)
    whole = [z for z in begun if not left[z]]
    height, width = target.store.shape[-2:]
    latest = target.done.sections((height, width)) if target.done_key else whole
    if in_view is None:
        chosen = tuple(z for z in whole if z in latest) or tuple(whole or begun)
    share = 1 - sum(left.get(z, size) for z in chosen) / (size * len(chosen))
    if share == 1 and set(chosen) <= set(latest):
        some = in_view is None and len(chosen) < n_sections
        by = "" if len(chosen) == len(whole) else " with the last network and settings"
        text = f"Only sections segmented completely{by} are evaluated: {len(chosen)} of {n_sections}."
        return chosen, text if some else ""
    what = f"Section {chosen[0]} is" if len(chosen) == 1 else f"{len(chosen)} sections are"
    if share == 1:
        return chosen, f"{what} wholly or partly from an earlier run, perhaps by another network: that counts too."
    if share == 0:
        return chosen, f"{what} not segmented yet: all of it counts as wrong."
    percent = min(99, max(1, round(100 * share)))  # neither nothing nor all of it
    return chosen, f"{what} partly segmented ({percent} %): the rest counts as wrong."


def problems(
    labels: Layer | None, truth: Layer | None, sections: tuple[int, ...], values: KnownValues
) -> dict[str, str]:
    """List the fields that cannot work.

    Parameters
    ----------
    labels, truth : Layer or None
        What is chosen.
    sections : tuple of int
        Which sections are to be compared.
    values : KnownValues
        Looks into the layers.

    Returns
    -------
    dict of str to str
        Field name to reason, in the order of the form; empty when Evaluate can be pressed.
    """
    found = {"labels": layer_problem(labels), "truth": layer_problem(truth)}
    if not any(found.values()):
        assert isinstance(labels, Labels)
        assert isinstance(truth, Labels)
        found["truth"] = pair_problem(labels, truth)
        if found["truth"] is None:
            classes = classes_for(labels, truth)
            found["labels"] = value_problem(labels, sections, classes, values)
            found["truth"] = value_problem(truth, sections, classes, values) or empty_problem(truth, sections, values)
    return {name: reason for name, reason in found.items() if reason}


def pair_problem(labels: Labels, truth: Labels) -> str | None:
    """Why two layers cannot be compared with each other, or None."""
    if truth is labels:
        return "Labels and truth are the same layer; choose or open the correct labels as the truth."
    ours, theirs = shape_of(labels), shape_of(truth)
    if ours != theirs:
        return f"'{truth.name}' is {_size(theirs)} and '{labels.name}' {_size(ours)}; choose layers of the same size."
    tables = [classes.names for x in (labels, truth) if (classes := classes_in(x.metadata)) is not None]
    if len(set(tables)) > 1:
        said, right = (", ".join(names) for names in tables)
        return f"The classes of the layers differ ({said}; {right}); choose layers with the same classes."
    return None


def value_problem(layer: Labels, sections: tuple[int, ...], classes: ClassTable, values: KnownValues) -> str | None:
    """Why the values of a layer are not classes, or None."""
    known = values.of(layer, sections)
    if known is None or (known[0] >= 0 and known[1] <= len(classes)):
        return None
    wrong = known[0] if known[0] < 0 else known[1]
    named = ", ".join(f"{c.value} {c.name}" for c in classes)
    return (
        f"'{layer.name}' contains the label {wrong}, which is not a class ({named}); repaint it or choose another "
        "layer."
    )


def empty_problem(truth: Labels, sections: tuple[int, ...], values: KnownValues) -> str | None:
    """Why there is nothing to compare with, or None."""
    known = values.of(truth, sections)
    if known is None or known[1] > 0:
        return None
    return f"'{truth.name}' has no labels in the compared area; choose another truth or other sections."


def _size(shape: tuple[int, int, int]) -> str:
    return " × ".join(map(str, shape if shape[0] > 1 else shape[1:]))
