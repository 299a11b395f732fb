"""Each loss against its definition, written out in numpy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_drososeg.errors import DrososegError
from napari_drososeg.losses import (
    Loss,
    LossConfig,
    balanced_weights,
    cross_entropy,
    dice,
    distillation,
    focal,
)

Array = NDArray[np.float64]
COUNTS = (600, 300, 100)
WEIGHTS = (1.0, 4.0, 2.5)
ALPHA = (0.25, 0.5, 0.75)


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2, 3, 7, 5, generator=generator)
    labels = torch.randint(0, 4, (2, 7, 5), generator=generator, dtype=torch.uint8)
    return logits.requires_grad_(), labels


def labelled(logits: Tensor, labels: Tensor) -> tuple[Array, NDArray[np.int64]]:
    """Probabilities (n, C) and classes (n,) from 0 of the labelled pixels."""
    values = np.moveaxis(logits.detach().numpy().astype(np.float64), 1, -1)
    powers = np.exp(values)
    probabilities = powers / powers.sum(-1, keepdims=True)
    truth = labels.numpy()
    return probabilities[truth > 0], truth[truth > 0].astype(int) - 1


def own(p: Array, t: NDArray[np.int64]) -> Array:
    return p[np.arange(len(t)), t]


DEFINITIONS: dict[str, Callable[[Array, NDArray[np.int64]], float]] = {
    "cross-entropy": lambda p, t: float(np.mean(-np.log(own(p, t)))),
    "weighted": lambda p, t: float(np.mean(np.array(WEIGHTS)[t] * -np.log(own(p, t)))),
    "class-balanced": lambda p, t: float(np.mean(1000 / (3 * np.array(COUNTS))[t] * -np.log(own(p, t)))),
    "focal": lambda p, t: float(np.mean(np.array(ALPHA)[t] * (1 - own(p, t)) ** 1.5 * -np.log(own(p, t)))),
    "dice": lambda p, t: float(
        np.mean([1 - 2 * p[t == c, c].sum() / (p[:, c].sum() + (t == c).sum()) for c in sorted(set(t))])
    ),
}


@pytest.mark.parametrize("name", DEFINITIONS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_loss_is_its_definition(name: str, layout: torch.memory_format, batch: tuple[Tensor, Tensor]) -> None:
    logits, labels = batch
    config = LossConfig(((name, 1.0),), class_weights=WEIGHTS, gamma=1.5, alpha=ALPHA)
    value = Loss(config, COUNTS)(logits.contiguous(memory_format=layout), labels)
    assert value.item() == pytest.approx(DEFINITIONS[name](*labelled(logits, labels)), rel=1e-5)
    value.backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    unlabelled = (labels == 0)[:, None].expand_as(logits)
    assert not logits.grad[unlabelled].any()
    assert logits.grad[~unlabelled].any()


@pytest.mark.parametrize("name", DEFINITIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nothing_labelled_is_exactly_zero(name: str, dtype: torch.dtype) -> None:
    logits = torch.randn(1, 3, 4, 4).to(dtype).requires_grad_()
    config = LossConfig(((name, 1.0),), class_weights=WEIGHTS)
    value = Loss(config, COUNTS)(logits, torch.zeros(1, 4, 4, dtype=torch.uint8))
    value.backward()
    assert value.dtype == torch.float32
    assert value.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


@pytest.mark.parametrize("name", DEFINITIONS)
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_gradients_are_finite_for_certain_networks(name: str, gamma: float) -> None:
    logits = torch.tensor([[100.0, -100, 0], [0, 0, 100]]).T[None, :, None].requires_grad_()  # one right, one wrong
    config = LossConfig(((name, 1.0),), class_weights=WEIGHTS, gamma=gamma)
    value = Loss(config, COUNTS)(logits, torch.tensor([[[1, 1]]], dtype=torch.uint8))
    value.backward()
    assert torch.isfinite(value)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_a_sum_weighs_its_terms(batch: tuple[Tensor, Tensor]) -> None:
    logits, labels = batch
    value = Loss(LossConfig.parse("cross-entropy + 0.5*dice"), COUNTS)(logits, labels)
    torch.testing.assert_close(value, cross_entropy(logits, labels) + 0.5 * dice(logits, labels))


def test_focal_without_focus_is_cross_entropy(batch: tuple[Tensor, Tensor]) -> None:
    torch.testing.assert_close(focal(*batch, 0.0, torch.ones(3)), cross_entropy(*batch))


def test_balanced_weights_leave_the_mean_pixel_at_one() -> None:
    weights = balanced_weights((600, 0, 100)).numpy()
    np.testing.assert_allclose(weights, [700 / 1200, 0, 700 / 200])
    assert np.dot(weights, (600, 0, 100)) / 700 == pytest.approx(1)
    assert not balanced_weights((0, 0)).any()


def test_dice_of_a_perfect_network_is_zero_whatever_classes_are_missing() -> None:
    labels = torch.tensor([[[1, 1, 3, 0]]], dtype=torch.uint8)
    logits = torch.full((1, 3, 1, 4), -50.0)
    for x, c in enumerate((0, 0, 2, 1)):
        logits[0, c, 0, x] = 50
    assert dice(logits, labels).item() == pytest.approx(0, abs=1e-6)


def test_distillation_is_the_divergence_on_unlabelled_pixels(batch: tuple[Tensor, Tensor]) -> None:
    logits, labels = batch
    teacher = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1)).softmax(1)
    teacher[0, :, :, 0] = 0  # no teacher there
    student = np.moveaxis(logits.detach().softmax(1).numpy(), 1, -1)
    wanted = (labels == 0).numpy() & (teacher.sum(1) > 0).numpy()
    q, p = np.moveaxis(teacher.numpy(), 1, -1)[wanted], student[wanted]
    value = distillation(logits, labels, teacher)
    assert value.item() == pytest.approx(float((q * np.log(q / p)).sum(1).mean()), rel=1e-4)
    value.backward()
    assert logits.grad is not None
    assert not logits.grad[(labels > 0)[:, None].expand_as(logits)].any()
    assert distillation(logits, torch.ones_like(labels), teacher).item() == 0


def test_a_loss_can_be_written_as_text() -> None:
    assert LossConfig.parse("cross-entropy") == LossConfig()
    assert LossConfig.parse("2*focal+weighted:1,5,.5").terms == (("focal", 2.0), ("weighted", 1.0))
    assert LossConfig.parse("weighted:1,5,.5").class_weights == (1, 5, 0.5)
    assert LossConfig.parse("focal") == LossConfig((("focal", 1.0),), alpha=(0.25,), gamma=2)
    assert LossConfig.parse("focal:0.5") == LossConfig((("focal", 1.0),), alpha=(0.5,))
    assert LossConfig.parse("dice+2*focal:1,1.3,1.1:gamma=1.5") == LossConfig(
        (("dice", 1.0), ("focal", 2.0)), alpha=(1, 1.3, 1.1), gamma=1.5
    )
    assert LossConfig.parse("focal:gamma=0").gamma == 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "mse",
        "cross-entropy+",
        "dice:1,2",
        "0*dice",
        "weighted",
        "-1*dice",
        "weighted:1,2:gamma=2",
        "focal:gamma",
        "focal:2;",
    ],
)
def test_what_is_no_loss_is_refused(text: str) -> None:
    with pytest.raises(DrososegError):
        LossConfig.parse(text)


def test_weights_must_fit_the_classes() -> None:
    with pytest.raises(DrososegError, match="2 class weights for 3 classes"):
        Loss(LossConfig.parse("weighted:1,2"), COUNTS)
    with pytest.raises(DrososegError, match="2 alphas for 3 classes"):
        Loss(LossConfig((("focal", 1.0),), alpha=(1.0, 2.0)), COUNTS)
