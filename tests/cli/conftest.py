"""Fixtures for running the real command line on small stacks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from napari_drososeg.samples import synthetic_stack

Result = Any


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
