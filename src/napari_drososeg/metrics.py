"""Agreement of labels with truth: the confusion matrix and the scores taken from it.

Everything here is counting. A confusion matrix holds pixels, the matrices of parts add up to that of the
whole, and `Scores` are quotients of its sums; so pooled scores of a volume never need more than one section
in memory.

For one class let ``TP`` be the pixels that are of this class in both, ``FP`` those labelled so that are of
another class in truth, and ``FN`` those of this class in truth that are labelled otherwise:

====================  =========================================  ==================================
score                 formula                                    also called
====================  =========================================  ==================================
IoU                   ``TP / (TP + FP + FN)``                    Jaccard index
F1                    ``2 TP / (2 TP + FP + FN)``                Dice; the same number, see below
precision             ``TP / (TP + FP)``
recall                ``TP / (TP + FN)``                         accuracy of the class
pixel accuracy        ``sum of TP / pixels with a truth``        micro-averaged F1 where all is labelled
mean pixel accuracy   mean of the recalls                        balanced accuracy
====================  =========================================  ==================================

F1 (the harmonic mean of precision and recall) and Dice (twice the overlap over the sum of the sizes) are the
same number for one class. Both names are kept because papers print both.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_drososeg.errors import DrososegError


def confusion_matrix(truth: NDArray[Any], labels: NDArray[Any], n_classes: int) -> NDArray[np.int64]:
    """Count pixels by true class and predicted class.

    Parameters
    ----------
    truth : ndarray of integers, any shape
        Label values 0 to `n_classes`. Pixels that are 0 (unlabelled) have no truth and are not counted.
    labels : ndarray of integers, same shape
        Predicted label values 0 to `n_classes`. A pixel left at 0 is counted as wrong.
    n_classes : int
        Number of classes C.

    Returns
    -------
    ndarray of int64, shape (C, C + 1)
        ``cm[t - 1, p - 1]`` pixels of true class t are labelled p. The last column holds those left
        unlabelled, so that they lower the recall of their class without being a false positive of another
        one.

    Raises
    ------
    DrososegError
        If the shapes differ, an array is not of integers, or a value is outside 0 to `n_classes`.
    """
    if truth.shape != labels.shape:
        raise DrososegError(f"Labels of shape {labels.shape} cannot be compared with truth of shape {truth.shape}.")
    for what, array in (("truth", truth), ("labels", labels)):
        if array.dtype.kind not in "uib":
            raise DrososegError(f"The {what} must be whole numbers, not {array.dtype}.")
        if array.size and (int(array.min()) < 0 or int(array.max()) > n_classes):
            raise DrososegError(
                f"Value {_outside(array, n_classes)} in the {what} is outside the class table (0 to {n_classes})."
            )
    # Predicted 0 is moved behind the last class; one bincount then does the whole job.
    width = n_classes + 1
    index = truth.astype(np.int64, copy=True).ravel()
    index -= 1
    index *= width
    predicted = labels.astype(np.int64, copy=True).ravel()
    predicted[predicted == 0] = width
    predicted -= 1
    index += predicted
    counted = index[truth.ravel() > 0]
    return np.bincount(counted, minlength=n_classes * width).reshape(n_classes, width).astype(np.int64)


def _outside(array: NDArray[Any], n_classes: int) -> int:
    wrong = array[(array < 0) | (array > n_classes)]
    return int(wrong.flat[0])


def empty_confusion(n_classes: int) -> NDArray[np.int64]:
    """Return the confusion matrix of no pixels, to add others to: zeros of shape (C, C + 1)."""
    return np.zeros((n_classes, n_classes + 1), dtype=np.int64)


@dataclass(frozen=True)
class Scores:
    """Scores of one confusion matrix, each between 0 and 1.

    A class that is neither in truth nor in the labels has no scores: it is NaN and left out of the means. The
    formulas are at the top of this module.

    Attributes
    ----------
    iou : tuple of float, length C
        Intersection over union per class.
    f1 : tuple of float, length C
        F1 per class, which is also its Dice coefficient.
    precision, recall : tuple of float, length C
        Per class. A class that is never predicted has no precision, one that is not in truth no recall (NaN).
    pixel_accuracy : float
        Share of the pixels with a truth that carry the right label.
    mean_pixel_accuracy : float
        Mean of the recalls: every class counts the same, whatever its area.
    pixels : int
        Number of pixels with a truth.
    """

    iou: tuple[float, ...]
    f1: tuple[float, ...]
    precision: tuple[float, ...]
    recall: tuple[float, ...]
    pixel_accuracy: float
    mean_pixel_accuracy: float
    pixels: int

    @property
    def mean_iou(self) -> float:
        """Mean of the per-class IoUs (mIoU)."""
        return _mean(self.iou)

    @property
    def mean_f1(self) -> float:
        """Mean of the per-class F1 (macro F1)."""
        return _mean(self.f1)

    @property
    def dice(self) -> tuple[float, ...]:
        """Dice coefficient per class: the same numbers as `f1`."""
        return self.f1

    @property
    def mean_dice(self) -> float:
        """Mean of the per-class Dice coefficients: the same number as `mean_f1`."""
        return self.mean_f1

    @classmethod
    def from_confusion(cls, matrix: NDArray[Any]) -> Scores:
        """Take the scores of a confusion matrix.

        Parameters
        ----------
        matrix : ndarray of integers, shape (C, C) or (C, C + 1)
            Rows are truth, columns prediction; a last column beyond C holds unlabelled pixels.

        Returns
        -------
        Scores

        Raises
        ------
        DrososegError
            If the shape is another one.
        """
        if matrix.ndim != 2 or matrix.shape[1] - matrix.shape[0] not in (0, 1) or matrix.shape[0] == 0:
            raise DrososegError(f"A confusion matrix has the shape (C, C) or (C, C + 1), not {matrix.shape}.")
        n = matrix.shape[0]
        hits = np.diagonal(matrix).astype(np.float64)
        truth = matrix.sum(axis=1).astype(np.float64)
        predicted = matrix[:, :n].sum(axis=0).astype(np.float64)
        recall = _divide(hits, truth)
        total = int(matrix.sum())
        return cls(
            iou=_divide(hits, truth + predicted - hits),
            f1=_divide(2 * hits, truth + predicted),
            precision=_divide(hits, predicted),
            recall=recall,
            pixel_accuracy=float(hits.sum()) / total if total else math.nan,
            mean_pixel_accuracy=_mean(recall),
            pixels=total,
        )

    @classmethod
    def mean_of(cls, scores: Iterable[Scores]) -> Scores:
        """Average the scores of several sections, each section counting the same.

        A class that a section does not have is left out of that class's mean; so where a class is missing
        in some sections, the mean of their mIoUs is not exactly the mIoU of this average.

        Raises
        ------
        DrososegError
            If there is nothing to average.
        """
        each = list(scores)
        if not each:
            raise DrososegError("There are no sections to average.")

        def per_class(field: str) -> tuple[float, ...]:
            return tuple(_mean(column) for column in zip(*(getattr(s, field) for s in each), strict=True))

        return cls(
            iou=per_class("iou"),
            f1=per_class("f1"),
            precision=per_class("precision"),
            recall=per_class("recall"),
            pixel_accuracy=_mean([s.pixel_accuracy for s in each]),
            mean_pixel_accuracy=_mean([s.mean_pixel_accuracy for s in each]),
            pixels=sum(s.pixels for s in each),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready numbers; what is not defined is ``None``."""
        plain = {
            "mean_iou": self.mean_iou,
            "mean_f1": self.mean_f1,
            "mean_dice": self.mean_dice,
            "pixel_accuracy": self.pixel_accuracy,
            "mean_pixel_accuracy": self.mean_pixel_accuracy,
        }
        rows = {
            "iou": self.iou,
            "f1": self.f1,
            "dice": self.dice,
            "precision": self.precision,
            "recall": self.recall,
        }
        return {
            **{name: _or_none(value) for name, value in plain.items()},
            **{name: [_or_none(value) for value in values] for name, values in rows.items()},
            "pixels": self.pixels,
        }


def _divide(top: NDArray[np.float64], bottom: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(float(t / b) if b > 0 else math.nan for t, b in zip(top, bottom, strict=True))


def _mean(values: Iterable[float]) -> float:
    array = np.array(list(values), dtype=np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all NaN is a fair answer here: nothing to average
        return float(np.nanmean(array)) if array.size else math.nan


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
