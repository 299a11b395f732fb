from __future__ import annotations

import numpy as np
import pytest

from napari_drososeg.classes import DROSOPHILA_CLASSES
from napari_drososeg.metrics import Scores
from napari_drososeg.workspace.scoring import NetworkScores, decide


def found(*right: int) -> NetworkScores:
    """Scores of a network that gets so many of 100 painted pixels of each class right, the others one class off."""
    matrix = np.diag(right) + np.roll(np.diag([100 - n for n in right]), 1, axis=1)
    return NetworkScores(Scores.from_confusion(matrix), None)


@pytest.mark.parametrize(
    ("before", "after", "adopted", "verdict"),
    [
        (found(60, 60, 60), found(90, 90, 1), False, "It no longer finds mitochondria where it was painted; 60.3%"),
        (found(60, 60, 0), found(90, 90, 1), True, "60.3% of the annotated pixels are correct, 40.0% before."),
        (found(60, 60, 0), found(50, 50, 1), False, "Only 33.7%"),
        (None, found(90, 90, 1), False, "It does not find mitochondria where it was painted; 60.3%"),
        (None, found(90, 90, 90), True, "90.0% of the annotated pixels are correct."),
    ],
)
def test_a_class_can_only_vanish_where_it_was_found(
    before: NetworkScores | None, after: NetworkScores, adopted: bool, verdict: str
) -> None:
    said = decide(before, after, DROSOPHILA_CLASSES)
    assert said[0] is adopted
    assert said[1].startswith(verdict)


def test_the_first_network_of_some_classes_is_put_to_use_with_what_it_lacks() -> None:
    adopted, verdict = decide(None, found(90, 90, 1), DROSOPHILA_CLASSES, first=True)
    assert adopted
    assert verdict.startswith("It does not find mitochondria yet where it was painted: paint more of it")
