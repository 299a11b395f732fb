"""The real command on small stacks: train, resume, refuse, and use what was made."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from napari_drososeg.checkpoint import load_spec
from napari_drososeg.cli.train import parse_arguments, parse_validation
from napari_drososeg.cli.train_inputs import describe_sections
from napari_drososeg.errors import DrososegError

Run = Callable[..., Any]
SMALL = ("--argument", "width=0.0625", "--patch", 32, "--batch", 2, "--device", "cpu", "--precision", "f32")


@pytest.fixture
def labels_file(tmp_path: Path, synthetic: tuple[np.ndarray, np.ndarray]) -> Path:
    path = tmp_path / "labels.tif"
    tifffile.imwrite(path, synthetic[1], photometric="minisblack")
    return path


@pytest.fixture
def train(drososeg: Run, stack_file: Path, labels_file: Path) -> Run:
    def run(output: Path, *arguments: object, code: int = 0) -> Any:
        return drososeg("train", stack_file, labels_file, "-o", output, *SMALL, *arguments, code=code)

    return run


def events(result: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_a_trained_network_is_one_like_the_others(train: Run, drososeg: Run, tmp_path: Path, stack_file: Path) -> None:
    output = tmp_path / "mine.safetensors"
    options = ("--steps", 4, "--validate-every", 2, "--validation", "2", "--json", "--install", "--licence", "CC0-1.0")
    *found, done = events(train(output, *options))
    assert [e["step"] for e in found] == [2, 4]
    assert max(e["scores"]["mean_iou"] for e in found) == pytest.approx(done["metrics"]["mean_iou"], abs=1e-4)
    assert done["event"] == "done"
    spec = load_spec(output)
    assert (spec.name, spec.architecture, spec.arguments) == ("mine", "unet", {"width": 0.0625})
    assert spec.pixel_size == pytest.approx(4.6)
    assert spec.licence == "CC0-1.0"
    assert spec.training["sections"] == "0-1"
    assert spec.training["validation"] == "2"
    assert spec.training["curve"]["step"] == [2, 4]
    assert spec.training["recipe"]["steps"] == 4
    assert spec.metrics["sections"] == "section 2 of 'stack'"
    assert 0 < spec.halo <= spec.receptive_field + spec.stride  # too small to measure: the receptive field
    labels = tmp_path / "predicted.tif"
    drososeg("predict", stack_file, "-o", labels, "--model", "mine", "--engine", "torch", "--precision", "f32")
    assert tifffile.imread(labels).shape == (3, 96, 80)
    listed = json.loads(drososeg("models", "--json").stdout)
    assert next(card for card in listed if card["name"] == "mine")["source"] == "user"
    assert "mine" in drososeg("models", "mine").stdout


@pytest.mark.parametrize("patch", [32, 64])
def test_a_network_with_global_context_may_have_small_patches(
    train: Run, drososeg: Run, tmp_path: Path, stack_file: Path, patch: int
) -> None:
    output = tmp_path / "small.safetensors"
    train(output, "--architecture", "fpn", "--patch", patch, "--steps", 1, "--quiet")
    spec = load_spec(output)
    assert (spec.tile, spec.halo, spec.stride) == (64, 0, 32)
    for size in (4.6, 7):  # rescaled, tiles need something beside them for interpolation
        labels = tmp_path / f"{size}.tif"
        run = ("predict", stack_file, "-o", labels, "--model", output, "--pixel-size", size, "--engine", "torch")
        drososeg(*run, "--precision", "f32")
        assert tifffile.imread(labels).all()


def test_a_stopped_run_goes_on(train: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from napari_drososeg.training import Training

    straight, broken = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    options = ("--steps", 4, "--validate-every", 1, "--json")
    expected = events(train(straight, *options))
    update = Training._update

    def stopped(self: Training, *arguments: Any) -> Any:
        if self.step == 2:
            raise KeyboardInterrupt
        return update(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Training, "_update", stopped)
        result = train(broken, *options, code=130)
    assert "stopped" in result.stderr
    assert not broken.exists()
    assert "use --resume to continue" in train(broken, *options, code=2).stderr
    *found, done = events(train(broken, *options, "--resume"))
    assert [(e["step"], e["loss"]) for e in found] == [(e["step"], e["loss"]) for e in expected[2:4]]
    assert load_spec(broken).training["curve"]["step"] == [1, 2, 3, 4]
    assert done["name"] == "b"
    assert len((tmp_path / "b-run" / "log.csv").read_text().splitlines()) == 5
    left = tmp_path / "b-run" / ".last.safetensors.0123abcd.part"
    left.write_bytes(b"half")
    assert events(train(broken, *options, "--overwrite"))[0]["step"] == 1
    assert not left.exists()


def test_a_run_that_diverges_leaves_its_best_network(
    train: Run, drososeg: Run, tmp_path: Path, stack_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from napari_drososeg.training import Training

    update = Training._update

    def late(self: Training, *arguments: Any) -> Any:
        return update(self, *arguments) * (torch.nan if self.step == 4 else 1)

    monkeypatch.setattr(Training, "_update", late)
    output = tmp_path / "mine.safetensors"
    options = ("--steps", 6, "--validate-every", 2, "--quiet")
    said = train(output, *options, "--validation", 2, code=1).stderr
    assert "no longer finite at step 6" in said
    assert f"'{output}' is the network of step" in said
    assert "--learning-rate below 0.002, with --overwrite or another -o" in said
    assert load_spec(output).metrics["step"] in (2, 4)
    drososeg("predict", stack_file, "-o", tmp_path / "p.tif", "--model", output, "--engine", "torch")
    unscored = tmp_path / "unscored.safetensors"
    assert "no longer finite" in train(unscored, *options, code=1).stderr
    assert not unscored.exists()


def test_overwriting_loses_nothing_where_the_new_run_cannot_start(
    train: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, folder = tmp_path / "mine.safetensors", tmp_path / "mine-run"
    train(output, "--steps", 1, "--quiet")
    before = {p: p.read_bytes() for p in (output, *folder.iterdir())}

    def fail(*_: object, **__: object) -> None:
        raise DrososegError("no such device")

    with monkeypatch.context() as patched:
        patched.setattr("napari_drososeg.training.network.fabric", fail)
        assert "no such device" in train(output, "--steps", 2, "--overwrite", code=2).stderr
    assert {p: p.read_bytes() for p in (output, *folder.iterdir())} == before


def test_what_cannot_be_written_is_found_first(train: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_drososeg.cli.train_inputs.read_inputs", None)
    (tmp_path / "file").write_text("in the way")
    said = train(tmp_path / "file" / "x.safetensors", code=2).stderr
    assert "Cannot write" in said
    assert "choose another place" in said
    monkeypatch.setenv("DROSOSEG_HOME", str(tmp_path / "file"))
    assert "networks/x.safetensors'" in train(tmp_path / "x.safetensors", "--install", code=2).stderr
    assert [p.name for p in tmp_path.glob("*.part")] == []


def test_own_classes_and_a_network_to_start_from(
    train: Run, drososeg: Run, tmp_path: Path, stack_file: Path, labels_file: Path, network: Path
) -> None:
    same = tmp_path / "same.safetensors"
    train(same, "--steps", 1, "--from", network, "--quiet")
    spec = load_spec(same)
    assert spec.parent is not None
    assert spec.parent.startswith("tiny ")
    assert spec.licence == "CC0-1.0"  # of the network it comes from
    table = tmp_path / "classes.json"
    rows = [{"value": 1, "name": "inside", "color": "#112233"}, {"value": 2, "name": "outside", "color": "#445566"}]
    table.write_text(json.dumps(rows))
    tifffile.imwrite(labels_file, np.minimum(tifffile.imread(labels_file), 2), photometric="minisblack")
    two = tmp_path / "two.safetensors"
    options = ("--steps", 1, "--from", network, "--classes", table, "--licence", "MIT")
    told = train(two, *options).stderr
    assert "tensors of tiny" in told
    spec = load_spec(two)
    assert spec.classes.names == ("inside", "outside")
    assert spec.licence == "MIT AND CC0-1.0"
    drososeg("predict", stack_file, "-o", tmp_path / "p.tif", "--model", two, "--engine", "torch")
    assert tifffile.imread(tmp_path / "p.tif").max() <= 2


def test_all_that_is_wrong_is_said_at_once(train: Run, tmp_path: Path, labels_file: Path) -> None:
    labels = tifffile.imread(labels_file)
    labels[1, 5, 5] = 9
    tifffile.imwrite(labels_file, np.where(labels == 3, 1, labels), photometric="minisblack")
    result = train(tmp_path / "x.safetensors", "--patch", 90, "--schedule", "plateau", code=2)
    assert len(result.stderr.splitlines()) == 1
    for part in (
        "Section 0 of 'stack' is 96 x 80 px, smaller than a patch of 90 px",
        "section 1 of 'stack' contains the label 9, but there are only 3 classes",
        "no pixel is labelled mitochondria (3)",
        "plateau follows the validation loss",
    ):
        assert part in result.stderr
    assert not (tmp_path / "x-run").exists()


def test_a_damaged_file_is_named(drososeg: Run, stack_folder: Path, labels_file: Path, tmp_path: Path) -> None:
    bad = stack_folder / "s9.tif"
    pixels = tifffile.imread(bad)
    tifffile.imwrite(bad, pixels, compression="zlib")
    content = bytearray(bad.read_bytes())
    content[-200:] = bytes(200)
    bad.write_bytes(content)
    arguments = ("train", stack_folder, labels_file, "-o", tmp_path / "x.safetensors", *SMALL, "--pixel-size", 4.6)
    result = drososeg(*arguments, code=2)
    assert "s9.tif" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--argument", "width"), "write it like width=0.5"),
        (("--argument", "breadth=1"), "does not take breadth"),
        (("--argument", "width=0"), "The width of U-Net cannot be 0"),
        (("--argument", "width=abc"), "cannot be abc; use a number above 0"),
        (("--argument", "decoder_width=-1"), "The decoder_width of U-Net cannot be -1"),
        (("--seed", "-1"), "should be greater than or equal to 0"),
        (("--patch", "16", "--batch", "1"), "A batch of one patch of 16 px is too little for unet"),
        (("--architecture", "vnet"), "Unknown architecture 'vnet'"),
        (("--loss", "mse"), "Unknown loss 'mse'"),
        (("--augmentation", "wild"), "Unknown augmentation 'wild'"),
        (("--schedule", "cosine"), "--schedule cosine"),
        (("--sections", "0-7"), "There is no section 3"),
        (("--validation", "0-2"), "No section is left"),
        (("--validation", "1.5"), "not a fraction between 0 and 1"),
        (("--sections", "0-1", "--validation", "1"), "it cannot be in both"),
        (("--classes", "nothing.json"), "Cannot read 'nothing.json'"),
        (("--from", "nothing"), "There is no network 'nothing'"),
        (("--resume", "--overwrite"), "contradict"),
        (("--name", "unet", "--install"), "shipped network"),
        (("--name", "my unet"), "one word"),
    ],
)
def test_what_cannot_work_is_one_line(train: Run, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    result = train(tmp_path / "x.safetensors", *arguments, code=2)
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert message in result.stderr


def test_the_size_of_a_pixel_is_needed(drososeg: Run, stack_folder: Path, labels_file: Path, tmp_path: Path) -> None:
    result = drososeg("train", stack_folder, labels_file, "-o", tmp_path / "x.safetensors", *SMALL, code=2)
    assert "give it in nm with --pixel-size" in result.stderr


def test_the_public_stack_is_known(drososeg: Run, vnc: Path, tmp_path: Path) -> None:
    output = tmp_path / "vnc.safetensors"
    raw, labels = vnc / "stack1" / "raw", vnc / "stack1" / "labels"
    options = ("--sections", "0-1", "--steps", 1)
    said = drososeg("train", raw, labels, "-o", output, *SMALL, *options).stderr
    assert "'labels' contains the raw label values of the public VNC data set; they are mapped" in said
    spec = load_spec(output)
    assert spec.licence == "CC-BY-NC-SA-3.0"
    assert spec.pixel_size == 4.6
    assert "Gerhard" in spec.training["citation"]
    assert spec.halo % spec.stride == 0
    assert spec.halo < spec.receptive_field + spec.stride


def test_a_mask_up_to_255_is_not_the_public_stack(drososeg: Run, stack_file: Path, tmp_path: Path) -> None:
    mask = np.where(tifffile.imread(stack_file) > 128, 255, 0).astype(np.uint8)
    tifffile.imwrite(tmp_path / "mask.tif", mask, photometric="minisblack")
    run = ("train", stack_file, tmp_path / "mask.tif", "-o", tmp_path / "x.safetensors", *SMALL)
    assert "contains the label 255, but there are only 3 classes" in drososeg(*run, code=2).stderr


def test_reading_options() -> None:
    assert parse_arguments(["width=0.5", "heads=[1,2]", "encoder=resnet34"]) == {
        "width": 0.5,
        "heads": [1, 2],
        "encoder": "resnet34",
    }
    assert parse_validation("13-15") == [13, 14, 15]
    assert parse_validation("0.25") == 0.25
    with pytest.raises(DrososegError):
        parse_validation("x.y")
    assert describe_sections([0, 1, 2, 5, 8, 7]) == "0-2, 5, 7-8"
