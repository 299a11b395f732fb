"""The registry of architectures: strings and numbers only, so that listing them does not import torch."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from napari_drososeg.errors import DrososegError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Architecture:
    """Facts about a kind of network that hold whatever its width and weights.

    Parameters
    ----------
    name : str
        What `create_model` and checkpoints call it.
    title : str
        What people call it.
    factory : str
        ``"module:attribute"`` of a callable ``(n_classes, **arguments) -> torch.nn.Module``.
    stride : int
        Total stride in px: image sides are padded to multiples of it, tiles start at multiples of it.
    receptive_field : int
        One-sided reach in px: a pixel's result depends on no pixel further away than this in y or in x. A halo of
        this many pixels (rounded up to the stride) makes tiled inference exact. 0 where `global_context` is set.
    global_context : bool
        Whether every pixel depends on the whole input, so that tiles cannot be exact and are blended.
    reference : str
        Publication.
    """

    name: str
    title: str
    factory: str
    stride: int
    receptive_field: int
    global_context: bool
    reference: str


ARCHITECTURES: dict[str, Architecture] = {
    a.name: a
    for a in (
        Architecture(
            name="unet",
            title="U-Net",
            factory="napari_drososeg.models.unet:UNet",
            stride=16,
            receptive_field=150,
            global_context=False,
            reference="Ronneberger, Fischer, Brox: U-Net. MICCAI 2015, doi 10.1007/978-3-319-24574-4_28; "
            "encoder of Simonyan, Zisserman: VGG16. ICLR 2015, arXiv 1409.1556",
        ),
    )
}


def find_architecture(name: str) -> Architecture:
    """Return the architecture called `name`.

    Raises
    ------
    DrososegError
        If there is none; the message lists those there are.
    """
    if name not in ARCHITECTURES:
        raise DrososegError(f"There is no architecture '{name}'. Choose one of: {', '.join(ARCHITECTURES)}.")
    return ARCHITECTURES[name]


def create_model(architecture: str, n_classes: int, **arguments: Any) -> torch.nn.Module:
    """Build a network with random weights.

    Parameters
    ----------
    architecture : str
        Key of `ARCHITECTURES`.
    n_classes : int
        Number of output channels.
    **arguments
        Passed on to the architecture, such as ``width=0.5``.

    Returns
    -------
    torch.nn.Module
        Maps images (N, 1, H, W) to logits (N, n_classes, H, W) for any H and W >= 1: sides are padded to a multiple
        of the stride and the result is cropped.

    Raises
    ------
    DrososegError
        If there is no such architecture.
    """
    from napari_drososeg.models.padding import Padded

    entry = find_architecture(architecture)
    module, attribute = entry.factory.split(":")
    network: torch.nn.Module = getattr(import_module(module), attribute)(n_classes, **arguments)
    return Padded(network, entry.stride)
