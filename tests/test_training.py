from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from napari_drososeg.data.patches import AnnotatedSection
from napari_drososeg.errors import DrososegError
from napari_drososeg.losses import cross_entropy
from napari_drososeg.training import TrainConfig, Training, one_cycle

CONFIG = TrainConfig(
    arguments={"width": 0.0625}, steps=12, batch=2, patch=32, learning_rate=5e-3, precision="32-true", accelerator="cpu"
)


@pytest.fixture
def section() -> AnnotatedSection:
    """Bright, dark and middle stripes: three classes a network learns in seconds."""
    stripes = (np.arange(96) // 12 % 3).astype(np.float32)
    image = np.tile(stripes - 1, (96, 1))
    return AnnotatedSection(image.astype(np.float32), (image + 2).astype(np.uint8))


def losses(training: Training, **kwargs: int) -> dict[int, float]:
    return {e.step: e.loss for e in training.run(event_every=1, **kwargs)}


def test_it_learns(section: AnnotatedSection) -> None:
    training = Training([section], replace(CONFIG, steps=60, average=0.9), validation=[section])
    events = list(training.run(event_every=20, validate_every=60))
    assert [e.step for e in events] == [20, 40, 60]
    assert events[-1].loss < 0.75 * events[0].loss
    assert events[-1].scores is not None
    assert events[-1].scores.mean_iou > 0.8


def test_an_interrupted_run_resumes_exactly(section: AnnotatedSection, tmp_path: Path) -> None:
    straight = Training([section], CONFIG)
    expected = losses(straight)

    state = tmp_path / "state.safetensors"
    run = Training([section], CONFIG, state_file=state).run(event_every=1, validate_every=5)
    while next(run).step < 7:  # stopped two steps after the state of step 5 was saved
        pass
    run.close()
    resumed = Training([section], CONFIG, state_file=state)
    assert resumed.step == 5
    found = losses(resumed, validate_every=5)
    assert found == {k: v for k, v in expected.items() if k > 5}
    weights = straight.weights()
    assert all(torch.equal(v, weights[k]) for k, v in resumed.weights().items())


def test_a_state_of_other_settings_is_refused(section: AnnotatedSection, tmp_path: Path) -> None:
    state = tmp_path / "state.safetensors"
    list(Training([section], replace(CONFIG, steps=1), state_file=state).run())
    with pytest.raises(DrososegError, match="other settings"):
        Training([section], CONFIG, state_file=state)


def test_a_state_of_other_sections_is_refused(section: AnnotatedSection, tmp_path: Path) -> None:
    state = tmp_path / "state.safetensors"
    list(Training([section], replace(CONFIG, steps=1), state_file=state).run())
    other = AnnotatedSection(section.image, section.labels.T.copy())
    with pytest.raises(DrososegError, match="other sections"):
        Training([other], replace(CONFIG, steps=1), state_file=state)


def test_dropout_resumes_exactly_too(section: AnnotatedSection, tmp_path: Path) -> None:
    config = replace(CONFIG, architecture="deeplabv3plus", steps=4)
    expected = losses(Training([section], config))
    state = tmp_path / "state.safetensors"
    run = Training([section], config, state_file=state).run(event_every=1, validate_every=2)
    while next(run).step < 3:
        pass
    run.close()
    assert losses(Training([section], config, state_file=state)) == {k: expected[k] for k in (3, 4)}


def test_labels_beyond_the_classes_are_refused(section: AnnotatedSection) -> None:
    with pytest.raises(DrososegError, match="holds the label 3, but there are only 2"):
        Training([section], replace(CONFIG, n_classes=2))


def test_a_loss_that_is_not_finite_stops_with_a_reason(section: AnnotatedSection) -> None:
    with pytest.raises(DrososegError, match="lower the learning rate"):
        list(Training([section], replace(CONFIG, learning_rate=1e30), validation=[]).run(event_every=1))


def test_fine_tuning_starts_from_the_given_weights(section: AnnotatedSection) -> None:
    first = Training([section], CONFIG)
    list(first.run())
    again = Training([section], replace(CONFIG, seed=5), start=first.weights())
    assert all(torch.equal(v, first.weights()[k]) for k, v in again.model.module.state_dict().items())


def test_one_cycle_rises_to_the_peak_and_falls_to_nothing() -> None:
    config = TrainConfig(steps=100, warm_up=0.2, learning_rate=1.0)
    rates = [one_cycle(step, config) for step in range(100)]
    assert rates[0] == pytest.approx(1 / 25)
    assert max(rates) == rates[20] == pytest.approx(1)
    assert rates[-1] < 0.01


def test_cross_entropy_is_the_mean_over_labelled_pixels() -> None:
    logits = torch.randn(2, 3, 4, 5, requires_grad=True)
    labels = torch.randint(0, 4, (2, 4, 5), dtype=torch.uint8)
    kept = labels > 0
    probabilities = functional.softmax(logits, 1).permute(0, 2, 3, 1)[kept]
    expected = -probabilities[torch.arange(len(probabilities)), labels[kept].long() - 1].log().mean()
    torch.testing.assert_close(cross_entropy(logits, labels), expected)


def test_cross_entropy_of_nothing_is_zero_with_zero_gradient() -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    cross_entropy(logits, torch.zeros(1, 4, 4, dtype=torch.uint8)).backward()
    assert logits.grad is not None
    assert not logits.grad.any()
