"""What a network in training says of a window: the same as it will say when it predicts.

A network with global context (attention, image pooling) is only itself on tiles of the size it was trained on:
DeepLabv3+ falls from a mean IoU of 0.86 to 0.57 when it sees a section of 1024 px at once. For such a network a window
is cut into those tiles, and they are blended, as in `napari_drososeg.inference`; any other network sees a window whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from napari_drososeg.inference.blending import Blender
from napari_drososeg.inference.rescaling import crop, source_region, to_network
from napari_drososeg.inference.tiling import Grid, Tile, plan_tiles

if TYPE_CHECKING:
    from torch import Tensor, nn

    from napari_drososeg.checkpoint import NetworkSpec


def probabilities(
    model: nn.Module, image: NDArray[np.float32], spec: NetworkSpec, autocast: Any
) -> NDArray[np.float32]:
    """Return the probabilities of a network on a window.

    Parameters
    ----------
    model : torch.nn.Module
        In evaluation mode.
    image : ndarray of float32, (H, W)
        Normalised, at the network's pixel size.
    spec : NetworkSpec
        Of the network.
    autocast : callable
        Makes the context manager to compute in.

    Returns
    -------
    ndarray of float32, (C, H, W)
        Adding up to 1 over C.
    """

    def infer(part: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode(), autocast():
            logits = model(as_batch(part, model))
        found: NDArray[np.float32] = logits[0].float().softmax(0).cpu().numpy()
        return found

    if not spec.global_context:
        return infer(image)
    tiles = _tiles(image, spec)
    blender = Blender(tiles)
    found = np.empty((len(spec.classes), *image.shape), np.float32)
    for tile in tiles:
        for done, blended in blender.add(tile, crop(infer(_read(image, tile)), tile)):
            found[:, *done.write] = blended
    return found


def parts(image: NDArray[np.float32], spec: NetworkSpec) -> Iterator[NDArray[np.float32]]:
    """Yield what a network sees at once of a window (H, W): all of it or, with global context, one tile (h, w) each."""
    if not spec.global_context:
        yield image
        return
    for tile in _tiles(image, spec):
        yield _read(image, tile)


def as_batch(image: NDArray[np.float32], model: nn.Module) -> Tensor:
    """Return an image (H, W) as a batch (1, 1, H, W) where the network is."""
    place = next(model.parameters()).device
    return torch.from_numpy(np.ascontiguousarray(image))[None, None].to(place, memory_format=torch.channels_last)


def _tiles(image: NDArray[np.float32], spec: NetworkSpec) -> list[Tile]:
    height, width = image.shape
    grid = Grid((height, width), (height, width))
    return plan_tiles(grid, tile=spec.tile or max(image.shape), halo=spec.halo, stride=spec.stride, blend=True)


def _read(image: NDArray[np.float32], tile: Tile) -> NDArray[np.float32]:
    return to_network(image[source_region(tile)], tile)
