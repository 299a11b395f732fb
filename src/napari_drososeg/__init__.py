"""Interactive segmentation of serial-section electron microscopy in napari.

Importing this package loads neither torch nor Qt: the public names are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0.dev0"

if TYPE_CHECKING:
    from napari_drososeg.classes import DROSOPHILA_CLASSES, ClassTable
    from napari_drososeg.inference import PredictConfig, Predictor, predict
    from napari_drososeg.io import Stack, as_stack, read_labels, read_stack, write_labels
    from napari_drososeg.zoo import find_network, list_networks

_HOMES = {
    "ClassTable": "classes",
    "DROSOPHILA_CLASSES": "classes",
    "PredictConfig": "inference",
    "Predictor": "inference",
    "Stack": "io",
    "as_stack": "io",
    "find_network": "zoo",
    "list_networks": "zoo",
    "predict": "inference",
    "read_labels": "io",
    "read_stack": "io",
    "write_labels": "io",
}

__all__ = [
    "DROSOPHILA_CLASSES",
    "ClassTable",
    "PredictConfig",
    "Predictor",
    "Stack",
    "as_stack",
    "find_network",
    "list_networks",
    "predict",
    "read_labels",
    "read_stack",
    "write_labels",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
