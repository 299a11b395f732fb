"""``drososeg predict``: nobody's work is lost, and what is reported is what happened."""

from __future__ import annotations

import errno
import io
import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
import zarr

from napari_drososeg.batch import Batch, BatchConfig, Manifest, plan_job
from napari_drososeg.batch.beside import holds_probabilities
from napari_drososeg.batch.executors import ThisProcess
from napari_drososeg.batch.fingerprints import fingerprint
from napari_drososeg.cli.predict import asking_pixel_size
from napari_drososeg.inference import PredictConfig
from napari_drososeg.io import read_labels
from napari_drososeg.zoo import find_card

Run = Callable[..., Any]


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def batch(source: Path, output: Path, network: Path, **options: Any) -> Batch:
    """One run, without the program around it."""
    config = BatchConfig(predict=PredictConfig(engine="torch", precision="f32", **options))
    return Batch(plan_job(source, str(output), None), find_card(str(network)), config, str)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a folder that nobody can write to")
@pytest.mark.parametrize("out", ["/proc/labels.tif", "/proc/labels.zarr", "/proc/out/"])
def test_a_folder_that_cannot_be_written_to_is_said_before_any_work(
    drososeg: Run, network: Path, stack_file: Path, out: str
) -> None:
    said = drososeg("predict", stack_file, "-o", out, "--model", network, "--dry-run", code=2).stderr
    assert said == "drososeg: Cannot write to '/proc'; choose another output.\n"
    said = drososeg("demo", "-o", out, "--model", network, "--size", 96, code=2).stderr
    assert said == "drososeg: Cannot write to '/proc'; choose another folder with --output.\n"


