"""A synthetic ssTEM stack with exact truth."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_drososeg.errors import DrososegError
from napari_drososeg.io.stack import Stack
from napari_drososeg.io.units import VoxelSize
from napari_drososeg.samples.drawing import draw_section
from napari_drososeg.samples.geometry import make_geometry

VOXEL_SIZE: VoxelSize = (50.0, 4.6, 4.6)
"""(z, y, x) in nm, that of the real stack."""


def synthetic_stack(shape: tuple[int, int, int] = (8, 512, 512), seed: int = 0) -> tuple[Stack, NDArray[np.uint8]]:
    """Make a stack that looks like serial sections of a fly's nerve cord, and the labels it was drawn from.

    Cells with dark membranes go on from section to section; mitochondria have cristae and a membrane of their own;
    there are vesicles, grains, noise, drift between sections and jumps of contrast. Nothing in it is real tissue.

    Parameters
    ----------
    shape : tuple of three int
        (Z, Y, X).
    seed : int
        The same seed and shape give the same stack.

    Returns
    -------
    stack : Stack
        uint8, in memory, voxel size (50, 4.6, 4.6) nm.
    truth : ndarray of uint8, shape (Z, Y, X)
        1 cytoplasm, 2 cell membrane, 3 mitochondria, for every pixel; about 77, 18 and 5 percent.

    Raises
    ------
    DrososegError
        If a length is not positive.
    """
    if len(shape) != 3 or min(shape) < 1:
        raise DrososegError(f"A synthetic stack needs three positive lengths (Z, Y, X), not {tuple(shape)}.")
    rng = np.random.default_rng(seed)
    size = (int(shape[0]), int(shape[1]), int(shape[2]))
    image = np.empty(size, np.uint8)
    truth = np.ones(size, np.uint8)
    tints = rng.normal(0, 14, 4096).astype(np.float32)
    for z, geometry in enumerate(make_geometry(rng, size)):
        truth[z][geometry.membrane] = 2
        truth[z][geometry.mitochondria > 0] = 3
        image[z] = draw_section(rng, geometry, tints)
    return Stack(image, "Synthetic ssTEM", VOXEL_SIZE), truth
