from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_drososeg.data.augmentation import PRESETS, Augmentation
from napari_drososeg.data.patches import Batch, LabelledPixels, PatchSampler
from napari_drososeg.data.prefetch import Prefetch, threads_for
from napari_drososeg.data.sections import AnnotatedSection
from napari_drososeg.errors import DrososegError

OFF = PRESETS["none"]
TURNS = replace(OFF, turns=True)


@pytest.fixture
def section() -> AnnotatedSection:
    labels = np.random.default_rng(0).integers(0, 4, (40, 50)).astype(np.uint8)
    return AnnotatedSection(labels.astype(np.float32), labels)


@pytest.fixture
def sparse() -> AnnotatedSection:
    """One stroke of each of two classes in 200 x 200 px."""
    labels = np.zeros((200, 200), np.uint8)
    labels[10, 5:25] = 1
    labels[150:152, 180:190] = 2
    return AnnotatedSection(np.zeros((200, 200), np.float32), labels)


def same(one: Batch, other: Batch) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True) if a is not None)


def test_a_batch_is_patches_with_their_labels(section: AnnotatedSection) -> None:
    images, labels, teacher = PatchSampler([section], 16, 32, TURNS, seed=1)(0)
    assert images.shape == (32, 1, 16, 16)
    assert images.dtype == torch.float32
    assert labels.dtype == torch.uint8
    assert teacher is None
    np.testing.assert_array_equal(images[:, 0], labels)


@pytest.mark.parametrize("name", ["mild", "strong"])
def test_a_batch_depends_on_seed_and_step_alone(section: AnnotatedSection, name: str) -> None:
    sampler = PatchSampler([section], 16, 4, PRESETS[name], seed=3, class_patches=0.5)
    first = sampler(7)
    sampler(8)
    torch.manual_seed(1)
    again = PatchSampler([section], 16, 4, PRESETS[name], seed=3, class_patches=0.5)(7)
    assert same(first, again)
    assert not torch.equal(first.images, sampler(8).images)


def test_devices_draw_together_what_one_would(section: AnnotatedSection) -> None:
    whole = PatchSampler([section], 16, 6, Augmentation(), seed=3)(2)
    shares = [PatchSampler([section], 16, 6, Augmentation(), seed=3, rank=r, ranks=2)(2) for r in range(2)]
    for rank, share in enumerate(shares):
        assert torch.equal(share.images, whole.images[rank::2])
        assert torch.equal(share.labels, whole.labels[rank::2])
    with pytest.raises(DrososegError, match="cannot be split among 4 devices"):
        PatchSampler([section], 16, 6, Augmentation(), seed=3, ranks=4)


def test_patches_are_drawn_where_something_is_labelled(sparse: AnnotatedSection) -> None:
    empty = AnnotatedSection(np.ones((200, 200), np.float32), np.zeros((200, 200), np.uint8))
    batch = PatchSampler([sparse, empty], 32, 64, OFF, seed=0)(0)
    assert (batch.labels > 0).flatten(1).any(1).all()
    assert not batch.images.any()  # none from the section that has no label
    columns = batch.labels.amax(1).argmax(1)
    assert len(set(columns.tolist())) > 5  # a labelled pixel is anywhere in its patch


def test_a_hole_in_a_dense_section_is_avoided() -> None:
    labels = np.ones((100, 100), np.uint8)
    labels[:, 55:] = 0
    batch = PatchSampler([AnnotatedSection(labels.astype(np.float32), labels)], 32, 64, OFF, seed=0)(0)
    assert (batch.labels > 0).flatten(1).any(1).all()


def test_class_patches_are_centred_on_classes_drawn_evenly(sparse: AnnotatedSection) -> None:
    labels = np.ones((400, 400), np.uint8)
    labels[200:203, 200:203] = 3  # 9 of 160 000 pixels; class 2 does not occur here
    dense = AnnotatedSection(labels.astype(np.float32), labels)
    batch = PatchSampler([dense], 33, 400, OFF, seed=0, class_patches=1.0)(0)
    rare = batch.labels[:, 16, 16] == 3
    assert 0.4 < rare.float().mean() < 0.6
    batch = PatchSampler([dense, sparse], 33, 400, OFF, seed=0, class_patches=1.0)(0)
    assert 0.25 < (batch.labels == 2).flatten(1).any(1).float().mean() < 0.42
    never = PatchSampler([dense], 33, 400, OFF, seed=0)(0)
    assert (never.labels[:, 16, 16] == 3).float().mean() < 0.02


def test_the_teacher_is_moved_with_the_labels(section: AnnotatedSection) -> None:
    teacher = (section.labels[None] == np.arange(1, 4)[:, None, None]).astype(np.float16)
    taught = replace(section, teacher=teacher)
    for augmentation in (TURNS, PRESETS["strong"]):
        batch = PatchSampler([taught], 16, 8, augmentation, seed=0)(0)
        assert batch.teacher is not None
        assert batch.teacher.shape == (8, 3, 16, 16)
        labelled = batch.labels > 0
        np.testing.assert_array_equal((batch.teacher.argmax(1) + 1)[labelled], batch.labels[labelled].to(torch.int64))
        assert not batch.teacher.sum(1)[~labelled].any()  # 0 outside, and here where there is no label


