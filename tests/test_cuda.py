"""What only a graphics card can show. CI has none: run `pytest tests/test_cuda.py` on a machine that has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_drososeg.data.augmentation import PRESETS
from napari_drososeg.data.sections import AnnotatedSection, annotated_section
from napari_drososeg.inference import PredictConfig, Predictor, predict
from napari_drososeg.io import Stack
from napari_drososeg.samples import synthetic_stack
from napari_drososeg.training import TrainConfig, Training

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")

CONFIG = TrainConfig(arguments={"width": 0.0625}, steps=60, batch=4, patch=64, learning_rate=5e-3, accelerator="cuda")


@pytest.fixture(scope="module")
def sample() -> tuple[Stack, AnnotatedSection]:
    stack, truth = synthetic_stack((2, 512, 512), 5)
    return stack, annotated_section(stack.read(0), truth[0], "synthetic")


# random weights leave many pixels undecided: a processor's own bf16 agrees with its f32 on 0.88 of them
@pytest.mark.parametrize(("precision", "equal"), [("f32", 0.9995), ("f16", 0.99), ("bf16", 0.85)])
@pytest.mark.parametrize("name", ["network", "global_network"])
def test_labels_are_those_of_the_processor(
    name: str, precision: str, equal: float, sample: tuple[Stack, AnnotatedSection], request: pytest.FixtureRequest
) -> None:
    path: Path = request.getfixturevalue(name)
    expected = predict(sample[0], path, PredictConfig(device="cpu", engine="torch", precision="f32"))
    predictor = Predictor(path, PredictConfig(device="cuda", precision=precision))  # type: ignore[arg-type]
    labels = np.zeros(sample[0].shape, np.uint8)
    for result in predictor.run(sample[0], predictor.plan(sample[0])):
        labels[result.z, *result.slices] = result.labels
    assert "CUDA" in predictor.description
    assert np.mean(labels == expected) >= equal


def test_auto_takes_the_card(network: Path) -> None:
    predictor = Predictor(network, PredictConfig())
    assert (predictor.choice.device, predictor.choice.precision) == ("cuda:0", "f16")


def test_a_full_card_makes_tiles_smaller_and_changes_no_label(
    network: Path, sample: tuple[Stack, AnnotatedSection]
) -> None:
    config = PredictConfig(device="cuda", precision="f32", batch=2)
    expected = predict(sample[0], network, config)
    torch.cuda.empty_cache()
    notices: list[str] = []
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 60 * 2**20) / total)
    try:
        found = predict(sample[0], network, config, notify=notices.append)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert any("emory" in n for n in notices), notices
    assert np.mean(found == expected) > 0.999


def test_it_trains_and_goes_on_where_it_was(sample: tuple[Stack, AnnotatedSection], tmp_path: Path) -> None:
    config = replace(CONFIG, precision="32-true", augmentation=replace(PRESETS["strong"], resampled=0.5))
    sections = [sample[1]]
    whole = list(Training(sections, config, validation=sections).run(event_every=20, validate_every=20))
    assert whole[-1].loss < 0.8 * whole[0].loss
    run = Training(sections, config, validation=sections, folder=tmp_path).run(event_every=20, validate_every=20)
    next(run)
    run.close()
    rest = list(Training(sections, config, validation=sections, folder=tmp_path).run(event_every=20, validate_every=20))
    assert [e.step for e in rest] == [40, 60]
    # the same patches and dropout; cuDNN's sums may differ in their order
    np.testing.assert_allclose([e.loss for e in rest], [e.loss for e in whole[1:]], rtol=0.05)


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_half_precision_learns(precision: str, sample: tuple[Stack, AnnotatedSection]) -> None:
    found = list(Training([sample[1]], replace(CONFIG, precision=precision)).run(event_every=20))
    assert np.isfinite([e.loss for e in found]).all()
    assert found[-1].loss < 0.8 * found[0].loss
