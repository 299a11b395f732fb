"""The synthetic stack: its truth, its look, its repeatability."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy import ndimage

from napari_drososeg.errors import DrososegError
from napari_drososeg.io import read_stack
from napari_drososeg.samples import map_vnc_labels, synthetic_stack


@pytest.fixture(scope="module")
def made() -> tuple[np.ndarray, np.ndarray, float]:
    start = time.process_time()
    stack, truth = synthetic_stack()
    assert stack.voxel_size == (50, 4.6, 4.6)
    return np.asarray(stack.data), truth, time.process_time() - start


def test_shape_time_and_classes(made: tuple[np.ndarray, np.ndarray, float]) -> None:
    image, truth, seconds = made
    assert image.shape == truth.shape == (8, 512, 512)
    assert image.dtype == truth.dtype == np.uint8
    assert set(np.unique(truth)) == {1, 2, 3}
    share = [(truth == c).mean() for c in (1, 2, 3)]
    assert share == pytest.approx([0.77, 0.18, 0.05], abs=0.035)
    assert seconds < 10  # about 2.5 s on a quiet processor


def test_same_seed_same_stack() -> None:
    a, truth_a = synthetic_stack((2, 96, 130), seed=5)
    b, truth_b = synthetic_stack((2, 96, 130), seed=5)
    c, truth_c = synthetic_stack((2, 96, 130), seed=6)
    np.testing.assert_array_equal(a.data, b.data)
    np.testing.assert_array_equal(truth_a, truth_b)
    assert (truth_a != truth_c).mean() > 0.1
    assert (a.data != c.data).mean() > 0.5


def test_shapes_go_on_from_section_to_section(made: tuple[np.ndarray, np.ndarray, float]) -> None:
    _, truth, _ = made
    next_to = np.mean([(truth[z] == truth[z + 1]).mean() for z in range(7)])
    far = np.mean([(truth[z] == np.roll(truth[z + 1], 200, 1)).mean() for z in range(7)])
    assert next_to > 0.74 > 0.68 > far
    moved = [(truth[z] == truth[z + 1]).mean() for z in range(7)]
    assert max(moved) < 0.95  # and yet no section is a copy


def test_looks_like_the_classes(made: tuple[np.ndarray, np.ndarray, float]) -> None:
    image, truth, _ = made
    cytoplasm, membrane, mitochondria = (image[truth == c].astype(float) for c in (1, 2, 3))
    assert membrane.mean() < mitochondria.mean() < cytoplasm.mean() - 40
    assert mitochondria.std() > 25  # textured
    thick = ndimage.distance_transform_edt(truth[0] == 2)
    assert 1.7 < thick[thick > 0].mean() < 3
    means = [s.mean() for s in image]
    assert np.std(means) > 1  # contrast jumps


def test_truth_is_exact_against_a_simple_look(made: tuple[np.ndarray, np.ndarray, float]) -> None:
    """Moving the truth by a few pixels must make dark membranes and truth disagree."""
    image, truth, _ = made
    dark = [image[z][np.roll(truth[z], s, (0, 1)) == 2].mean() for s in (0, 6) for z in (0,)]
    assert dark[0] + 20 < dark[1]


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 17, 5), (2, 40, 200)])
def test_odd_shapes(shape: tuple[int, int, int]) -> None:
    stack, truth = synthetic_stack(shape, seed=1)
    assert stack.shape == truth.shape == shape


def test_a_stack_without_sections_is_refused() -> None:
    with pytest.raises(DrososegError, match="three positive lengths"):
        synthetic_stack((0, 5, 5))


def test_grey_levels_near_the_real_ones(made: tuple[np.ndarray, np.ndarray, float], vnc) -> None:
    image, truth, _ = made
    real = np.asarray(read_stack(vnc / "stack1" / "raw").data[::5])
    labels = map_vnc_labels(np.asarray(read_stack(vnc / "stack1" / "labels").data[::5]))
    for c in (1, 2, 3):
        ours, theirs = image[truth == c], real[labels == c]
        assert abs(ours.mean() - theirs.mean()) < 14
        assert abs(ours.std() - theirs.std()) < 12
    bins = np.arange(0, 257, 16)
    a, b = (np.histogram(x, bins, density=True)[0] * 16 for x in (image, real))
    assert np.abs(a - b).sum() / 2 < 0.12  # share of pixels that would have to change
