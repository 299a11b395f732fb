"""The networks that ship: whole, described, and small enough together."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_drososeg.checkpoint import load_model, load_spec, sha256
from napari_drososeg.inference import PredictConfig, predict
from napari_drososeg.io import as_stack
from napari_drososeg.models import ARCHITECTURES
from napari_drososeg.samples import synthetic_stack
from napari_drososeg.zoo import DEFAULT_NETWORK, REGISTRY, list_networks, read_registry

SHIPPED = [name for name, entry in ARCHITECTURES.items() if entry.variant_of is None]
BUDGET = 95_000_000


def test_all_eleven_ship_and_fit_the_budget() -> None:
    rows = read_registry()
    assert set(rows) == set(SHIPPED)
    files = {name: REGISTRY.parent / str(row["file"]) for name, row in rows.items()}
    assert sum(path.stat().st_size for path in files.values()) <= BUDGET
    assert {name: sha256(path) for name, path in files.items()} == {n: r["sha256"] for n, r in rows.items()}
    assert {name: path.stat().st_size for name, path in files.items()} == {n: r["bytes"] for n, r in rows.items()}
    assert {card.name for card in list_networks() if card.source == "shipped"} == set(SHIPPED)
    assert DEFAULT_NETWORK in rows


@pytest.mark.parametrize("name", SHIPPED)
def test_each_has_a_card_and_weights_that_fit(name: str) -> None:
    path = REGISTRY.parent / f"{name}.safetensors"
    spec = load_spec(path)
    assert (spec.name, spec.architecture) == (name, name)
    assert spec.licence == "CC-BY-NC-SA-3.0"
    assert spec.pixel_size == 4.6
    assert {"data", "sections", "citation", "licence", "recipe", "minutes", "curve"} <= set(spec.training)
    if name != "swin-unet":  # of which the development run was not kept
        assert len(spec.training["development"]["curve"]["mean_iou"]) >= 8
    assert spec.metrics["megapixels_per_second"] > 0
    assert set(spec.metrics["iou"]) == set(spec.classes.names)
    # scored by a development run that never saw these sections; worse than this, something is broken
    assert spec.metrics["mean_iou"] > 0.7
    assert spec.metrics["sections"] == "13-15"
    assert spec.halo % spec.stride == 0
    load_model(path)  # raises unless weights and description belong together


@pytest.mark.parametrize("name", SHIPPED)
def test_each_tells_the_classes_of_a_drawn_stack_apart(name: str) -> None:
    stack, truth = synthetic_stack((1, 256, 256))
    labels = predict(stack, name, PredictConfig(device="cpu", engine="torch"))
    assert labels.shape == truth.shape
    assert np.mean(labels == truth) > 0.75  # a stack of another kind than the real one, so no more than this
    assert as_stack(labels).data.dtype == np.uint8


def test_transunet_runs_on_openvino(tmp_path: Path) -> None:
    """In a process of its own: without our hint, OpenVINO ends it with a fault on processors without AVX-512."""
    pytest.importorskip("openvino")
    stack, _ = synthetic_stack((1, 256, 256))
    tifffile.imwrite(tmp_path / "in.tif", stack.read(0))
    command = ["predict", "in.tif", "-o", "out.tif", "--model", "transunet", "--device", "cpu", "--engine", "openvino"]
    subprocess.run(
        [sys.executable, "-c", "from napari_drososeg.cli import app; app()", *command], cwd=tmp_path, check=True
    )
    plain = PredictConfig(device="cpu", engine="torch", precision="f32")
    expected = predict(as_stack(stack.read(0)[None]), "transunet", plain)[0]
    assert np.mean(tifffile.imread(tmp_path / "out.tif") == expected) > 0.99
