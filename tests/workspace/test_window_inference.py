"""A network that is retrained must see what it sees when it predicts."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_drososeg.checkpoint import load_model, load_spec, save_checkpoint
from napari_drososeg.data import measure, normalise
from napari_drososeg.inference import PredictConfig, Predictor
from napari_drososeg.io import Stack
from napari_drososeg.models import create_model, find_architecture
from napari_drososeg.workspace import Workspace
from napari_drososeg.workspace.adaptation import reestimate_norms
from napari_drososeg.workspace.recipes import RetrainSettings
from napari_drososeg.workspace.retraining import retrain
from napari_drososeg.workspace.window_inference import parts, probabilities

Annotated = tuple[Workspace, Stack, np.ndarray]
TILE = 64
PLAIN = PredictConfig(engine="torch", precision="f32", device="cpu")


@pytest.fixture
def pooling_network(tiny_network: Path, tmp_path: Path) -> Path:
    """A narrow DeepLabv3+, whose image pooling sees the whole tile."""
    arguments = {"width": 0.0625, "decoder_width": 0.0625}
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = create_model("deeplabv3plus", 3, **arguments)
    seen = np.random.default_rng(0).normal(size=(TILE, TILE)).astype(np.float32)
    reestimate_norms(model, [seen], nullcontext)  # or it would say the same everywhere
    kind = find_architecture("deeplabv3plus", **arguments)
    spec = replace(
        load_spec(tiny_network), name="pooling", architecture="deeplabv3plus", arguments=arguments, stride=kind.stride,
        receptive_field=kind.receptive_field, global_context=True, halo=16, tile=TILE,
    )  # fmt: skip
    return save_checkpoint(tmp_path / "pooling.safetensors", model.state_dict(), spec)


def test_a_window_is_seen_as_a_prediction_sees_it(pooling_network: Path, annotated: Annotated) -> None:
    _, stack, _ = annotated
    spec, model = load_model(pooling_network)
    section = stack.read(0)
    image = normalise(section, measure(section))
    found = probabilities(model.eval(), image, spec, nullcontext)
    predictor = Predictor(pooling_network, PLAIN)
    for result in predictor.run(stack, predictor.plan(stack, sections=[0]), outputs={"probabilities"}):
        np.testing.assert_allclose(found[:, *result.slices], result.probabilities, atol=2e-3)  # these are float16
    whole = probabilities(model, image, replace(spec, global_context=False), nullcontext)
    assert np.abs(whole - found).max() > 1e-3  # what the size of a tile changes, which the comparison would see


def test_norms_see_tiles_where_context_is_global(pooling_network: Path) -> None:
    spec, image = load_spec(pooling_network), np.zeros((100, 150), np.float32)
    assert {p.shape for p in parts(image, spec)} == {(TILE, TILE)}
    assert [p.shape for p in parts(image, replace(spec, global_context=False))] == [image.shape]


def test_such_a_network_is_retrained_on_patches_of_its_tile(pooling_network: Path, annotated: Annotated) -> None:
    workspace, stack, _ = annotated
    *_, last = retrain(workspace, stack, RetrainSettings(start=str(pooling_network), steps=2, device="cpu"))
    recipe = last["round"]["settings"]["recipe"]
    assert (recipe["patch"], recipe["batch"]) == (96, 4)  # a tile of 64 px is smaller than the patches of this effort
    large = save_checkpoint(
        pooling_network.with_name("large.safetensors"),
        load_model(pooling_network)[1].state_dict(),
        replace(load_spec(pooling_network), tile=256),
    )
    *_, last = retrain(workspace, stack, RetrainSettings(start=str(large), steps=2, device="cpu"))
    recipe = last["round"]["settings"]["recipe"]
    assert (recipe["patch"], recipe["batch"]) == (96, 1)  # as large as the image allows
    assert load_spec(workspace.rounds.checkpoint(2)).tile == 256
