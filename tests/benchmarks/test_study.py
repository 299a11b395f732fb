"""The study's tables: a small but real run of each part, on a stack that our generator drew."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_drososeg.data.augmentation import Augmentation
from napari_drososeg.evaluation import evaluate
from napari_drososeg.inference import PredictConfig, Predictor, predict
from napari_drososeg.io import as_stack
from napari_drososeg.training import TrainConfig

pytest.importorskip("matplotlib")
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import study
import study_protocol
import study_report


def test_all_parts_run_and_say_the_truth(
    drawn: Path, tiny_network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, out = tmp_path / "runs", tmp_path / "docs" / "benchmark.json"
    (runs / "unet-00-11").mkdir(parents=True)
    out.parent.mkdir()
    shutil.copy(tiny_network, runs / "unet-00-11" / "unet.safetensors")
    common = ["--runs", str(runs), "--data", str(drawn), "--out", str(out), "--networks", "unet"]
    study.main([*common, "fpn", "--parts", "leak-free", "orientations", "ensemble"])
    assert "ensemble: fewer networks" in capsys.readouterr().err
    study.main([*common, "--parts", "speed", "protocol", "--turns", "2", "--epochs", "1"])

    result = json.loads(out.read_text())
    images, truth = study.load(drawn, study.SECTIONS)
    stack = as_stack(images, voxel_size=(None, 4.6, 4.6))
    expected = evaluate(as_stack(predict(stack, tiny_network)), as_stack(truth))
    assert result["leak-free"]["rows"].keys() == {"unet"}  # fpn has no run, and that is said, not made up
    row = result["leak-free"]["rows"]["unet"]
    assert row["pooled"]["mean_iou"] == pytest.approx(expected.pooled.mean_iou)
    assert row["averaged"]["mean_iou"] == pytest.approx(expected.averaged.mean_iou)
    turned = evaluate(as_stack(predict(stack, tiny_network, PredictConfig(orientations=8))), as_stack(truth)).pooled
    assert result["orientations"]["rows"]["unet"]["pooled"]["mean_iou"] == pytest.approx(turned.mean_iou)
    assert "ensemble" not in result  # one is no mean
    (speed,) = result["speed"].values()
    assert all(seconds > 0 for seconds in speed["rows"]["unet"].values())
    assert result["protocol"]["rows"]["unet"]["epochs"] == 1
    assert result["protocol"]["rows"]["unet"]["tiles"] == [12, 2, 2]
    assert result["protocol"]["rows"]["unet"]["seed"] == study_protocol.SEED
    assert result["protocol"]["rows"]["unet"]["data_sha256"] == study.data_hash(*study.load(drawn, range(16)))
    assert row["data_sha256"] == study.data_hash(images, truth)
    page = out.with_suffix(".md").read_text()
    assert f"| U-Net | 0.837 | {expected.pooled.mean_iou:.4f} |" in page
    assert f"| {expected.pooled.mean_iou:.4f} | {turned.mean_iou:.4f} |" in page
    assert "best mIoU" in page
    assert "missed by" in page
    assert "the limit of 1 epochs" in page
    assert "Not run: FCN8, SegNet, R2U-Net," in page
    assert (
        "| random | not recorded | not recorded | None | not recorded | not recorded |" in page
    )  # the tiny network has no recipe


def test_rows_of_earlier_runs_stay_with_their_own_date(drawn: Path, tiny_network: Path, tmp_path: Path) -> None:
    out = tmp_path / "benchmark.json"
    for name in ("unet", "fpn"):
        (tmp_path / f"{name}-00-11").mkdir()
        shutil.copy(tiny_network, tmp_path / f"{name}-00-11" / f"{name}.safetensors")
    common = ["--runs", str(tmp_path), "--data", str(drawn), "--out", str(out), "--parts", "leak-free", "--networks"]
    study.main([*common, "unet", "fpn", "--figure"])
    assert json.loads(out.read_text())["leak-free"]["figure"] == ["unet", "fpn"]
    known = json.loads(out.read_text())
    for row in known["leak-free"]["rows"].values():
        row["measured"] |= {"date": "2026-01-01"}
    out.write_text(json.dumps(known))
    figure = out.with_suffix(".png").read_bytes()

    study.main([*common, "unet"])
    assert out.with_suffix(".png").read_bytes() == figure  # it was not asked for
    page = out.with_suffix(".md").read_text()
    assert "FPN: 2026-01-01, commit" in page
    assert "U-Net: 2026-01-01, commit" not in page


def test_the_ensemble_is_the_mean_of_its_networks(
    drawn: Path, tiny_network: Path, global_network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, paths = tmp_path / "benchmark.json", {"unet": tiny_network, "transunet": global_network}
    for name, path in paths.items():
        (tmp_path / f"{name}-00-11").mkdir()
        shutil.copy(path, tmp_path / f"{name}-00-11" / f"{name}.safetensors")
    common = ["--runs", str(tmp_path), "--data", str(drawn), "--out", str(out), "--parts", "ensemble", "--networks"]
    study.main([*common, *paths])
    images, truth = study.load(drawn, study.SECTIONS)
    stack = as_stack(images, voxel_size=(None, 4.6, 4.6))
    mean = np.zeros((len(images), 3, *images.shape[1:]))
    for path in paths.values():
        predictor = Predictor(path, PredictConfig(device="cpu"))
        for result in predictor.run(stack, predictor.plan(stack), outputs={"probabilities"}):
            mean[result.z, :, *result.slices] += result.probabilities
    expected = evaluate(as_stack((mean.argmax(1) + 1).astype(np.uint8)), as_stack(truth)).pooled.mean_iou
    known = json.loads(out.read_text())["ensemble"]
    assert known["pooled"]["mean_iou"] == pytest.approx(expected, abs=1e-3)
    assert 0 < known["borders"] < 0.5
    assert 0 <= known["errors_at_borders"] <= 1
    borders = np.zeros(truth.shape, bool)
    for axis in (1, 2):
        differ = np.diff(truth, axis=axis) != 0
        for side in ((1, 0), (0, 1)):
            borders |= np.pad(differ, [side if each == axis else (0, 0) for each in range(3)])
    away = evaluate(as_stack((mean.argmax(1) + 1).astype(np.uint8)), as_stack(np.where(borders, 0, truth)))
    assert known["away_from_borders"]["mean_iou"] == pytest.approx(away.pooled.mean_iou, abs=1e-3)
    assert "The mean of the probabilities of U-Net, TransUNet: mIoU" in out.with_suffix(".md").read_text()

    study.main([*common, "unet"])  # takes nothing away
    assert json.loads(out.read_text())["ensemble"] == known
    assert "left as it was" in capsys.readouterr().err


def test_the_page_says_what_was_measured() -> None:
    docs = Path(__file__).parents[2] / "docs"
    result = json.loads((docs / "benchmark.json").read_text(encoding="utf-8"))
    assert (docs / "benchmark.md").read_text(encoding="utf-8") == study_report.report(result)


def test_a_card_says_how_a_network_was_made() -> None:
    recipe = {"batch": 4, "patch": 128, "seed": 3, "loss": {"terms": [["weighted", 1.0]], "class_weights": [1, 1.3]}}
    recipe |= {"augmentation": {"rotation": 180, "blur": 0}}
    assert study.how({"recipe": recipe, "machine": "a, cuda"}) == {
        "batch": 4,
        "patch": 128,
        "seed": 3,
        "augmentation": {"rotation": 180},
        "loss": "weighted:1,1.3",
        "trained_with": "a, cuda",
    }


def test_the_page_names_a_preset_and_spells_out_what_is_none() -> None:
    medium = study.how({"recipe": TrainConfig(augmentation=Augmentation.preset("medium")).recipe()})["augmentation"]
    assert study_report.named(medium) == "medium"
    assert "rotation 90, turns True, zoom in 0.25" in study_report.named(medium | {"rotation": 90})


def test_every_pixel_is_in_one_tile_of_one_part() -> None:
    numbers = np.arange(1, 21, dtype=np.uint8).reshape(5, 2, 2).repeat(256, axis=1).repeat(256, axis=2)
    parts = study_protocol.split_tiles(numbers, numbers)
    assert [len(part) for part in parts] == [14, 4, 2]
    seen = [tile.labels for part in parts for tile in part]
    assert all(labels.shape == (256, 256) and labels.min() == labels.max() for labels in seen)
    assert {int(labels[0, 0]) for labels in seen} == set(range(1, 21))


def test_the_figure_shows_errors_in_yellow(tmp_path: Path) -> None:
    truth = np.ones((512, 512), np.uint8)
    wrong = np.full_like(truth, 2)
    study_report.write_figure(tmp_path / "f.png", np.zeros_like(truth), truth, {"unet": wrong})
    drawn = np.asarray(Image.open(tmp_path / "f.png").convert("RGB"))
    assert (np.abs(drawn.astype(int) - (240, 228, 66)).sum(-1) < 12).mean() > 0.01
