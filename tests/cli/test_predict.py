"""``drososeg predict``, for real, with a very small network."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr

from napari_drososeg.inference import PredictConfig
from napari_drososeg.inference import predict as predict_in_memory
from napari_drososeg.io import read_labels, read_stack

Run = Callable[..., Any]
CONFIG = PredictConfig(engine="torch", precision="f32")


def whole(path: Path) -> np.ndarray:
    labels = read_labels(path)
    return np.stack([labels.read(z) for z in range(labels.n_sections)])


def hidden_leftovers(folder: Path) -> list[str]:
    return [p.name for p in folder.rglob("*") if ".part" in p.name]


@pytest.fixture
def expected(stack_file: Path, network: Path) -> np.ndarray:
    labels = predict_in_memory(read_stack(stack_file), network, CONFIG)
    assert set(np.unique(labels)) == {1, 2, 3}  # or comparing would show little
    return labels


@pytest.mark.parametrize("name", ["labels.tif", "deep/er/labels.ome.tif", "labels.zarr"])
def test_one_stack_to_one_file(predict: Run, stack_file: Path, tmp_path: Path, expected: np.ndarray, name: str) -> None:
    out = tmp_path / name
    said = predict(stack_file, "-o", out)
    np.testing.assert_array_equal(whole(out), expected)
    labels = read_labels(out)
    assert labels.voxel_size == pytest.approx((50, 4.6, 4.6), rel=1e-3)
    assert labels.classes is not None
    item = said["items"][0]
    assert (item["state"], item["shape"], item["output"]) == ("done", [3, 96, 80], str(out))
    assert sum(row["pixels"] for row in item["classes"]) == expected.size
    assert sum(row["um2"] for row in item["classes"]) == pytest.approx(expected.size * 4.6**2 * 1e-6, rel=1e-3)
    assert said["network"] == "tiny"
    assert "PyTorch, f32" in said["engine"]
    assert hidden_leftovers(tmp_path) == []


@pytest.mark.parametrize("name", ["labels.tif", "labels.zarr"])
def test_orientations_are_averaged(
    predict: Run, stack_file: Path, tmp_path: Path, network: Path, expected: np.ndarray, name: str
) -> None:
    out = tmp_path / name
    blocks = ("--block", "2,128,128") if name.endswith(".zarr") else ()
    averaged = predict_in_memory(read_stack(stack_file), network, replace(CONFIG, orientations=8))
    assert np.mean(averaged != expected) > 0.01
    said = predict(stack_file, "-o", out, "--orientations", 8, *blocks)
    assert np.mean(whole(out) == averaged) > 0.999  # batches may differ, and with them last bits
    assert said["settings"]["--orientations"] == 8
    seconds = [
        predict(stack_file, "-o", tmp_path / "dry.tif", "--dry-run", "--orientations", n)["seconds"] for n in (1, 8)
    ]
    assert seconds[1] == pytest.approx(8 * seconds[0])


def test_a_folder_of_sections_is_one_stack_for_a_file(
    predict: Run, stack_folder: Path, tmp_path: Path, expected: np.ndarray
) -> None:
    predict(stack_folder, "-o", tmp_path / "labels.tif")
    np.testing.assert_array_equal(whole(tmp_path / "labels.tif"), expected)


def test_and_one_item_per_file_for_a_folder(
    predict: Run, stack_folder: Path, tmp_path: Path, expected: np.ndarray
) -> None:
    said = predict(stack_folder, "-o", tmp_path / "out", "--format", "png")
    assert [Path(i["output"]).name for i in said["items"]] == ["s8.png", "s9.png", "s10.png"]
    np.testing.assert_array_equal(whole(tmp_path / "out"), expected)  # and the folder opens as a stack


def test_several_sections_as_png_are_a_folder(
    predict: Run, stack_file: Path, tmp_path: Path, expected: np.ndarray
) -> None:
    said = predict(stack_file, "-o", tmp_path / "out", "--format", "png")
    assert said["items"][0]["output"] == str(tmp_path / "out" / "stack")
    np.testing.assert_array_equal(whole(tmp_path / "out" / "stack"), expected)
    refused = predict(stack_file, "-o", tmp_path / "out", "--format", "png", code=2)
    assert "exists" in refused.stderr
    again = predict(stack_file, "-o", tmp_path / "out", "--format", "png", "--resume")
    assert again["items"][0]["state"] == "skipped"


def test_sections_and_region_leave_the_rest_unlabelled(
    predict: Run, stack_file: Path, tmp_path: Path, expected: np.ndarray
) -> None:
    out = tmp_path / "labels.tif"
    predict(stack_file, "-o", out, "--sections", "1-2")
    np.testing.assert_array_equal(whole(out)[1:], expected[1:])
    assert not whole(out)[0].any()
    predict(stack_file, "-o", out, "--sections", "0", "--roi", "16:48,0:32", "--overwrite")
    found = whole(out)
    assert (found[0, 16:48, :32] > 0).all()
    found[0, 16:48, :32] = 0
    assert not found.any()


def test_probabilities_add_up_and_agree(predict: Run, stack_file: Path, tmp_path: Path, expected: np.ndarray) -> None:
    predict(stack_file, "-o", tmp_path / "labels.tif", "--probabilities", tmp_path / "p.zarr")
    found = zarr.open_array(tmp_path / "p.zarr", mode="r")[:]
    assert found.shape == (3, 3, 96, 80)
    assert found.dtype == np.float16
    np.testing.assert_allclose(found.astype(np.float32).sum(axis=0), 1, atol=5e-3)
    margin = np.diff(np.sort(found.astype(np.float32), axis=0)[1:], axis=0)[0]
    clear = margin > 1e-2
    assert clear.mean() > 0.5
    np.testing.assert_array_equal((found.argmax(axis=0) + 1)[clear], expected[clear])
    assert hidden_leftovers(tmp_path) == []


def test_an_image_of_other_pixel_size_is_rescaled(
    predict: Run, stack_file: Path, tmp_path: Path, expected: np.ndarray
) -> None:
    predict(stack_file, "-o", tmp_path / "labels.tif", "--pixel-size", 9.2)
    found = whole(tmp_path / "labels.tif")
    assert found.shape == expected.shape
    assert (found > 0).all()
    assert not np.array_equal(found, expected)


def test_an_unknown_pixel_size_is_said(drososeg: Run, stack_folder: Path, tmp_path: Path, network: Path) -> None:
    run = ("predict", stack_folder, "--model", network, "--engine", "torch", "--json")
    result = drososeg(*run, "-o", tmp_path / "a.tif")
    assert "pixel size" in result.stderr
    assert "4.6 nm, is assumed" in result.stderr
    json.loads(result.stdout)  # and not in between
    assert drososeg(*run, "-o", tmp_path / "b.tif", "--pixel-size", 4.6).stderr == ""
    assert drososeg(*run, "-o", tmp_path / "each").stderr.count("is assumed") == 1  # of three files


class TestWhatIsThere:
    def test_an_existing_output_is_refused_at_once(self, predict: Run, stack_file: Path, tmp_path: Path) -> None:
        out = tmp_path / "labels.tif"
        out.write_bytes(b"mine")
        result = predict(stack_file, "-o", out, "--model", "no-such-network", code=2)
        assert result.stderr.splitlines() == [f"drososeg: '{out}' exists; use --overwrite, --resume or another output."]
        assert out.read_bytes() == b"mine"

    def test_overwrite_replaces_it(self, predict: Run, stack_file: Path, tmp_path: Path, expected: np.ndarray) -> None:
        out = tmp_path / "labels.tif"
        out.write_bytes(b"mine")
        predict(stack_file, "-o", out, "--overwrite")
        np.testing.assert_array_equal(whole(out), expected)

    def test_a_failing_run_leaves_the_old_output(self, predict: Run, stack_file: Path, tmp_path: Path) -> None:
        bad = tmp_path / "nan.tif"
        tifffile.imwrite(bad, np.full((2, 64, 64), np.nan, np.float32))
        out = tmp_path / "labels.tif"
        out.write_bytes(b"mine")
        result = predict(bad, "-o", out, "--overwrite", code=1)
        assert "NaN" in result.stderr or "not a number" in result.stderr
        assert out.read_bytes() == b"mine"
        assert hidden_leftovers(tmp_path) == []

    def test_resume_skips_what_is_done(self, predict: Run, stack_folder: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        predict(stack_folder, "-o", out)
        before = {p.name: p.stat().st_mtime_ns for p in out.glob("*.tif")}
        (out / "s9.tif").unlink()
        said = predict(stack_folder, "-o", out, "--resume")
        assert [i["state"] for i in said["items"]] == ["skipped", "done", "skipped"]
        assert {p.name: p.stat().st_mtime_ns for p in out.glob("*.tif") if p.name != "s9.tif"} == {
            name: time for name, time in before.items() if name != "s9.tif"
        }

    def test_resume_does_an_input_again_that_changed(self, predict: Run, stack_folder: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        predict(stack_folder, "-o", out)
        tifffile.imwrite(stack_folder / "s10.tif", np.full((96, 80), 7, np.uint8), description="another")
        said = predict(stack_folder, "-o", out, "--resume")
        assert [i["state"] for i in said["items"]] == ["skipped", "skipped", "done"]

    def test_resume_does_an_unfinished_item_again(self, predict: Run, stack_folder: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        predict(stack_folder, "-o", out)
        record = out / ".drososeg.jsonl"
        *lines, end = record.read_text().splitlines()
        assert json.loads(end)["what"] == "end"
        assert json.loads(lines[-1])["state"] == "done"
        # As if killed between renaming the last output and writing that it is done, in the middle of the line.
        record.write_text("\n".join(lines[:-1]) + "\n" + lines[-1][:20])
        said = predict(stack_folder, "-o", out, "--resume")
        assert {i["state"] for i in said["items"]} == {"skipped"}
        # As if killed before the renaming: what is there could as well be someone's own labels.
        written = [n for n, line in enumerate(lines) if json.loads(line).get("state") == "written"]
        record.write_text("\n".join(lines[: written[-1]]) + "\n")
        refused = predict(stack_folder, "-o", out, "--resume", code=2)
        assert "s10.tif' exists and is not in the record" in refused.stderr
        (out / "s10.tif").unlink()
        said = predict(stack_folder, "-o", out, "--resume")
        assert [i["state"] for i in said["items"]] == ["skipped", "skipped", "done"]

    def test_resume_refuses_other_settings_by_name(self, predict: Run, stack_folder: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        predict(stack_folder, "-o", out)
        (out / "s8.tif").unlink()
        result = predict(stack_folder, "-o", out, "--resume", "--halo", "exact", "--invert", code=2)
        assert "--halo was default, now exact" in result.stderr
        assert "--invert was False, now True" in result.stderr
        assert not (out / "s8.tif").exists()
        # where it runs is no such setting
        predict(stack_folder, "-o", out, "--resume", "--device", "cpu", "--batch", 1)

    def test_resume_refuses_other_orientations(self, predict: Run, stack_folder: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        predict(stack_folder, "-o", out)
        (out / "s8.tif").unlink()
        result = predict(stack_folder, "-o", out, "--resume", "--orientations", 4, code=2)
        assert "--orientations was 1, now 4" in result.stderr
        assert not (out / "s8.tif").exists()
        said = predict(stack_folder, "-o", out, "--resume", "--orientations", 1)
        assert [i["state"] for i in said["items"]] == ["done", "skipped", "skipped"]
        said = predict(stack_folder, "-o", out, "--overwrite", "--orientations", 2)
        assert said["settings"]["--orientations"] == 2
        result = predict(stack_folder, "-o", out, "--resume", code=2)
        assert "--orientations was 2, now 1" in result.stderr

    def test_resume_refuses_another_network_by_name(
        self, predict: Run, drososeg: Run, stack_folder: Path, tmp_path: Path, network: Path
    ) -> None:
        from napari_drososeg.checkpoint import load_model, save_checkpoint

        out = tmp_path / "out"
        predict(stack_folder, "-o", out)
        spec, model = load_model(network)
        other = save_checkpoint(tmp_path / "o.safetensors", model.state_dict(), replace(spec, name="other"))
        result = drososeg("predict", stack_folder, "-o", out, "--resume", "--model", other, code=2)
        assert "network was tiny (" in result.stderr
        assert "now other (" in result.stderr

    def test_resume_never_replaces_what_someone_changed(self, predict: Run, stack_folder: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        predict(stack_folder, "-o", out)
        corrected = np.full((96, 80), 3, np.uint8)
        tifffile.imwrite(out / "s9.tif", corrected)
        result = predict(stack_folder, "-o", out, "--resume", code=2)
        assert "s9.tif' was changed since it was written" in result.stderr
        np.testing.assert_array_equal(tifffile.imread(out / "s9.tif"), corrected)

    def test_resume_never_takes_a_foreign_file_for_done(self, predict: Run, stack_folder: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        out.mkdir()
        (out / "s8.tif").write_bytes(b"mine")
        result = predict(stack_folder, "-o", out, "--resume", code=2)
        assert "not in the record" in result.stderr

    def test_one_stack_resumes_too(self, predict: Run, stack_file: Path, tmp_path: Path) -> None:
        out = tmp_path / "labels.zarr"
        predict(stack_file, "-o", out, "--resume")
        assert predict(stack_file, "-o", out, "--resume")["items"][0]["state"] == "skipped"
        assert predict(stack_file, "-o", out, "--overwrite")["items"][0]["state"] == "done"


def test_a_bad_file_does_not_stop_the_others(predict: Run, drososeg: Run, stack_folder: Path, tmp_path: Path) -> None:
    (stack_folder / "s9.tif").write_bytes((stack_folder / "s9.tif").read_bytes()[:500])
    out = tmp_path / "out"
    result = predict(stack_folder, "-o", out, code=1)
    assert [i["state"] for i in json.loads(result.stdout)["items"]] == ["done", "failed", "done"]
    assert "s9.tif" in result.stderr
    assert sorted(p.name for p in out.glob("*.tif")) == ["s10.tif", "s8.tif"]
    assert hidden_leftovers(out) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--sections", "0-3"), "no section 3"),
        (("--sections", "x"), "not a list of sections"),
        (("--roi", "0:97,0:80"), "extends beyond"),
        (("--halo", "wide"), "not a halo"),
        (("--orientations", 3), "number of orientations is 1, 2, 4 or 8, not 3"),
        (("--format", "jpg"), "--format jpg is not known"),
        (("--engine", "tpu"), "--engine tpu is not known"),
        (("--device", "cuda:99"), "The device 'cuda:99' is not available"),
        (("--pixel-size", "0"), "not a size in nm"),
        (("--resume", "--overwrite"), "contradict"),
        (("--probabilities", "p.tif"), "written as .zarr"),
    ],
)
def test_what_cannot_work_is_one_line_and_code_2(
    drososeg: Run, stack_file: Path, tmp_path: Path, network: Path, arguments: tuple[str, ...], message: str
) -> None:
    out = tmp_path / "labels.tif"
    result = drososeg("predict", stack_file, "-o", out, "--model", network, "-q", *arguments, code=2)
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("drososeg: ")
    assert message in result.stderr
    assert result.stdout == ""
    assert not out.exists()


def test_choices_within_a_stack_do_not_go_with_many(drososeg: Run, stack_folder: Path, tmp_path: Path) -> None:
    for arguments in (("--sections", "0"), ("--roi", "0:9,0:9")):
        result = drososeg("predict", stack_folder, "-o", tmp_path / "out", *arguments, code=2)
        assert "output file such as labels.tif" in result.stderr
    one = ("--probabilities", tmp_path / "p.zarr")
    result = drososeg("predict", stack_folder, "-o", tmp_path / "out", *one, code=2)
    assert "there are 3; name a folder" in result.stderr


def test_quiet_says_nothing(drososeg: Run, stack_folder: Path, tmp_path: Path, network: Path) -> None:
    result = drososeg("predict", stack_folder, "-o", tmp_path / "l.tif", "--model", network, "-q", "--engine", "torch")
    assert result.output == ""


def test_people_get_a_table(drososeg: Run, stack_file: Path, tmp_path: Path, network: Path) -> None:
    result = drososeg("predict", stack_file, "-o", tmp_path / "l.tif", "--model", network, "--engine", "torch")
    assert "cell membrane" in result.stdout
    assert "µm²" in result.stdout
    assert "3 x 96 x 80 (z, y, x)" in result.stdout


def test_a_speed_is_that_of_predicting(drososeg: Run, stack_file: Path, tmp_path: Path, network: Path) -> None:
    run = ("predict", stack_file, "-o", tmp_path / "l.tif", "--model", network, "--engine", "torch")
    assert "Mpx/s on CPU, PyTorch" in drososeg(*run).stdout
    drawn = drososeg(*run, "--resume", "--overlays", tmp_path / "pictures").stdout
    assert "3 x 96 x 80 (z, y, x), " in drawn
    assert "Mpx/s" not in drawn  # only overlays were drawn
    assert "PyTorch" not in drawn


def test_a_name_keeps_its_dots_inside_the_file(tmp_path: Path, stack_file: Path, predict: Run) -> None:
    predict(stack_file, "-o", tmp_path / "fly.2.ome.zarr")
    assert zarr.open_group(tmp_path / "fly.2.ome.zarr", mode="r").attrs["ome"]["multiscales"][0]["name"] == "fly.2"
