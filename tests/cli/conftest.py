"""Fixtures for running the real command line on small stacks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from napari_drososeg.cli import app
from napari_drososeg.samples import synthetic_stack

Result = Any


@pytest.fixture
def drososeg() -> Callable[..., Result]:
    """Run a command in this process."""

    def run(*arguments: object, code: int = 0) -> Result:
        result = CliRunner().invoke(app, [str(a) for a in arguments])
        assert result.exit_code == code, result.output
        assert code == 0 or len(result.stderr.strip().splitlines()) >= 1
        return result

    return run


@pytest.fixture(scope="session")
def network(tiny_network: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny network with its last layer balanced, so that all three classes occur in its labels."""
    import torch

    from napari_drososeg.checkpoint import load_model, save_checkpoint
    from napari_drososeg.data import measure, normalise

    spec, model = load_model(tiny_network)
    stack, _ = synthetic_stack((1, 128, 128), 2)
    section = stack.read(0)
    with torch.inference_mode():
        logits = model(torch.from_numpy(normalise(section, measure(section)))[None, None])[0]
        last = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d)][-1]
        mean, std = logits.mean((1, 2)), logits.std((1, 2))
        last.weight /= std[:, None, None, None]
        last.bias -= mean
        last.bias /= std
    return save_checkpoint(
        tmp_path_factory.mktemp("balanced") / "tiny.safetensors", model.state_dict(), spec, half=False
    )


@pytest.fixture
def predict(drososeg: Callable[..., Result], network: Path) -> Callable[..., Any]:
    """Run ``drososeg predict --json`` with the small network on torch in f32, which needs no conversion."""

    def run(*arguments: object, code: int = 0) -> Any:
        fixed = ("--model", network, "--engine", "torch", "--precision", "f32", "--json")
        result = drososeg("predict", *arguments, *fixed, code=code)
        return json.loads(result.stdout) if code == 0 else result

    return run


@pytest.fixture(scope="session")
def synthetic() -> tuple[np.ndarray, np.ndarray]:
    """A synthetic stack of 3 sections of 96 x 80 pixels, and its truth."""
    stack, truth = synthetic_stack((3, 96, 80), 1)
    return np.stack([stack.read(z) for z in range(3)]), truth


@pytest.fixture
def stack_file(tmp_path: Path, synthetic: tuple[np.ndarray, np.ndarray]) -> Path:
    """The stack as one TIFF that knows its voxel size."""
    path = tmp_path / "stack.tif"
    tifffile.imwrite(
        path,
        synthetic[0],
        imagej=True,
        metadata={"axes": "ZYX", "spacing": 0.05, "unit": "um"},
        resolution=(1000 / 4.6, 1000 / 4.6),
    )
    return path


@pytest.fixture
def stack_folder(tmp_path: Path, synthetic: tuple[np.ndarray, np.ndarray]) -> Path:
    """The stack as a folder of sections of unknown pixel size."""
    folder = tmp_path / "sections"
    folder.mkdir()
    for z, section in enumerate(synthetic[0]):
        tifffile.imwrite(folder / f"s{z + 8}.tif", section)
    return folder
