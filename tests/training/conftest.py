from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from napari_drososeg.data.sections import AnnotatedSection


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small gain nothing from threads, and lose much where other processes want the cores too."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def section() -> AnnotatedSection:
    """Bright, dark and middle stripes: three classes a network learns in seconds."""
    stripes = (np.arange(96) // 12 % 3).astype(np.float32)
    image = np.tile(stripes - 1, (96, 1))
    return AnnotatedSection(image.astype(np.float32), (image + 2).astype(np.uint8), name="stripes")
