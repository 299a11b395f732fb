"""Small volumes, and runs of the batch room without a command line around them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from napari_drososeg.batch import Batch, BatchConfig, Event, plan_job
from napari_drososeg.inference import PredictConfig
from napari_drososeg.io import read_labels
from napari_drososeg.samples import synthetic_stack
from napari_drososeg.zoo import find_card

SHAPE = (5, 200, 168)
PREDICT = PredictConfig(engine="torch", precision="f32", pixel_size=4.6, threads=1)
CONFIG = BatchConfig(predict=PREDICT, block=(2, 128, 128))


@pytest.fixture(scope="session")
def pixels() -> np.ndarray:
    """(5, 200, 168) uint8."""
    return np.asarray(synthetic_stack(SHAPE, 3)[0].data)


@pytest.fixture
def volume(tmp_path: Path, pixels: np.ndarray) -> Path:
    """The pixels as a zarr in small chunks."""
    path = tmp_path / "in.zarr"
    array = zarr.create_array(path, shape=pixels.shape, chunks=(1, 50, 60), dtype=np.uint8)
    array[:] = pixels
    return path


@pytest.fixture
def make(network: Path) -> Callable[..., Batch]:
    """Prepare a run."""

    def prepared(
        source: Path, output: Path, config: BatchConfig = CONFIG, *, by: Path = network, **changes: Any
    ) -> Batch:
        if output.suffix != ".zarr":
            config = replace(config, block=None)
        batch = Batch(plan_job(source, str(output), None), find_card(str(by)), replace(config, **changes), str)
        batch.prepare()
        return batch

    return prepared


@pytest.fixture
def done(make: Callable[..., Batch]) -> Callable[..., list[Event]]:
    """Make a run; all of its items have to be done."""

    def run(*arguments: Any, **changes: Any) -> list[Event]:
        events = list(make(*arguments, **changes).run())
        outcomes = [e.outcome for e in events if e.outcome is not None]
        assert outcomes
        assert all(o.state in ("done", "skipped") for o in outcomes), outcomes
        return events

    return run


@pytest.fixture
def whole() -> Callable[[Path], np.ndarray]:
    """Read labels."""

    def read(path: Path) -> np.ndarray:
        labels = read_labels(path)
        return np.stack([labels.read(z) for z in range(labels.n_sections)])

    return read


@pytest.fixture
def content() -> Callable[[Path], dict[str, bytes]]:
    """Read all files of a folder, or one file."""

    def read(path: Path) -> dict[str, bytes]:
        if path.is_file():
            return {path.name: path.read_bytes()}
        return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}

    return read