class TestProbabilities:
    @pytest.mark.parametrize("flag", [None, "--resume", "--overwrite"])
    def test_never_replace_the_input(self, predict: Run, synthetic: Any, tmp_path: Path, flag: str | None) -> None:
        source = tmp_path / "in.zarr"
        zarr.create_array(source, data=synthetic[0])
        before = content(source)
        for name in (source, source / "p.zarr"):
            flags = (flag,) if flag else ()
            result = predict(source, "-o", tmp_path / "l.tif", "--probabilities", name, *flags, code=2)
            assert "input" in result.stderr or "in.zarr' exists" in result.stderr
        assert content(source) == before

    def test_never_share_a_name_with_the_labels(self, predict: Run, stack_file: Path, tmp_path: Path) -> None:
        for name in ("x.zarr", "x.zarr/p.zarr"):
            result = predict(stack_file, "-o", tmp_path / "x.zarr", "--probabilities", tmp_path / name, code=2)
            assert "overwrite each other" in result.stderr
        assert not (tmp_path / "x.zarr").exists()

    @pytest.mark.parametrize("flag", ["--resume", "--overwrite"])
    def test_never_replace_another_zarr(self, predict: Run, stack_file: Path, tmp_path: Path, flag: str) -> None:
        other = tmp_path / "other.zarr"
        zarr.create_array(other, data=np.arange(9))
        result = predict(stack_file, "-o", tmp_path / "l.tif", "--probabilities", other, flag, code=2)
        assert "does not contain probabilities written by this program" in result.stderr
        np.testing.assert_array_equal(zarr.open_array(other, mode="r")[:], np.arange(9))

    def test_overwrite_replaces_our_own(self, predict: Run, stack_file: Path, tmp_path: Path) -> None:
        run = (stack_file, "-o", tmp_path / "l.tif", "--probabilities", tmp_path / "p.zarr")
        predict(*run)
        assert holds_probabilities(tmp_path / "p.zarr")
        (tmp_path / "p.zarr" / "stale").write_bytes(b"x")
        predict(*run, "--overwrite")
        assert not (tmp_path / "p.zarr" / "stale").exists()

    def test_resume_makes_them_where_only_the_labels_are_done(
        self, predict: Run, stack_file: Path, tmp_path: Path
    ) -> None:
        run = (stack_file, "-o", tmp_path / "l.tif")
        wanted = (*run, "--resume", "--probabilities", tmp_path / "p.zarr")
        predict(*run)
        assert predict(*wanted)["items"][0]["state"] == "done"
        assert zarr.open_array(tmp_path / "p.zarr", mode="r").shape == (3, 3, 96, 80)
        assert predict(*wanted)["items"][0]["state"] == "skipped"
        next((tmp_path / "p.zarr" / "c").rglob("0")).touch()
        zarr.open_array(tmp_path / "p.zarr", mode="r+")[0, 0, :4] = 0
        assert "p.zarr' was changed" in predict(*wanted, code=2).stderr

    def test_a_full_disk_names_them(
        self, predict: Run, stack_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object, **__: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(zarr, "create_array", full)
        result = predict(stack_file, "-o", tmp_path / "l.tif", "--probabilities", tmp_path / "p.zarr", code=1)
        assert f"'{tmp_path / 'p.zarr'}' cannot be written: No space left" in result.stderr


class TestResume:
    def test_does_not_replace_labels_put_where_an_item_failed(
        self, predict: Run, stack_folder: Path, tmp_path: Path
    ) -> None:
        good = (stack_folder / "s9.tif").read_bytes()
        (stack_folder / "s9.tif").write_bytes(good[:500])
        out = tmp_path / "out"
        predict(stack_folder, "-o", out, code=1)
        mine = np.full((96, 80), 2, np.uint8)
        tifffile.imwrite(out / "s9.tif", mine)
        (stack_folder / "s9.tif").write_bytes(good)
        result = predict(stack_folder, "-o", out, "--resume", code=2)
        assert "s9.tif' exists and is not in the record" in result.stderr
        np.testing.assert_array_equal(tifffile.imread(out / "s9.tif"), mine)

    def test_goes_on_after_an_overwrite_that_failed(self, predict: Run, stack_file: Path, tmp_path: Path) -> None:
        good = stack_file.read_bytes()
        out = tmp_path / "labels.tif"
        out.write_bytes(b"earlier")
        tifffile.imwrite(stack_file, np.full((2, 64, 64), np.nan, np.float32))
        predict(stack_file, "-o", out, "--overwrite", code=1)
        stack_file.write_bytes(good)
        assert predict(stack_file, "-o", out, "--resume")["items"][0]["state"] == "done"
        assert read_labels(out).shape == (3, 96, 80)

    def test_overlooks_what_a_system_puts_into_folders(self, predict: Run, stack_file: Path, tmp_path: Path) -> None:
        out = tmp_path / "labels.zarr"
        predict(stack_file, "-o", out)
        (out / ".DS_Store").write_bytes(b"x")
        (out / "0" / "._zarr.json").write_bytes(b"x")
        assert predict(stack_file, "-o", out, "--resume")["items"][0]["state"] == "skipped"
        before = fingerprint(out)
        (out / "0" / ".zattrs").write_bytes(b"x")
        assert fingerprint(out) != before  # not every hidden file is clutter


class TestPixelSize:
    def test_reaches_areas_and_output(self, predict: Run, stack_folder: Path, tmp_path: Path) -> None:
        out = tmp_path / "l.tif"
        said = predict(stack_folder, "-o", out, "--pixel-size", 5)
        rows = said["items"][0]["classes"]
        assert sum(row["um2"] for row in rows) == pytest.approx(3 * 96 * 80 * 25e-6)
        assert read_labels(out).voxel_size == pytest.approx((None, 5, 5))

    def test_an_answer_is_recorded(
        self, stack_folder: Path, tmp_path: Path, network: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Terminal(io.StringIO):
            def isatty(self) -> bool:
                return True

        monkeypatch.setattr(sys, "stdin", Terminal("5.0\n"))
        monkeypatch.setattr(sys, "stderr", Terminal())
        run = batch(stack_folder, tmp_path / "l.tif", network)
        run.prepare(asking_pixel_size(run))
        assert [e.outcome.state for e in run.run() if e.outcome] == ["done"]
        assert Manifest(tmp_path / ".l.tif.drososeg.jsonl").run["settings"]["--pixel-size"] == 5
        assert run.settings()["--pixel-size"] == 5

    def test_is_not_asked_about_what_was_begun_without(self, stack_folder: Path, tmp_path: Path, network: Path) -> None:
        done = batch(stack_folder, tmp_path / "l.tif", network)
        done.prepare()
        assert [e.outcome.state for e in done.run() if e.outcome] == ["done"]
        again = batch(stack_folder, tmp_path / "l.tif", network)
        again.config = replace(again.config, resume=True, overlays=tmp_path / "pictures")
        again.prepare(lambda _stack: pytest.fail("asked"))
        assert [e.outcome.state for e in again.run() if e.outcome] == ["done"]  # drawn, and nothing else
        assert again.settings()["--pixel-size"] is None


def test_no_exception_stops_the_other_items(
    predict: Run, stack_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, failures = torch.nn.Conv2d.forward, [RuntimeError("a cable came loose")]

    def fails_once(self: torch.nn.Conv2d, images: torch.Tensor) -> torch.Tensor:
        if failures and (tmp_path / "out").exists():  # at work; the network was tried when it was loaded
            raise failures.pop()
        return forward(self, images)

    monkeypatch.setattr(torch.nn.Conv2d, "forward", fails_once)
    result = predict(stack_folder, "-o", tmp_path / "out", code=1)
    items = json.loads(result.stdout)["items"]
    assert [i["state"] for i in items] == ["failed", "done", "done"]
    assert "a cable came loose" in items[0]["error"]
    assert "s8.tif" in result.stderr


def test_the_description_is_that_of_what_it_ran_on_in_the_end(
    stack_file: Path, tmp_path: Path, network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = batch(stack_file, tmp_path / "l.tif", network, tile=128, batch=1)
    run.prepare()
    predictor = run._predictor
    assert predictor is not None
    # A GPU whose memory is full, so that the prediction goes over to the processor.
    predictor._network.choice = replace(predictor._network.choice, device="cuda:0")
    monkeypatch.setattr(ThisProcess, "memory", lambda *_: 1 << 30)
    forward = torch.nn.Conv2d.forward

    def full(self: torch.nn.Conv2d, images: torch.Tensor) -> torch.Tensor:
        if predictor._network.choice.device != "cpu":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, images)

    monkeypatch.setattr(torch.nn.Conv2d, "forward", full)
    assert [e.outcome.state for e in run.run() if e.outcome] == ["done"]
    assert run.description.startswith("CPU, PyTorch")
    assert run.manifest.items["l.tif"]["engine"] == run.description
