"""``drososeg evaluate`` and ``drososeg demo``."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_drososeg.evaluation import error_map
from napari_drososeg.io import read_labels, read_stack, write_labels
from napari_drososeg.metrics import Scores, confusion_matrix

Run = Callable[..., Any]


@pytest.fixture
def pair(tmp_path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Labels and truth of five sections, also written as ``pred.tif`` and ``truth.tif``."""
    rng = np.random.default_rng(5)
    truth = rng.integers(0, 4, (5, 24, 32), dtype=np.uint8)
    labels = np.where(rng.random(truth.shape) < 0.3, rng.integers(0, 4, truth.shape), truth).astype(np.uint8)
    write_labels(tmp_path / "pred.tif", labels)
    write_labels(tmp_path / "truth.tif", truth)
    return labels, truth


def pooled(labels: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    return Scores.from_confusion(confusion_matrix(truth, labels, 3)).to_dict()


def test_scores_are_those_of_the_library(drososeg: Run, pair: Any, tmp_path: Path) -> None:
    said = json.loads(drososeg("evaluate", tmp_path / "pred.tif", tmp_path / "truth.tif", "--json").stdout)
    assert said["pooled"] == pooled(*pair)
    assert said["confusion"] == confusion_matrix(pair[1], pair[0], 3).tolist()
    assert said["truth_format"] == "classes"
    assert len(said["sections"]) == 5


def test_people_get_tables(drososeg: Run, pair: Any, tmp_path: Path) -> None:
    shown = drososeg("evaluate", tmp_path / "pred.tif", tmp_path / "truth.tif").stdout
    scores = pooled(*pair)
    for value in (*scores["iou"], *scores["f1"], scores["mean_iou"], scores["pixel_accuracy"]):
        assert f"{value:.4f}" in shown
    averaged = Scores.mean_of(Scores.from_confusion(confusion_matrix(b, a, 3)) for a, b in zip(*pair, strict=True))
    for value in (*averaged.iou, *averaged.precision, averaged.mean_pixel_accuracy):
        assert f"{value:.4f}" in shown
    for word in ("cell membrane", "unlabelled", "mean over sections", "mean pixel accuracy"):
        assert word in shown


def test_the_same_sections_of_equal_stacks(drososeg: Run, pair: Any, tmp_path: Path) -> None:
    run = ("evaluate", tmp_path / "pred.tif", tmp_path / "truth.tif", "--json", "--sections")
    said = json.loads(drososeg(*run, "3-4").stdout)
    assert said["pooled"] == pooled(pair[0][3:], pair[1][3:])


def test_labels_of_some_sections_only(drososeg: Run, pair: Any, tmp_path: Path) -> None:
    write_labels(tmp_path / "two.tif", pair[0][3:])
    run = ("evaluate", tmp_path / "two.tif", tmp_path / "truth.tif", "--json")
    for sections in ("3-4", "0-1:3-4"):
        assert json.loads(drososeg(*run, "--sections", sections).stdout)["pooled"] == pooled(pair[0][3:], pair[1][3:])
    assert "2 sections and the truth 5" in drososeg(*run, code=2).stderr
    assert "pairs 1 sections with 2" in drososeg(*run, "--sections", "0:3-4", code=2).stderr
    assert "cannot be compared" in drososeg(*run, "--sections", "0,2:3-4", code=2).stderr


def test_csv_and_error_map(drososeg: Run, pair: Any, tmp_path: Path) -> None:
    table, picture = tmp_path / "scores.csv", tmp_path / "errors.tif"
    files = (tmp_path / "pred.tif", tmp_path / "truth.tif")
    drososeg("evaluate", *files, "--csv", table, "--error-map", picture, "--sections", "1,3")
    labels, truth = pair
    np.testing.assert_array_equal(tifffile.imread(picture), np.stack([error_map(labels[z], truth[z]) for z in (1, 3)]))
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    by_key = {(r["truth_section"], r["class"]): r for r in rows}
    assert len(rows) == 4 * 4
    assert float(by_key["3", "mitochondria"]["iou"]) == pytest.approx(pooled(labels[3], truth[3])["iou"][2], abs=1e-6)
    expected = pooled(labels[[1, 3]], truth[[1, 3]])["mean_iou"]
    means = by_key["pooled", "mean of classes"]
    assert float(means["iou"]) == pytest.approx(expected, abs=1e-6)
    each = [pooled(labels[z], truth[z])["mean_iou"] for z in (1, 3)]
    assert float(by_key["mean", "mean of classes"]["iou"]) == pytest.approx(np.mean(each), abs=1e-6)
    assert float(by_key["mean", "mean of classes"]["iou"]) != pytest.approx(expected, abs=1e-6)
    matrix = confusion_matrix(truth[[1, 3]], labels[[1, 3]], 3)
    assert float(means["pixel_accuracy"]) == pytest.approx(np.trace(matrix) / matrix.sum(), abs=1e-6)
    recalls = np.diagonal(matrix) / matrix.sum(axis=1)
    assert float(means["mean_pixel_accuracy"]) == pytest.approx(recalls.mean(), abs=1e-6)
    columns = [f"labelled {name}" for name in ("cytoplasm", "cell membrane", "mitochondria", "nothing")]
    for i, name in enumerate(("cytoplasm", "cell membrane", "mitochondria")):
        assert [int(by_key["pooled", name][c]) for c in columns] == matrix[i].tolist()
        assert int(by_key["pooled", name]["pixels"]) == matrix[i].sum()


def test_nothing_compared_and_nothing_of_another_kind_is_written_over(drososeg: Run, pair: Any, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    write_labels(folder / "s.tif", pair[1][:1])
    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    pred, truth = tmp_path / "pred.tif", tmp_path / "truth.tif"
    for option in ("--csv", "--error-map"):
        for path in (pred, truth):
            assert "one of the inputs" in drososeg("evaluate", pred, truth, option, path, code=2).stderr
        assert "inside one" in drososeg("evaluate", folder, folder, option, folder / "new.tif", code=2).stderr
        assert "notes.txt' exists" in drososeg("evaluate", pred, truth, option, notes, code=2).stderr
        assert "exists" in drososeg("evaluate", pred, truth, option, folder, code=2).stderr
    both = ("--csv", tmp_path / "a.tif", "--error-map", tmp_path / "a.tif")
    assert "both" in drososeg("evaluate", pred, truth, *both, code=2).stderr
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_an_error_map_that_cannot_be_is_refused_before_anything_is_compared(
    drososeg: Run, pair: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_drososeg.evaluation.evaluate", None)
    run = ("evaluate", tmp_path / "pred.tif", tmp_path / "truth.tif", "--error-map")
    assert "written as .tif or .png" in drososeg(*run, tmp_path / "errors.jpg", code=2).stderr
    assert "write the 5 error maps to a .tif" in drososeg(*run, tmp_path / "errors.png", code=2).stderr


def test_a_csv_appears_only_when_it_is_complete(
    drososeg: Run, pair: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ("evaluate", tmp_path / "pred.tif", tmp_path / "truth.tif", "--csv", tmp_path / "scores.csv")
    drososeg(*run)
    before = (tmp_path / "scores.csv").read_bytes()

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert "scores.csv': No space left" in drososeg(*run, "--sections", "1", code=1).stderr
    assert (tmp_path / "scores.csv").read_bytes() == before


def test_raw_public_values(drososeg: Run, tmp_path: Path) -> None:
    raw = np.array([[[0, 32, 255, 191]]], dtype=np.uint8)
    tifffile.imwrite(tmp_path / "raw.tif", raw, photometric="minisblack")
    write_labels(tmp_path / "pred.tif", np.array([[[2, 1, 1, 3]]], dtype=np.uint8))
    run = ("evaluate", tmp_path / "pred.tif", tmp_path / "raw.tif", "--json")
    result = drososeg(*run)
    said = json.loads(result.stdout)
    assert said["truth_format"] == "vnc"
    assert "'raw' contains the raw label values of the public VNC data set; they are mapped" in result.stderr
    assert drososeg(*run, "--truth-format", "vnc").stderr == ""  # was said
    assert said["pooled"]["iou"] == pytest.approx([1 / 2, 1 / 2, 1])
    assert "Value 32 in the truth" in drososeg(*run, "--truth-format", "classes", code=2).stderr
    assert "--truth-format tiff is not known" in drososeg(*run, "--truth-format", "tiff", code=2).stderr


def test_pairs_outside_the_stacks_are_named(drososeg: Run, pair: Any, tmp_path: Path) -> None:
    run = ("evaluate", tmp_path / "pred.tif", tmp_path / "truth.tif", "--sections")
    for sections, labels, truth in (("0:9", 0, 9), ("4-5:0-1", 5, 1)):
        said = drososeg(*run, sections, code=2).stderr
        assert f"Sections {labels} (labels) and {truth} (truth) cannot be compared: the stacks have 5 and 5" in said


def test_labels_of_own_classes(drososeg: Run, network: Path, tmp_path: Path) -> None:
    truth = np.random.default_rng(0).integers(1, 6, (1, 8, 8), dtype=np.uint8)
    table = tmp_path / "five.json"
    names = ["a", "b", "c", "d", "e"]
    table.write_text(json.dumps([{"value": i, "name": n, "color": "#11223" + str(i)} for i, n in enumerate(names, 1)]))
    tifffile.imwrite(tmp_path / "five.tif", truth, photometric="minisblack")
    run = ("evaluate", tmp_path / "five.tif", tmp_path / "five.tif", "--json", "--classes", table)
    said = json.loads(drososeg(*run).stdout)
    assert said["confusion_rows"] == names
    assert said["pooled"]["iou"] == [1.0] * 5
    assert "give one of them" in drososeg(*run, "--model", network, code=2).stderr


def test_an_unlabelled_section_is_said(drososeg: Run, pair: Any, tmp_path: Path) -> None:
    labels = pair[0].copy()
    labels[2] = 0
    write_labels(tmp_path / "hole.tif", labels)
    result = drososeg("evaluate", tmp_path / "hole.tif", tmp_path / "truth.tif", "--json")
    assert "section 2 of the labels" in result.stderr
    assert "section 2" in json.loads(result.stdout)["notices"][0]
    assert drososeg("evaluate", tmp_path / "hole.tif", tmp_path / "truth.tif", "-q").stderr == ""


def test_an_image_is_no_labels(drososeg: Run, pair: Any, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "grey.tif", np.zeros((5, 24, 32), np.float32), photometric="minisblack")
    assert "whole numbers" in drososeg("evaluate", tmp_path / "grey.tif", tmp_path / "truth.tif", code=2).stderr


def test_predict_and_evaluate_keep_section_numbers(
    drososeg: Run, predict: Run, stack_file: Path, synthetic: Any, tmp_path: Path
) -> None:
    write_labels(tmp_path / "truth.tif", synthetic[1])
    predict(stack_file, "-o", tmp_path / "labels.tif", "--sections", "1-2")
    run = ("evaluate", tmp_path / "labels.tif", tmp_path / "truth.tif", "--json", "--sections", "1-2")
    labels = read_labels(tmp_path / "labels.tif")
    expected = pooled(np.stack([labels.read(1), labels.read(2)]), synthetic[1][1:])
    assert json.loads(drososeg(*run).stdout)["pooled"] == expected


def test_the_public_stack(drososeg: Run, predict: Run, vnc: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels.tif"
    predict(vnc / "stack1" / "raw", "-o", out, "--sections", "13", "--pixel-size", 4.6)
    result = drososeg("evaluate", out, vnc / "stack1" / "labels", "--sections", "13", "--json")
    said = json.loads(result.stdout)
    assert said["truth_format"] == "vnc"
    assert said["pooled"]["pixels"] == 1024 * 1024
    assert said["notices"] == []


def test_demo(drososeg: Run, network: Path, tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    run = ("demo", "-o", folder, "--model", network, "--size", 96, "--n-sections", 2, "--engine", "torch")
    shown = drososeg(*run).stdout
    for name in ("image.tif", "truth.tif", "labels.tif", "overlay.png"):
        assert (folder / name).is_file()
        assert name in shown
    assert "napari" in shown
    assert "mitochondria" in shown
    labels, truth, image = (read_labels(folder / f"{n}.tif") for n in ("labels", "truth", "image"))
    assert labels.shape == truth.shape == image.shape == (2, 96, 96)
    assert read_stack(folder / "image.tif").voxel_size == pytest.approx((50, 4.6, 4.6), rel=1e-3)
    picture = np.asarray(Image.open(folder / "overlay.png"))
    assert picture.ndim == 3
    assert (picture == (240, 228, 66)).all(axis=-1).sum() > 100  # it is wrong in many places, and says so

    said = json.loads(drososeg(*run, "--json").stdout)
    predicted = np.stack([labels.read(z) for z in range(2)])
    assert said["evaluation"]["pooled"] == pooled(predicted, np.stack([truth.read(z) for z in range(2)]))
    names = [".drososeg-demo", "image.tif", "labels.tif", "overlay.png", "truth.tif"]
    assert sorted(p.name for p in folder.iterdir()) == names


@pytest.mark.parametrize("name", ["image.tif", "labels.tif", "truth.tif", "overlay.png"])
def test_demo_never_replaces_what_no_demo_wrote(drososeg: Run, network: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"mine")
    said = drososeg("demo", "-o", tmp_path, "--model", network, "--size", 96, "--engine", "torch", code=2).stderr
    assert f"{name}' exists and no demo wrote it" in said
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == b"mine"
