from __future__ import annotations

import numpy as np
import pytest

from napari_drososeg.data.patches import AnnotatedSection, Augmentation, PatchSampler, annotated_section, augment
from napari_drososeg.errors import DrososegError

EXACT = Augmentation(brightness=0, contrast=0, gamma=0, noise=0)


@pytest.fixture
def section() -> AnnotatedSection:
    labels = np.random.default_rng(0).integers(0, 4, (40, 50)).astype(np.uint8)
    return AnnotatedSection(labels.astype(np.float32), labels)


def test_image_and_labels_are_turned_together(section: AnnotatedSection) -> None:
    images, labels = PatchSampler([section], 16, 32, EXACT, seed=1)(0)
    assert images.shape == (32, 1, 16, 16)
    assert images.dtype == np.float32
    np.testing.assert_array_equal(images[:, 0], labels)


def test_all_eight_orientations_occur(section: AnnotatedSection) -> None:
    rng = np.random.default_rng(0)
    seen = {augment(section.image[:8, :8], section.labels[:8, :8], EXACT, rng)[1].tobytes() for _ in range(200)}
    assert len(seen) == 8


def test_a_batch_depends_on_seed_and_step_alone(section: AnnotatedSection) -> None:
    sampler = PatchSampler([section], 16, 4, Augmentation(), seed=3)
    first = sampler(7)
    sampler(8)
    again = PatchSampler([section], 16, 4, Augmentation(), seed=3)(7)
    np.testing.assert_array_equal(first[0], again[0])
    assert not np.array_equal(first[0], sampler(8)[0])


def test_grey_values_are_jittered_and_labels_are_not(section: AnnotatedSection) -> None:
    grey = Augmentation(turns=False)
    image, labels = augment(section.image, section.labels, grey, np.random.default_rng(0))
    assert np.isfinite(image).all()
    assert not np.allclose(image, section.image)
    np.testing.assert_array_equal(labels, section.labels)


def test_a_section_smaller_than_a_patch_is_refused(section: AnnotatedSection) -> None:
    with pytest.raises(DrososegError, match=r"section 0 is \(40, 50\).*64 px"):
        PatchSampler([section], 64, 1, EXACT, seed=0)
    with pytest.raises(DrososegError, match="no annotated section"):
        PatchSampler([], 64, 1, EXACT, seed=0)


def test_bad_pairs_are_refused_by_name() -> None:
    with pytest.raises(DrososegError, match="section 03"):
        annotated_section(np.zeros((4, 4)), np.zeros((4, 5), np.uint8), "section 03")
    with pytest.raises(DrososegError, match="NaN"):
        annotated_section(np.full((4, 4), np.nan), np.zeros((4, 4), np.uint8), "section 03")
    with pytest.raises(DrososegError, match="0 to 255"):
        annotated_section(np.zeros((4, 4)), np.full((4, 4), 258), "section 03")
