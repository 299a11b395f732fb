"""Losses between logits and labels; unlabelled pixels never count.

All of them take the same:

- logits (N, C, H, W), floating point, before softmax; channel c is label c + 1
- labels (N, H, W) uint8; 0 is unlabelled and left out

and return a scalar of float32. Where nothing is labelled it is exactly 0, with a gradient of exactly 0.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from napari_drososeg.errors import DrososegError

LOSSES = ("cross-entropy", "weighted", "class-balanced", "focal", "dice")
_PER_CLASS = {"weighted": "class_weights", "focal": "alpha"}


@dataclass(frozen=True)
class LossConfig:
    """A weighted sum of losses.

    Parameters
    ----------
    terms : tuple of (str, float)
        Names from `LOSSES` and the weights of their losses in the sum.
    class_weights : tuple of float
        Of ``"weighted"``, one for each class.
    gamma : float
        Of ``"focal"``; 0 makes it cross entropy times alpha.
    alpha : tuple of float
        Of ``"focal"``: one for each class, or one for all.

    Raises
    ------
    DrososegError
        If a name is unknown, a weight is not above 0, or ``"weighted"`` has no class weights.
    """

    terms: tuple[tuple[str, float], ...] = (("cross-entropy", 1.0),)
    class_weights: tuple[float, ...] = ()
    gamma: float = 2.0
    alpha: tuple[float, ...] = (0.25,)

    def __post_init__(self) -> None:
        for name, weight in self.terms:
            if name not in LOSSES:
                raise DrososegError(f"Unknown loss '{name}'; choose from: {', '.join(LOSSES)}.")
            if not weight > 0:
                raise DrososegError(f"The loss {name} has the weight {weight:g}; leave it out, or use one above 0.")
        if not self.terms:
            raise DrososegError("The loss has no terms; the simplest is cross-entropy.")
        if any(name == "weighted" for name, _ in self.terms) and not self.class_weights:
            raise DrososegError("The weighted loss needs a weight for each class.")

    @classmethod
    def parse(cls, text: str) -> LossConfig:
        """Read a sum such as ``"cross-entropy+0.5*dice"`` or ``"weighted:1,5,2"`` (a weight for each class).

        The focal loss takes one alpha for all classes or one for each, and gamma: ``"focal:0.25"``,
        ``"focal:1,1.3,1.1:gamma=1.5"``.

        Raises
        ------
        DrososegError
            If it cannot be read.
        """
        terms: list[tuple[str, float]] = []
        values: dict[str, Any] = {}
        number = r"(?:\d+\.?\d*|\.\d+)"
        form = re.compile(rf"(?:({number})\*)?([a-z-]+)(?::({number}(?:,{number})*))?(?::gamma=({number}))?")
        for part in text.replace(" ", "").split("+"):
            match = form.fullmatch(part)
            if match is None or (match[3] and match[2] not in _PER_CLASS) or (match[4] and match[2] != "focal"):
                raise DrososegError(
                    f"'{text}' is not a loss; write it like cross-entropy+0.5*dice, with any of {', '.join(LOSSES)}."
                )
            terms.append((match[2], float(match[1] or 1)))
            if match[3]:
                values[_PER_CLASS[match[2]]] = tuple(float(v) for v in match[3].split(","))
            if match[4]:
                values["gamma"] = float(match[4])
        return cls(tuple(terms), **values)


class Loss:
    """The loss of a training: `LossConfig`, ready for the class frequencies of its labels.

    Parameters
    ----------
    config : LossConfig
        Which.
    counts : sequence of int, length C
        Labelled pixels of each class in all that is trained on, for ``"class-balanced"``.

    Raises
    ------
    DrososegError
        If there are not as many class weights or alphas as classes.
    """

    def __init__(self, config: LossConfig, counts: Sequence[int]) -> None:
        n = len(counts)
        if config.class_weights and len(config.class_weights) != n:
            raise DrososegError(f"The weighted loss has {len(config.class_weights)} class weights for {n} classes.")
        if len(config.alpha) not in (1, n):
            raise DrososegError(f"The focal loss has {len(config.alpha)} alphas for {n} classes; give one, or {n}.")
        self.config = config
        self.alpha = torch.tensor(config.alpha, dtype=torch.float32).expand(n)
        self.weights = {
            "cross-entropy": None,
            "weighted": torch.tensor(config.class_weights, dtype=torch.float32),
            "class-balanced": balanced_weights(counts),
        }

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the weighted sum of the terms."""
        total = logits.new_zeros((), dtype=torch.float32)
        for name, weight in self.config.terms:
            if name == "dice":
                value = dice(logits, labels)
            elif name == "focal":
                value = focal(logits, labels, self.config.gamma, self.alpha)
            else:
                value = cross_entropy(logits, labels, self.weights[name])
            total = total + weight * value
        return total