def test_sections_with_and_without_a_teacher_make_one_batch(section: AnnotatedSection) -> None:
    only_taught = AnnotatedSection(
        np.full((40, 50), 9, np.float32), np.zeros((40, 50), np.uint8), np.full((3, 40, 50), 1 / 3, np.float16)
    )
    batch = PatchSampler([section, only_taught], 16, 32, OFF, seed=0)(0)
    assert batch.teacher is not None
    taught = batch.images[:, 0, 0, 0] == 9
    assert 0 < taught.sum() < 32
    assert batch.teacher[taught].all()
    assert not batch.teacher[~taught].any()


def test_labelled_pixels_are_equally_likely() -> None:
    labels = np.random.default_rng(0).integers(0, 4, (5, 7)).astype(np.uint8)
    pixels = LabelledPixels(labels)
    assert pixels.counts.tolist() == [int((labels == c).sum()) for c in (1, 2, 3)]
    rng = np.random.default_rng(0)
    for value in (None, 2):
        wanted = set(zip(*np.nonzero(labels > 0 if value is None else labels == value), strict=True))
        drawn = [pixels.draw(rng, value) for _ in range(40 * len(wanted))]
        assert set(drawn) == wanted
        assert max(drawn.count(p) for p in wanted) < 70


def test_what_cannot_be_drawn_from_is_refused(section: AnnotatedSection) -> None:
    with pytest.raises(DrososegError, match=r"Annotated section 0 is \(40, 50\).*64 px"):
        PatchSampler([section], 64, 1, OFF, seed=0)
    with pytest.raises(DrososegError, match="section 7 is"):
        PatchSampler([replace(section, name="section 7")], 64, 1, OFF, seed=0)
    with pytest.raises(DrososegError, match="no annotated section"):
        PatchSampler([], 64, 1, OFF, seed=0)
    with pytest.raises(DrososegError, match="Nothing is labelled"):
        PatchSampler([AnnotatedSection(section.image, np.zeros_like(section.labels))], 16, 1, OFF, seed=0)


def test_read_only_sections_are_fine(section: AnnotatedSection) -> None:
    expected = PatchSampler([section], 16, 2, PRESETS["strong"], seed=0)(0)
    before = section.image.copy(), section.labels.copy()
    for array in (section.image, section.labels):
        array.flags.writeable = False
    assert same(PatchSampler([section], 16, 2, PRESETS["strong"], seed=0)(0), expected)
    assert np.array_equal(section.image, before[0])  # torch does not know that it must not write
    assert np.array_equal(section.labels, before[1])


@pytest.mark.parametrize("n_threads", [1, 4])
def test_prefetching_changes_nothing_but_the_thread(section: AnnotatedSection, n_threads: int) -> None:
    sampler = PatchSampler([section], 16, 2, Augmentation(), seed=0)
    threads: dict[int, str] = {}

    def draw(step: int) -> Batch:
        threads[step] = threading.current_thread().name
        return sampler(step)

    before = torch.get_num_threads()
    with Prefetch(draw, 5, n_threads) as batches:
        assert all(same(batches(step), sampler(step)) for step in (0, 1, 2, 4))  # and one jump
        assert torch.get_num_threads() == before
    assert {0, 1, 2, 4} <= set(threads) <= {0, 1, 2, 3, 4}  # 3 may be cancelled before it began
    assert all("patches" in name for name in threads.values())
    assert not any("drososeg-patches" in t.name for t in threading.enumerate())


def test_the_background_thread_leaves_the_cores_to_the_network() -> None:
    found: dict[str, int] = {}
    before = torch.get_num_threads()
    torch.set_num_threads(2)

    def draw(step: int) -> Batch:
        found["patches"] = torch.get_num_threads()
        return Batch(torch.zeros(1), torch.zeros(1), None)

    def later() -> None:
        found["later"] = torch.get_num_threads()

    try:
        with Prefetch(draw, 1, 3) as batches:
            batches(0)
        thread = threading.Thread(target=later)
        thread.start()
        thread.join()
    finally:
        torch.set_num_threads(before)
    assert found == {"patches": 1, "later": 2}


def test_several_batches_are_made_at_once() -> None:
    together = threading.Barrier(3)

    def draw(step: int) -> Batch:
        together.wait(20)  # breaks where fewer than three threads come here
        return Batch(torch.full((1,), step), torch.zeros(1), None)

    with Prefetch(draw, 3, threads=3) as batches:
        assert [int(batches(step).images) for step in range(3)] == [0, 1, 2]


def test_processors_get_one_thread_and_cards_several() -> None:
    assert threads_for("cpu") == 1
    assert 1 <= threads_for("cuda") <= 8


def test_an_error_while_drawing_comes_out() -> None:
    def draw(step: int) -> Batch:
        raise DrososegError("damaged")

    with Prefetch(draw, 3) as batches, pytest.raises(DrososegError, match="damaged"):
        batches(0)
