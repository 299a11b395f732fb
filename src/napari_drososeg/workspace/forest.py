"""A random forest, as the teacher of a network whose classes nobody has learnt yet.

From a few strokes a forest on filtered images learns more than a network does, which has its filters to learn first;
so the forest says what the pixels around the strokes may be, and the network learns that with them. Features are those
of scikit-image's trainable segmentation, which is what ilastik and convpaint do, too, and what a network of other
classes says, where one is begun with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from napari_drososeg.workspace.material import Window

TREES, DEPTH = 64, 20

SMALLEST, LARGEST = 0.5, 16.0
"""Standard deviations in px of the finest and the coarsest filter; those between double."""

MOST_PIXELS = 4 << 20
"""Of windows that are taught, at about 120 bytes each while that is done. Further ones train by their strokes alone."""


MOST_SAMPLES = 50_000
"""Annotated pixels that each tree draws: hundreds of strokes. Of reviewed sections there are millions."""


def teach(
    windows: Sequence[Window], n_classes: int, seed: int, further: Callable[[Window], NDArray[np.float32]] | None = None
) -> list[NDArray[np.float16] | None]:
    """Train a random forest on what is annotated, and return what it says of the windows.

    Strokes are of all classes alike, images are not, so rare classes are found too often. Probabilities are weighed by
    the frequencies that the forest itself finds, over those among the strokes, each to the power of one half. All the
    way to the true frequencies (Saerens, Latinne, Decaestecker: Adjusting the outputs of a classifier to new a priori
    probabilities. Neural Computation 14, 2002) would be best for the share of pixels that are right, but the IoU of
    rare classes is better with some too many.

    Parameters
    ----------
    windows : sequence of Window
        Some of them annotated.
    n_classes : int
        C; a class that is annotated nowhere has the probability 0.
    seed : int
        Same seed, same forest.
    further : callable, optional
        Gives more features of a window, (F, h, w).

    Returns
    -------
    list of ndarray of float16, (C, h, w), or None
        Probabilities, for each window; None where that would be too much, or all is annotated.
    """
    from sklearn.ensemble import RandomForestClassifier

    sizes = np.array([0 if w.labels.all() else w.image.size for w in windows])
    so_far = np.cumsum(sizes)
    taught = (sizes > 0) & ((so_far <= MOST_PIXELS) | (so_far == sizes))  # the first in any case
    if not taught.any():
        return [None] * len(windows)
    kept: list[NDArray[np.float32] | None] = []
    samples: list[NDArray[np.float32]] = []
    for window, keep in zip(windows, taught, strict=True):
        found = None
        if keep or window.labels.any():
            found = features(window.image)
            if further is not None:
                found = np.concatenate([found, np.moveaxis(further(window), 0, -1)], axis=-1)
            samples.append(found[window.labels > 0])
        kept.append(found if keep else None)
    labels = np.concatenate([w.labels[w.labels > 0] for w in windows])
    n_samples = min(len(labels), MOST_SAMPLES)
    forest = RandomForestClassifier(TREES, max_depth=DEPTH, max_samples=n_samples, n_jobs=-1, random_state=seed)
    forest.fit(np.concatenate(samples), labels)
    out: list[NDArray[np.float16] | None] = []
    classes = forest.classes_.astype(int) - 1
    found_share, n_pixels = np.zeros(len(classes)), 0
    for values in kept:
        if values is None:
            out.append(None)
            continue
        rows = forest.predict_proba(values.reshape(-1, values.shape[-1]))
        found_share, n_pixels = found_share + rows.sum(0), n_pixels + len(rows)
        probabilities = np.zeros((n_classes, *values.shape[:2]), np.float16)
        probabilities[classes] = rows.T.reshape(-1, *values.shape[:2])
        out.append(probabilities)
    painted_share = np.bincount(labels, minlength=n_classes + 1)[1:][classes] / len(labels)
    weights = np.ones((n_classes, 1, 1), np.float32)
    weights[classes, 0, 0] = np.sqrt(found_share / n_pixels / painted_share)
    return [None if p is None else _weighed(p, weights) for p in out]


def _weighed(probabilities: NDArray[np.float16], weights: NDArray[np.float32]) -> NDArray[np.float16]:
    weighed = probabilities.astype(np.float32) * weights
    weighed /= weighed.sum(0)
    return weighed.astype(np.float16)


def features(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return an image (h, w), its gradients and the eigenvalues of its Hessian, all at several scales: (h, w, F)."""
    from skimage.feature import multiscale_basic_features

    found = multiscale_basic_features(image, sigma_min=SMALLEST, sigma_max=LARGEST)
    return np.asarray(found, np.float32)