def balanced_weights(counts: Sequence[int]) -> Tensor:
    """Return class weights inverse to the pixel counts, scaled so that the mean weight of a labelled pixel is 1.

    With n_c pixels of class c, N in all and K classes that occur, it is ``N / (K n_c)``; 0 for a class that does not.
    """
    pixels = torch.tensor(counts, dtype=torch.float64)
    there = pixels > 0
    weights = pixels.sum() / (there.sum().clamp(min=1) * pixels.clamp(min=1))
    return torch.where(there, weights, 0.0).float()


def cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Categorical cross entropy, averaged over the labelled pixels.

    Parameters
    ----------
    logits, labels : Tensor
        See the top of this module.
    weights : Tensor of shape (C,), optional
        Factor of each class. The mean is over pixels, not over weights.

    Returns
    -------
    Tensor, scalar
        In nats.
    """
    targets = labels.long() - 1
    if weights is not None:
        weights = weights.to(logits.device)
    total = functional.cross_entropy(logits.float(), targets, weights, ignore_index=-1, reduction="sum")
    return total / (targets >= 0).sum().clamp(min=1)


def focal(logits: Tensor, labels: Tensor, gamma: float, alpha: Tensor) -> Tensor:
    """Focal loss: cross entropy of each labelled pixel times ``alpha_c (1 - p)^gamma``, averaged.

    p is the probability given to the pixel's own class c. After Lin, Goyal, Girshick, He, Dollar: Focal loss for dense
    object detection. ICCV 2017, arXiv 1708.02002, with the categorical in place of the binary cross entropy.

    Parameters
    ----------
    logits, labels : Tensor
        See the top of this module.
    gamma : float
        How little pixels count that are right already.
    alpha : Tensor of shape (C,)
        Factor of each class.

    Returns
    -------
    Tensor, scalar
        In nats.
    """
    targets = labels.long() - 1
    nats = functional.cross_entropy(logits.float(), targets, ignore_index=-1, reduction="none")  # 0 where ignored
    factors = alpha.to(logits.device)[targets.clamp(min=0)]
    # expm1 is exact near p = 1; the clamp keeps the derivative of the power finite there for gamma below 1
    misses = (-torch.expm1(-nats)).clamp(min=1e-8)
    return (factors * misses**gamma * nats).sum() / (targets >= 0).sum().clamp(min=1)


def dice(logits: Tensor, labels: Tensor) -> Tensor:
    """Return 1 less the soft Dice coefficient of the batch, averaged over the classes that are among its labels.

    With p the probabilities and t the labels as 0 and 1, both over all labelled pixels of the batch, the coefficient of
    a class is ``2 sum(p t) / (sum(p) + sum(t))``. After Milletari, Navab, Ahmadi: V-Net. 3DV 2016, arXiv 1606.04797,
    without its squares.

    Parameters
    ----------
    logits, labels : Tensor
        See the top of this module.

    Returns
    -------
    Tensor, scalar
        From 0 to 1.
    """
    classes = torch.arange(1, logits.shape[1] + 1, device=labels.device)[:, None, None]
    truth = (labels[:, None] == classes).float()
    probabilities = functional.softmax(logits.float(), dim=1) * (labels > 0)[:, None]
    axes = (0, 2, 3)
    area = truth.sum(axes)
    coefficients = 2 * (probabilities * truth).sum(axes) / (probabilities.sum(axes) + area).clamp(min=1e-6)
    there = area > 0
    return ((1 - coefficients) * there).sum() / there.sum().clamp(min=1)


def distillation(logits: Tensor, labels: Tensor, teacher: Tensor) -> Tensor:
    """Kullback-Leibler divergence from a teacher's probabilities, averaged over the pixels that only it knows.

    After Hinton, Vinyals, Dean: Distilling the knowledge in a neural network. 2015, arXiv 1503.02531, at temperature 1.

    Parameters
    ----------
    logits, labels : Tensor
        See the top of this module; labelled pixels are left out here.
    teacher : Tensor of shape (N, C, H, W)
        Probabilities; all 0 where there are none, which is left out as well.

    Returns
    -------
    Tensor, scalar
        In nats.
    """
    known = teacher.float()
    wanted = (labels == 0) & (known.sum(1) > 0)
    nats = functional.kl_div(functional.log_softmax(logits.float(), dim=1), known, reduction="none").sum(1)
    return (nats * wanted).sum() / wanted.sum().clamp(min=1)
