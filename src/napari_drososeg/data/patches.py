"""Random patches of annotated sections, and what is done to them.

Batch number s is a function of the seed and of s alone. That is what makes an interrupted training resume exactly:
no state of a random generator needs to be kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_drososeg.data.normalisation import measure, normalise
from napari_drososeg.errors import DrososegError


@dataclass(frozen=True)
class Augmentation:
    """Random changes of a patch; each strength 0 turns one off.

    Parameters
    ----------
    turns : bool
        Flips and quarter turns of image and labels together: exact, nothing is interpolated.
    brightness : float
        Largest shift, in standard deviations of the section.
    contrast : float
        Largest factor is ``1 + contrast``, smallest its inverse.
    gamma : float
        Largest exponent is ``1 + gamma``, smallest its inverse; grey values are brought to 0-1 over ±3 standard
        deviations for it.
    noise : float
        Largest standard deviation of added Gaussian noise, in standard deviations of the section.
    """

    turns: bool = True
    brightness: float = 0.25
    contrast: float = 0.25
    gamma: float = 0.25
    noise: float = 0.1


@dataclass(frozen=True)
class AnnotatedSection:
    """One section ready for training.

    Parameters
    ----------
    image : ndarray of float32, shape (Y, X)
        Normalised.
    labels : ndarray of uint8, shape (Y, X)
        0 where nothing is annotated.
    """

    image: NDArray[np.float32]
    labels: NDArray[np.uint8]


def annotated_section(image: NDArray[Any], labels: NDArray[Any], name: str) -> AnnotatedSection:
    """Normalise a section and check it against its labels.

    Parameters
    ----------
    image : ndarray, shape (Y, X), real dtype
        Grey values.
    labels : ndarray of integers, shape (Y, X)
        Label values, 0 is unlabelled.
    name : str
        For messages.

    Raises
    ------
    DrososegError
        If the shapes differ, the image holds NaN, or a label is not a whole number from 0 to 255.
    """
    if image.shape != labels.shape:
        raise DrososegError(f"{name}: the image is {image.shape}, its labels are {labels.shape} (y, x) px.")
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise DrososegError(f"{name}: the image holds NaN or infinite values; fill them before training.")
    if labels.dtype.kind not in "buif" or (labels != labels.astype(np.uint8)).any():
        raise DrososegError(f"{name}: labels must be whole numbers from 0 to 255.")
    return AnnotatedSection(normalise(image, measure(image)), labels.astype(np.uint8))


class PatchSampler:
    """Draw batches of random patches.

    Parameters
    ----------
    sections : sequence of AnnotatedSection
        Any sizes.
    patch : int
        Edge in px.
    batch : int
        Patches a batch.
    augmentation : Augmentation
        What is done to them.
    seed : int
        Same seed, same batches.

    Raises
    ------
    DrososegError
        If there is no section, or one is smaller than a patch.
    """

    def __init__(
        self, sections: Sequence[AnnotatedSection], patch: int, batch: int, augmentation: Augmentation, seed: int
    ) -> None:
        if not sections:
            raise DrososegError("There is no annotated section to train on.")
        for number, section in enumerate(sections):
            if min(section.labels.shape) < patch:
                raise DrososegError(
                    f"Annotated section {number} is {section.labels.shape} (y, x) px, smaller than a patch of "
                    f"{patch} px: choose a smaller patch."
                )
        self.sections = sections
        self.patch = patch
        self.batch = batch
        self.augmentation = augmentation
        self.seed = seed
        areas = np.array([s.labels.size for s in sections], dtype=np.float64)
        self._weights = areas / areas.sum()

    def __call__(self, step: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Return batch number `step`: images (N, 1, P, P) float32 and labels (N, P, P) uint8."""
        rng = np.random.default_rng((self.seed, step))
        pairs = [self._draw(rng) for _ in range(self.batch)]
        return np.stack([i for i, _ in pairs])[:, None], np.stack([t for _, t in pairs])

    def _draw(self, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        section = self.sections[rng.choice(len(self.sections), p=self._weights)]
        y, x = (int(rng.integers(size - self.patch + 1)) for size in section.labels.shape)
        window = slice(y, y + self.patch), slice(x, x + self.patch)
        return augment(section.image[window], section.labels[window], self.augmentation, rng)


def augment(
    image: NDArray[np.float32], labels: NDArray[np.uint8], augmentation: Augmentation, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Change a patch at random.

    Parameters
    ----------
    image : ndarray of float32, shape (P, P)
        Normalised grey values.
    labels : ndarray of uint8, shape (P, P)
        Their labels.
    augmentation : Augmentation
        What may happen.
    rng : numpy.random.Generator
        Decides.

    Returns
    -------
    image, labels
        Contiguous copies of the same shapes.
    """
    if augmentation.turns:
        k, flip = int(rng.integers(4)), bool(rng.integers(2))
        image, labels = np.rot90(image, k), np.rot90(labels, k)
        if flip:
            image, labels = image[:, ::-1], labels[:, ::-1]

    def factor(strength: float) -> np.float32:
        return np.float32((1 + strength) ** rng.uniform(-1, 1))

    image = image * factor(augmentation.contrast) + np.float32(augmentation.brightness * rng.uniform(-1, 1))
    if augmentation.gamma:
        exponent = factor(augmentation.gamma)
        image = np.power(np.clip(image / 6 + np.float32(0.5), 0, 1), exponent) * 6 - 3
    if augmentation.noise:
        sigma = np.float32(augmentation.noise * rng.uniform())
        image = image + sigma * rng.standard_normal(image.shape, dtype=np.float32)
    return np.ascontiguousarray(image, dtype=np.float32), np.ascontiguousarray(labels)
