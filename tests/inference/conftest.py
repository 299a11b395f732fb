from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from numpy.typing import NDArray

settings.register_profile("drososeg", deadline=None)  # the first call imports scipy
settings.load_profile("drososeg")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small gain nothing from threads, and lose much where other processes want the cores too."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def inference_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("inference-cache")


@pytest.fixture(autouse=True)
def one_cache(own_folders: None, inference_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Converting takes seconds: do it once for all tests of this folder."""
    monkeypatch.setenv("DROSOSEG_CACHE", str(inference_cache))


@pytest.fixture(scope="session")
def texture() -> NDArray[np.uint8]:
    """(3, 331, 397): blurred noise, odd sizes, contrast different in each section."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(0)
    volume = gaussian_filter(rng.standard_normal((3, 331, 397)), (0, 2, 2))
    volume /= volume.std()
    return np.clip(128 + volume * np.array([20, 30, 40])[:, None, None], 1, 255).astype(np.uint8)


@pytest.fixture
def network_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Make a checkpoint of a network that a test defines."""
    from napari_drososeg.checkpoint import NetworkSpec, save_checkpoint
    from napari_drososeg.classes import ClassTable, SegmentationClass
    from napari_drososeg.data import Normalisation
    from napari_drososeg.models import ARCHITECTURES, Architecture, create_model, reach

    def make(module_class, *, n_classes=2, stride=1, receptive_field=0, global_context=False, **facts) -> Path:
        name = module_class.__name__.lower()
        monkeypatch.setattr(sys.modules[__name__], module_class.__name__, module_class, raising=False)
        entry = Architecture(
            name, name, f"{__name__}:{module_class.__name__}", stride, receptive_field, global_context, ""
        )
        monkeypatch.setitem(ARCHITECTURES, name, entry)
        monkeypatch.setitem(reach.PATHS, name, lambda at, **_: [at])  # every pixel sees itself alone
        colors = ("#56B4E9", "#E69F00", "#CC79A7")
        classes = ClassTable(tuple(SegmentationClass(k + 1, f"class {k + 1}", colors[k]) for k in range(n_classes)))
        spec = NetworkSpec(
            name, name, name, {}, classes, facts.pop("normalisation", Normalisation()), 4.6, stride,
            receptive_field, global_context, facts.pop("halo", 0), "CC0-1.0",
        )  # fmt: skip
        state = create_model(name, n_classes).state_dict()
        return save_checkpoint(tmp_path / f"{name}.safetensors", state, spec, half=False)

    return make
