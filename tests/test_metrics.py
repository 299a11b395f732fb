"""Metrics against numbers worked out by hand and against a slow, obvious implementation."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_drososeg.errors import DrososegError
from napari_drososeg.metrics import Scores, confusion_matrix, empty_confusion

TRUTH = np.array([[1, 1, 1, 2], [2, 2, 3, 0]], dtype=np.uint8)
LABELS = np.array([[1, 1, 2, 2], [2, 0, 1, 3]], dtype=np.uint8)


def test_confusion_matrix_by_hand() -> None:
    expected = [[2, 1, 0, 0], [0, 2, 0, 1], [1, 0, 0, 0]]
    np.testing.assert_array_equal(confusion_matrix(TRUTH, LABELS, 3), expected)


def test_scores_by_hand() -> None:
    scores = Scores.from_confusion(confusion_matrix(TRUTH, LABELS, 3))
    # class 1: TP 2, FP 1 (the 3), FN 1; class 2: TP 2, FP 1, FN 1 (unlabelled); class 3: TP 0, FP 0, FN 1.
    # The pixel labelled 3 has no truth and is a false positive of nobody.
    assert scores.iou == pytest.approx((2 / 4, 2 / 4, 0.0))
    assert scores.f1 == pytest.approx((4 / 6, 4 / 6, 0.0))
    assert scores.dice == scores.f1
    assert scores.precision[:2] == pytest.approx((2 / 3, 2 / 3))
    assert math.isnan(scores.precision[2])
    assert scores.recall == pytest.approx((2 / 3, 2 / 3, 0.0))
    assert scores.mean_iou == pytest.approx(1 / 3)
    assert scores.mean_f1 == scores.mean_dice == pytest.approx(4 / 9)
    assert scores.pixel_accuracy == pytest.approx(4 / 7)
    assert scores.mean_pixel_accuracy == pytest.approx(4 / 9)
    assert scores.pixels == 7


def test_a_class_that_is_nowhere_is_left_out() -> None:
    section = np.array([[1, 2, 2, 1]])
    scores = Scores.from_confusion(confusion_matrix(section, section, 3))
    assert scores.iou[:2] == (1.0, 1.0)
    assert math.isnan(scores.iou[2])
    assert scores.mean_iou == scores.mean_f1 == scores.mean_pixel_accuracy == 1.0


def test_no_truth_at_all_gives_nothing_rather_than_a_number() -> None:
    scores = Scores.from_confusion(empty_confusion(3))
    assert scores.pixels == 0
    assert math.isnan(scores.mean_iou)
    assert math.isnan(scores.pixel_accuracy)
    assert json.loads(json.dumps(scores.to_dict(), allow_nan=False))["iou"] == [None, None, None]


def test_square_matrix_is_accepted() -> None:
    matrix = np.array([[3, 1], [2, 4]])
    scores = Scores.from_confusion(matrix)
    assert scores.iou == pytest.approx((3 / 6, 4 / 7))
    assert scores.pixel_accuracy == pytest.approx(0.7)


def test_mean_of_sections_skips_what_a_section_lacks() -> None:
    one = Scores.from_confusion(np.array([[4, 0], [0, 0]]))
    two = Scores.from_confusion(np.array([[1, 1], [0, 2]]))
    mean = Scores.mean_of([one, two])
    assert mean.iou == pytest.approx(((1 + 1 / 2) / 2, 2 / 3))
    assert mean.pixel_accuracy == pytest.approx((1 + 3 / 4) / 2)
    assert mean.pixels == 8
    with pytest.raises(DrososegError, match="no sections"):
        Scores.mean_of([])


@pytest.mark.parametrize(
    ("truth", "labels", "message"),
    [
        (np.ones((2, 3), int), np.ones((3, 2), int), "shape"),
        (np.ones((2, 2)), np.ones((2, 2), int), "truth must be whole numbers"),
        (np.ones((2, 2), int), np.full((2, 2), 4), "Value 4 in the labels"),
        (np.full((2, 2), -1), np.ones((2, 2), int), "Value -1 in the truth"),
    ],
)
def test_what_cannot_be_compared_is_refused(truth: np.ndarray, labels: np.ndarray, message: str) -> None:
    with pytest.raises(DrososegError, match=message):
        confusion_matrix(truth, labels, 3)


@pytest.mark.parametrize("shape", [(2,), (3, 2), (2, 4), (0, 1)])
def test_what_is_no_confusion_matrix_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DrososegError, match="confusion matrix"):
        Scores.from_confusion(np.zeros(shape, int))


def brute_force(truth: np.ndarray, labels: np.ndarray, n: int) -> tuple[list[float], list[float], float]:
    """IoU and F1 per class and pixel accuracy by sets of pixels."""
    known = {p for p in np.ndindex(truth.shape) if truth[p] != 0}
    iou, f1 = [], []
    for c in range(1, n + 1):
        true = {p for p in known if truth[p] == c}
        said = {p for p in known if labels[p] == c}
        iou.append(len(true & said) / len(true | said) if true | said else math.nan)
        f1.append(2 * len(true & said) / (len(true) + len(said)) if true or said else math.nan)
    right = sum(truth[p] == labels[p] for p in known)
    return iou, f1, right / len(known) if known else math.nan


LABEL_ARRAYS = arrays(np.uint8, (4, 5), elements=st.integers(0, 3))


@settings(max_examples=60, deadline=None)
@given(LABEL_ARRAYS, LABEL_ARRAYS)
def test_against_brute_force(truth: np.ndarray, labels: np.ndarray) -> None:
    matrix = confusion_matrix(truth, labels, 3)
    scores = Scores.from_confusion(matrix)
    iou, f1, accuracy = brute_force(truth, labels, 3)
    np.testing.assert_allclose(scores.iou, iou)
    np.testing.assert_allclose(scores.f1, f1)
    np.testing.assert_allclose(scores.pixel_accuracy, accuracy)
    assert matrix.sum() == np.count_nonzero(truth)


@settings(max_examples=30, deadline=None)
@given(LABEL_ARRAYS, LABEL_ARRAYS, st.integers(0, 4))
def test_parts_add_up_to_the_whole(truth: np.ndarray, labels: np.ndarray, cut: int) -> None:
    total = empty_confusion(3)
    for part in (slice(None, cut), slice(cut, None)):
        total += confusion_matrix(truth[part], labels[part], 3)
    np.testing.assert_array_equal(total, confusion_matrix(truth, labels, 3))
