"""A small image with a workspace."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_drososeg.io import Stack, read_stack
from napari_drososeg.workspace import Workspace, create_workspace


@pytest.fixture
def image(tmp_path: Path) -> Stack:
    """Three sections larger than a chunk in one direction, in a file."""
    pixels = np.random.default_rng(0).integers(1, 255, (3, 96, 600), np.uint8)
    tifffile.imwrite(tmp_path / "image.tif", pixels, imagej=True, metadata={"axes": "ZYX"})
    return read_stack(tmp_path / "image.tif")


@pytest.fixture
def workspace(tmp_path: Path, image: Stack) -> Iterator[Workspace]:
    with create_workspace(tmp_path / "image.tif.drososeg", image) as made:
        yield made


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[], AbstractContextManager[None]]:
    """Make every write fail half-way, as on a disk without space."""

    @contextmanager
    def full() -> Iterator[None]:
        write = Path.write_bytes

        def fail(path: Path, content: bytes) -> int:
            write(path, content[: len(content) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch:
            patch.setattr(Path, "write_bytes", fail)
            yield

    return full


def stripes() -> tuple[np.ndarray, np.ndarray]:
    """Two sections of dark, middle and bright stripes (Z, Y, X), and their truth."""
    truth = np.tile((np.arange(96) // 12 % 3 + 1).astype(np.uint8), (2, 96, 1))
    noise = np.random.default_rng(1).normal(0, 12, truth.shape)
    return (60 * truth + noise).astype(np.uint8), truth


def textures() -> tuple[np.ndarray, np.ndarray]:
    """One section (Y, X) of fine bars, coarse bars and none: classes that differ in scale alone; and its truth."""
    y, x = np.mgrid[:192, :192]
    truth = (y // 32 % 3 + 1).astype(np.uint8)
    bars = np.where(truth == 1, x // 2 % 2, np.where(truth == 2, x // 4 % 2, 0.5))
    noise = np.random.default_rng(2).normal(0, 8, truth.shape)
    return np.clip(60 + 130 * bars + noise, 1, 255).astype(np.uint8), truth


def teach(network: Path, target: Path, image: np.ndarray, truth: np.ndarray) -> Path:
    """Train a network on one section for a moment."""
    from napari_drososeg.checkpoint import load_model, save_checkpoint
    from napari_drososeg.data.sections import annotated_section
    from napari_drososeg.training import TrainConfig, Training

    spec, model = load_model(network)
    config = TrainConfig(arguments=spec.arguments, steps=60, batch=4, patch=64, learning_rate=1e-2, accelerator="cpu")
    training = Training([annotated_section(image, truth, "lesson")], config, start=model.state_dict())
    list(training.run())
    return save_checkpoint(target, training.weights(), spec)


@pytest.fixture(scope="session")
def taught(tiny_network: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny network after it has learnt such stripes."""
    images, truth = stripes()
    return teach(tiny_network, tmp_path_factory.mktemp("taught") / "taught.safetensors", images[0], truth[0])


@pytest.fixture
def taught_textures(tiny_network: Path, tmp_path: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    """The tiny network after it has learnt such textures, and these at half their resolution, with the truth."""
    image, truth = textures()
    half = image.reshape(96, 2, 96, 2).mean((1, 3)).astype(np.uint8)
    return teach(tiny_network, tmp_path / "textures.safetensors", image, truth), half, truth[::2, ::2]


@pytest.fixture
def annotated(tmp_path: Path) -> Iterator[tuple[Workspace, Stack, np.ndarray]]:
    """Two sections of stripes in a file, with a workspace in which a few strokes are painted; and the truth."""
    images, truth = stripes()
    tifffile.imwrite(tmp_path / "stripes.tif", images)
    stack = read_stack(tmp_path / "stripes.tif")
    with create_workspace(tmp_path / "stripes.tif.drososeg", stack) as made:
        for y in (10, 40, 70):
            place = slice(y, y + 3), slice(10, 71)
            made.annotation.write(0, *place, truth[0][place])
        yield made, stack, truth
