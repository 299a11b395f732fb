"""Losses between logits and labels; unlabelled pixels never count."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Categorical cross entropy, averaged over the labelled pixels.

    Parameters
    ----------
    logits : Tensor of shape (N, C, H, W), float
        Before softmax; channel c is label c + 1.
    labels : Tensor of shape (N, H, W), uint8
        0 is unlabelled and left out.

    Returns
    -------
    Tensor, scalar
        In nats. 0, with zero gradient, where nothing is labelled.
    """
    targets = labels.long() - 1
    total = functional.cross_entropy(logits.float(), targets, ignore_index=-1, reduction="sum")
    return total / (targets >= 0).sum().clamp(min=1)
