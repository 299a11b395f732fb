"""The main job on real data: read, segment with the shipped network, score."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from napari_drososeg import predict
from napari_drososeg.metrics import Scores, confusion_matrix
from napari_drososeg.samples import drosophila_vnc


def test_the_shipped_network_segments_the_public_stack(vnc: Path) -> None:
    """The network knows these sections, so this is no measure of quality, but of everything being in its place."""
    image, truth = drosophila_vnc(vnc)
    labels = predict(image, sections=[3, 14])
    assert not labels[[0, 15]].any()
    matrix = sum(confusion_matrix(truth.read(z), labels[z], 3) for z in (3, 14))
    scores = Scores.from_confusion(np.asarray(matrix))
    assert scores.mean_iou > 0.85
    assert min(scores.iou) > 0.7


def test_the_truth_has_the_frequencies_that_the_reference_study_prints(vnc: Path) -> None:
    _, truth = drosophila_vnc(vnc)
    counts = np.bincount(np.stack([truth.read(z) for z in range(16)]).ravel(), minlength=4)
    assert counts[0] == 0
    np.testing.assert_allclose(counts[1:] / counts.sum(), [0.769, 0.177, 0.054], atol=0.01)
