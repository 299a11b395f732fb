"""Evaluation on small stacks whose scores are known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_drososeg import evaluation
from napari_drososeg.classes import DROSOPHILA_CLASSES, ClassTable, SegmentationClass
from napari_drososeg.errors import DrososegError
from napari_drososeg.evaluation import ClassAreas, comparison, detect_truth_format, error_map, evaluate, pair_sections
from napari_drososeg.io import as_stack, read_stack
from napari_drososeg.metrics import Scores, confusion_matrix

TWO = ClassTable((SegmentationClass(1, "a", "#112233"), SegmentationClass(2, "b", "#445566")))


@pytest.fixture
def truth() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 4, (3, 20, 30), dtype=np.uint8)


@pytest.fixture
def labels(truth: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(4)
    changed = rng.random(truth.shape) < np.array([0.1, 0.3, 0.5])[:, None, None]
    return np.where(changed, rng.integers(1, 4, truth.shape), truth).astype(np.uint8)


def test_pooled_is_the_whole_and_averaged_the_mean(truth: np.ndarray, labels: np.ndarray) -> None:
    result = evaluate(labels, truth)
    whole = Scores.from_confusion(confusion_matrix(truth, labels, 3))
    each = [Scores.from_confusion(confusion_matrix(t, p, 3)) for t, p in zip(truth, labels, strict=True)]
    assert result.pooled == whole
    assert [s.scores for s in result.sections] == each
    assert result.averaged.mean_iou == pytest.approx(np.mean([s.mean_iou for s in each]))
    assert result.pooled.mean_iou != pytest.approx(result.averaged.mean_iou, abs=1e-6)
    assert result.notices == ()


def test_strips_change_nothing(truth: np.ndarray, labels: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = evaluate(labels, truth)
    monkeypatch.setattr(evaluation.truth, "STRIP_PIXELS", 70)  # two rows at a time
    reads: list[slice] = []
    stack = as_stack(truth)
    original = type(stack).read
    monkeypatch.setattr(
        type(stack),
        "read",
        lambda self, z, ys=slice(None), xs=slice(None): reads.append(ys) or original(self, z, ys, xs),
    )
    result = evaluate(labels, truth)
    np.testing.assert_array_equal(result.confusion, expected.confusion)
    assert {s.stop - s.start for s in reads} == {2}


def test_pairs_choose_sections(truth: np.ndarray, labels: np.ndarray) -> None:
    result = evaluate(labels[1:], truth, pairs=pair_sections(2, 3, [1, 2]))
    assert [(s.labels_section, s.truth_section) for s in result.sections] == [(0, 1), (1, 2)]
    np.testing.assert_array_equal(result.confusion, confusion_matrix(truth[1:], labels[1:], 3))


@pytest.mark.parametrize(
    ("n_labels", "n_truth", "sections", "expected"),
    [
        (2, 2, None, [(0, 0), (1, 1)]),
        (16, 16, [13, 14], [(13, 13), (14, 14)]),
        (3, 16, [13, 14, 15], [(0, 13), (1, 14), (2, 15)]),
        (1, 16, [4], [(0, 4)]),
    ],
)
def test_pair_sections(
    n_labels: int, n_truth: int, sections: list[int] | None, expected: list[tuple[int, int]]
) -> None:
    assert pair_sections(n_labels, n_truth, sections) == expected


@pytest.mark.parametrize(
    ("n_labels", "n_truth", "sections", "message"),
    [
        (3, 16, None, "3 sections and the truth 16"),
        (16, 16, [16], "Section 16 is not in the truth"),
        (3, 16, [1, 2], "cannot be paired"),
    ],
)
def test_sections_that_do_not_fit(n_labels: int, n_truth: int, sections: list[int] | None, message: str) -> None:
    with pytest.raises(DrososegError, match=message):
        pair_sections(n_labels, n_truth, sections)


def test_pairs_outside_a_stack_are_refused(truth: np.ndarray, labels: np.ndarray) -> None:
    with pytest.raises(DrososegError, match="cannot be compared"):
        evaluate(labels, truth, pairs=[(3, 0)])
    with pytest.raises(DrososegError, match="at least one"):
        evaluate(labels, truth, pairs=[])


def test_sizes_that_differ_are_named(truth: np.ndarray) -> None:
    with pytest.raises(DrososegError, match="30 x 20.*30 x 19"):
        evaluate(truth, truth[:, :19])


def test_values_outside_the_table_name_the_section(truth: np.ndarray, labels: np.ndarray) -> None:
    labels[2, 5, 5] = 9
    with pytest.raises(DrososegError, match="Section 2: Value 9 in the labels"):
        evaluate(labels, truth)


def test_an_empty_prediction_is_wrong_and_said(truth: np.ndarray, labels: np.ndarray) -> None:
    labels[1] = 0
    result = evaluate(labels, truth)
    assert result.sections[1].scores.pixel_accuracy == 0
    assert result.confusion[:, 3].sum() >= np.count_nonzero(truth[1])
    assert len(result.notices) == 1
    assert "section 1 of the labels" in result.notices[0]


def test_a_section_without_truth_is_said(truth: np.ndarray, labels: np.ndarray) -> None:
    truth[0] = 0
    result = evaluate(labels, truth)
    assert any("truth of section 0" in n for n in result.notices)
    json.dumps(result.to_dict(), allow_nan=False)


class TestTruthFormat:
    def test_class_values_stay(self, truth: np.ndarray) -> None:
        assert detect_truth_format(as_stack(truth), DROSOPHILA_CLASSES, [0, 1, 2]) == "classes"

    def test_all_zero_is_not_taken_for_membrane(self) -> None:
        assert detect_truth_format(as_stack(np.zeros((2, 4, 4), np.uint8)), DROSOPHILA_CLASSES, [0, 1]) == "classes"

    def test_raw_values_are_found(self) -> None:
        raw = np.array([[[0, 32, 255], [159, 191, 223]]], dtype=np.uint8)
        assert detect_truth_format(as_stack(raw), DROSOPHILA_CLASSES, [0]) == "vnc"

    @pytest.mark.parametrize(
        "values",
        [
            [0, 32, 7],
            [1, 2, 3, 32],
            [0, 1, 255],
            [0, 255],
            [64, 128, 255],
            [0, 64, 128, 191, 255],
            [0, 32, 64, 96, 128],
        ],
    )
    def test_anything_else_is_refused_rather_than_guessed(self, values: list[int]) -> None:
        stack = as_stack(np.array([[values]], dtype=np.uint8))
        with pytest.raises(DrososegError, match="not clearly those"):
            detect_truth_format(stack, DROSOPHILA_CLASSES, [0])

    def test_only_the_sections_that_matter_count(self) -> None:
        stack = as_stack(np.stack([np.full((2, 2), 77), np.full((2, 2), 2)]).astype(np.uint8))
        assert detect_truth_format(stack, DROSOPHILA_CLASSES, [1]) == "classes"

    def test_raw_values_are_mapped(self) -> None:
        raw = np.array([[[0, 32, 255], [159, 191, 223]]], dtype=np.uint8)
        mapped = np.array([[[2, 2, 1], [1, 3, 2]]], dtype=np.uint8)
        assert evaluate(mapped, raw, truth_format="auto").pooled.mean_iou == 1.0
        assert evaluate(mapped, raw, truth_format="vnc").pooled.mean_iou == 1.0

    def test_raw_values_fit_no_other_classes(self) -> None:
        raw = np.array([[[0, 32, 255, 191]]], dtype=np.uint8)
        with pytest.raises(DrososegError, match="mapped to cytoplasm"):
            evaluate(np.ones_like(raw), raw, TWO, truth_format="auto")


def test_error_map_is_yellow_where_wrong() -> None:
    truth = np.array([[1, 2, 0]], dtype=np.uint8)
    said = np.array([[1, 3, 3]], dtype=np.uint8)
    np.testing.assert_array_equal(error_map(said, truth), [[[0, 0, 0], [240, 228, 66], [70, 70, 70]]])
    grey = np.array([[10, 20, 30]], dtype=np.uint8)
    np.testing.assert_array_equal(error_map(said, truth, grey), [[[10, 10, 10], [240, 228, 66], [30, 30, 30]]])
    with pytest.raises(DrososegError, match="shape"):
        error_map(said, truth[:, :2])


def test_error_maps_are_written(tmp_path: Path, truth: np.ndarray, labels: np.ndarray) -> None:
    pairs = [(0, 0), (1, 2)]
    maps = evaluation.error_maps(as_stack(labels), as_stack(truth), pairs=pairs)
    path = evaluation.write_error_maps(tmp_path / "deep" / "errors.tif", maps, (2, 20, 30))
    written = tifffile.imread(path)
    expected = np.stack([error_map(labels[z], truth[other]) for z, other in pairs])
    np.testing.assert_array_equal(written, expected)
    one = evaluation.write_error_maps(tmp_path / "e.png", iter([expected[0]]), (1, 20, 30))
    np.testing.assert_array_equal(np.asarray(Image.open(one)), expected[0])
    with pytest.raises(DrososegError, match="one section"):
        evaluation.write_error_maps(tmp_path / "e.png", maps, (2, 20, 30))
    with pytest.raises(DrososegError, match=r"\.tif or \.png"):
        evaluation.write_error_maps(tmp_path / "e.jpg", maps, (1, 20, 30))


def test_a_failing_error_map_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "errors.tif"
    path.write_bytes(b"old")

    def broken():
        yield np.zeros((4, 4, 3), np.uint8)
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        evaluation.write_error_maps(path, broken(), (2, 4, 4))
    assert [p.name for p in tmp_path.iterdir()] == ["errors.tif"]
    assert path.read_bytes() == b"old"


def test_areas_by_hand() -> None:
    rows = ClassAreas(DROSOPHILA_CLASSES, 200.0, np.array([2, 3, 1, 2])).rows()
    assert [r["pixels"] for r in rows] == [3, 1, 2]
    assert [r["fraction"] for r in rows] == pytest.approx([3 / 6, 1 / 6, 2 / 6])
    assert [r["um2"] for r in rows] == pytest.approx([3 * 200e-6, 200e-6, 400e-6])
    unknown = ClassAreas(DROSOPHILA_CLASSES).rows()
    assert [(r["pixels"], r["fraction"], r["um2"]) for r in unknown] == [(0, 0.0, None)] * 3


def test_progress_counts_sections(truth: np.ndarray, labels: np.ndarray) -> None:
    seen: list[tuple[int, int]] = []
    evaluate(labels, truth, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_each_section_of_the_public_stack_is_known(vnc: Path) -> None:
    truth = read_stack(vnc / "stack1" / "labels")
    assert {detect_truth_format(truth, DROSOPHILA_CLASSES, [z]) for z in range(truth.n_sections)} == {"vnc"}


def test_public_stack_agrees_with_itself(vnc: Path) -> None:
    truth = read_stack(vnc / "stack1" / "labels")
    one = comparison.evaluate(truth_as_classes(truth, 13), as_stack(truth.read(13)), truth_format="auto")
    assert one.pooled.mean_iou == 1.0
    assert one.pooled.pixels == 1024 * 1024


def truth_as_classes(truth, z: int) -> np.ndarray:
    raw = truth.read(z)
    table = np.zeros(256, np.uint8)
    table[[159, 255]] = 1
    table[[0, 32, 64, 96, 128, 223]] = 2
    table[191] = 3
    return table[raw]
