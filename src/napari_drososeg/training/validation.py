"""Scoring a network on sections while it is trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from napari_drososeg.data.sections import AnnotatedSection
from napari_drososeg.losses import Loss
from napari_drososeg.metrics import Scores, confusion_matrix, empty_confusion

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from torch import nn

WINDOW = 1024
"""Sections are seen in windows of at most this edge in px: the memory needed does not grow with them."""


@dataclass(frozen=True)
class Validation:
    """What a validation found.

    Parameters
    ----------
    scores : Scores
        Pooled over the sections.
    loss : float
        Averaged over their labelled pixels.
    """

    scores: Scores
    loss: float


def validate(
    network: nn.Module,
    sections: Sequence[AnnotatedSection],
    loss: Loss,
    n_classes: int,
    fabric: Fabric,
    window: int | None = None,
) -> Validation:
    """Score a network on whole sections, window by window; windows of one size go through it together.

    Parameters
    ----------
    network : torch.nn.Module
        Maps (N, 1, H, W) to logits; left in evaluation mode.
    sections : sequence of AnnotatedSection
        With labels. Windows without any are not computed.
    loss : Loss
        Of the training.
    n_classes : int
        Number of classes.
    fabric : Fabric
        Says device and precision.
    window : int, optional
        Longest edge in px that is seen at once, instead of `WINDOW`.

    Returns
    -------
    Validation
    """
    network.eval()
    matrix, total, pixels = empty_confusion(n_classes), 0.0, 0
    with torch.inference_mode(), fabric.autocast():
        for images, truth in _batches(sections, window or WINDOW):
            labelled = int(np.count_nonzero(truth))
            found = torch.from_numpy(images)[:, None].to(fabric.device, memory_format=torch.channels_last)
            logits = network(found)
            total += labelled * float(loss(logits, torch.from_numpy(truth).to(fabric.device)))
            pixels += labelled
            labels = logits.argmax(1).to(torch.uint8).cpu().numpy() + np.uint8(1)
            matrix += confusion_matrix(truth, labels, n_classes)
    return Validation(Scores.from_confusion(matrix), total / max(1, pixels))


def _batches(
    sections: Sequence[AnnotatedSection], edge: int
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.uint8]]]:
    """Yield images and labels (N, Y, X) of windows that hold labels, of the same size and together no more than one."""
    held: list[tuple[NDArray[np.float32], NDArray[np.uint8]]] = []
    for section in sections:
        for part in windows(section.labels.shape, edge):
            new = section.image[part], section.labels[part]
            if not new[1].any():
                continue
            if held and (held[0][1].shape != new[1].shape or (len(held) + 1) * new[1].size > WINDOW**2):
                yield _stacked(held)
                held = []
            held.append(new)
    if held:
        yield _stacked(held)


def _stacked(
    held: Sequence[tuple[NDArray[np.float32], NDArray[np.uint8]]],
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    images, labels = zip(*held, strict=True)
    return np.stack(images), np.stack(labels)


def windows(shape: tuple[int, ...], edge: int) -> Iterator[tuple[slice, slice]]:
    """Cut a section (Y, X) into as few windows of at most `edge` as possible, all of about the same size."""
    rows, columns = (np.linspace(0, n, -(-n // edge) + 1).astype(int).tolist() for n in shape)
    for top, bottom in pairwise(rows):
        for left, right in pairwise(columns):
            yield slice(top, bottom), slice(left, right)
