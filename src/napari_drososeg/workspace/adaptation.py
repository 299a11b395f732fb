"""Making a trained network fit an image before a single weight is learnt.

Most of what a network loses on images of another kind is not knowledge but calibration:

- The statistics of its batch norms are those of its training data. Taken anew from the image at hand, without any
  label, they win back most of what blur, noise or another gamma cost. After Li, Wang, Shi, Liu, Hou: Revisiting batch
  normalization for practical domain adaptation. 2016, arXiv 1603.04779.
- An inverted image, and a pixel size that nobody wrote down, are recognised by the strokes: of both signs and a few
  magnifications, one makes the network agree with what was painted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from napari_drososeg.losses import balanced_weights, cross_entropy
from napari_drososeg.training.network import norms_of
from napari_drososeg.training.validation import windows
from napari_drososeg.workspace.window_inference import as_batch

if TYPE_CHECKING:
    from torch import Tensor

MAGNIFICATIONS = (1.0, 2.0, 0.5, 2**0.5, 0.5**0.5)
"""Tried where the pixel size is unknown: pixel size of the image over that of the network."""

CLEARLY = 0.7
"""Part of the loss on the strokes below which another sign or magnification is believed."""

EXPLAINED = 0.6
"""Likewise, the part of the loss of guessing: what is believed must explain the strokes, not only fail less."""

FAR = 0.3
"""Part of the loss on the strokes below which it need only be better than guessing: few strokes, half of them where the
network is wrong, are hard ones. Set after six strokes on the inverted section 12 of the public stack went unheard."""

SIGNIFICANT = 50
"""Pixels of a class that count for that. With strokes of one class, any change that favours it would be believed."""

CROPS, CROP = 6, 256
"""How many parts of the image, of which edge in px, are looked at for that."""


@torch.no_grad()
def reestimate_norms(model: nn.Module, images: Iterable[NDArray[np.float32]], autocast: Any) -> None:
    """Take the statistics of all batch norms anew from images (H, W), each counting the same; others stay as is.

    Parameters
    ----------
    model : torch.nn.Module
        Changed in place, and left in evaluation mode. Without batch norms nothing happens.
    images : iterable of ndarray of float32, (H, W)
        Normalised; each is seen at once.
    autocast : callable
        Makes the context manager to compute in.
    """
    norms = norms_of(model)
    model.eval()
    if not norms:
        return
    kept = [n.momentum for n in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the images
        norm.train()
    for image in images:
        with autocast():
            model(as_batch(image, model))
    for norm, momentum in zip(norms, kept, strict=True):
        norm.momentum = momentum
        norm.eval()


def first_convolution(model: nn.Module) -> nn.Conv2d | None:
    """Return the one convolution that sees the image; None if there is none, or more."""
    found = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.in_channels == 1 and m.groups == 1]
    return found[0] if len(found) == 1 else None


@torch.no_grad()
def flip_sign(model: nn.Module) -> None:
    """Make a network see the negative of its image, exactly: padding is 0 or repeats pixels, both of which agree."""
    convolution = first_convolution(model)
    assert convolution is not None
    convolution.weight.neg_()


@torch.no_grad()
def blend(model: nn.Module, weights: Mapping[str, Tensor], share: float) -> None:
    """Move the weights of a network in place towards others, by `share` of the way."""
    for name, value in model.state_dict().items():
        new = weights[name].to(value.device)
        if value.is_floating_point():
            value.lerp_(new, share)
        else:
            value.copy_(new)


@contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    """Let batch norms use the statistics of what they see, without keeping them."""
    norms = norms_of(model)
    before = [(n.track_running_stats, n.running_mean, n.running_var) for n in norms]
    for norm in norms:
        norm.track_running_stats, norm.running_mean, norm.running_var = False, None, None
    try:
        yield
    finally:
        for norm, (tracks, mean, var) in zip(norms, before, strict=True):
            norm.track_running_stats, norm.running_mean, norm.running_var = tracks, mean, var


Crop = tuple[NDArray[np.float32], NDArray[np.uint8]]


def crops(images: Sequence[NDArray[np.float32]], labels: Sequence[NDArray[np.uint8]]) -> list[Crop]:
    """Return the parts of images that hold most strokes: in windows of at most `CROP` px, the first `CROPS` of them."""
    found: list[tuple[int, Crop]] = []
    for image, known in zip(images, labels, strict=True):
        for window in windows(image.shape, CROP):
            if (part := known[window]).any():
                found.append((int(np.count_nonzero(part)), (image[window], part)))
    found.sort(key=lambda f: -f[0])
    return [crop for _, crop in found[:CROPS]]


@torch.no_grad()
def stroke_loss(model: nn.Module, parts: Sequence[Crop], autocast: Any, *, magnification: float = 1.0) -> float:
    """Return how badly a network explains strokes, with the statistics of the image itself.

    Parameters
    ----------
    model : torch.nn.Module
        In evaluation mode.
    parts : sequence of (image, labels)
        From `crops`.
    autocast : callable
        Makes the context manager to compute in.
    magnification : float
        What the images are resampled by before.

    Returns
    -------
    float
        Cross entropy in nats, each class counting the same.
    """
    counts = np.sum([np.bincount(known.ravel(), minlength=256) for _, known in parts], axis=0)
    weights: Tensor | None = None
    total, pixels = 0.0, 0
    with batch_statistics(model), autocast():
        for image, known in parts:
            x = as_batch(image, model)
            if magnification != 1:
                size = [max(64, round(n * magnification)) for n in image.shape]
                x = functional.interpolate(x, size=size, mode="bilinear", antialias=magnification < 1)
            logits = model(x).float()
            if weights is None:
                weights = balanced_weights(counts[1 : logits.shape[1] + 1].tolist())
            if magnification != 1:
                logits = functional.interpolate(logits, size=image.shape, mode="bilinear")
            labels = torch.from_numpy(np.ascontiguousarray(known))[None].to(logits.device)
            n = int(np.count_nonzero(known))
            total += float(cross_entropy(logits, labels, weights)) * n
            pixels += n
    return total / max(1, pixels)


def tells(parts: Sequence[Crop]) -> bool:
    """Whether strokes say enough to believe that an image is of another sign or scale: at least two classes."""
    counts = sum((np.bincount(known.ravel(), minlength=256) for _, known in parts), np.zeros(256, np.int64))
    return int(np.count_nonzero(counts[1:] >= SIGNIFICANT)) >= 2


def believable(loss: float, before: float, n_classes: int) -> bool:
    """Whether the loss of another sign or magnification says that it is the right one."""
    guessing = math.log(n_classes)
    return (loss < CLEARLY * before and loss < EXPLAINED * guessing) or (loss < FAR * before and loss < guessing)


def find_sign(model: nn.Module, parts: Sequence[Crop], autocast: Any, n_classes: int) -> bool:
    """Flip the sign of a network in place if the strokes clearly say that the image is inverted; tell whether."""
    if first_convolution(model) is None or not tells(parts):
        return False
    before = stroke_loss(model, parts, autocast)
    flip_sign(model)
    if believable(stroke_loss(model, parts, autocast), before, n_classes):
        return True
    flip_sign(model)
    return False


def find_magnification(model: nn.Module, parts: Sequence[Crop], autocast: Any, n_classes: int) -> float:
    """Return the magnification of `MAGNIFICATIONS` that explains the strokes; 1 unless another clearly does."""
    if not tells(parts):
        return 1.0
    losses = [stroke_loss(model, parts, autocast, magnification=m) for m in MAGNIFICATIONS]
    best = int(np.argmin(losses))
    return MAGNIFICATIONS[best] if believable(losses[best], losses[0], n_classes) else 1.0
