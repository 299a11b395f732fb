"""A data set like the public one, for what is made for that one alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_drososeg.samples import synthetic_stack

EDGE = 256
VALUES = np.array([0, 255, 0, 191], np.uint8)  # class -> a value of the original labels


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen sections in the layout of the public data set."""
    root = tmp_path_factory.mktemp("drawn")
    stack, truth = synthetic_stack((16, EDGE, EDGE))
    for folder in ("raw", "labels"):
        (root / "stack1" / folder).mkdir(parents=True)
    for z in range(16):
        tifffile.imwrite(root / f"stack1/raw/{z:02d}.tif", stack.read(z))
        Image.fromarray(VALUES[truth[z]]).save(root / f"stack1/labels/labels{z:08d}.png")
    return root
