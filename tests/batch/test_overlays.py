"""Overlays: what they show, when they are made again, and what they never replace."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from napari_drososeg.batch import Batch, BatchConfig, plan_job
from napari_drososeg.batch import overlays as module
from napari_drososeg.batch.beside import check_beside, holds_overlays
from napari_drososeg.batch.overlays import OverlayTask
from napari_drososeg.classes import DROSOPHILA_CLASSES
from napari_drososeg.errors import DrososegError
from napari_drososeg.evaluation import OPACITY, overlay, to_grey
from napari_drososeg.inference import PredictConfig
from napari_drososeg.io import read_labels
from napari_drososeg.samples import synthetic_stack

PREDICT = PredictConfig(engine="torch", precision="f32", pixel_size=4.6, threads=1)
CONFIG = BatchConfig(predict=PREDICT)
Run = Callable[..., Any]


@pytest.fixture(scope="module")
def sections() -> np.ndarray:
    return np.asarray(synthetic_stack((4, 96, 80), 1)[0].data)


@pytest.fixture
def folder(tmp_path: Path, sections: np.ndarray) -> Path:
    """Two single sections and a stack of two."""
    folder = tmp_path / "in"
    folder.mkdir()
    for z in range(2):
        tifffile.imwrite(folder / f"s{z}.tif", sections[z])
    tifffile.imwrite(folder / "stack.tif", sections[2:])
    return folder


@pytest.fixture
def stack(tmp_path: Path, sections: np.ndarray) -> Path:
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, sections, photometric="minisblack")
    return path


def states(batch: Batch) -> list[str]:
    list(batch.run())
    return [batch.outcomes[item.target].state for item in batch.job.items]


def expected(source: Path, labels: Path, z: int = 0) -> np.ndarray:
    pixels = tifffile.imread(source).reshape(-1, 96, 80)[z]
    return overlay(to_grey(pixels), read_labels(labels).read(z), DROSOPHILA_CLASSES)


def hidden(folder: Path) -> list[str]:
    return [p.name for p in folder.rglob(".*.part")]


class TestPicture:
    def test_is_the_grey_image_under_half_transparent_class_colours(self) -> None:
        grey = np.array([[0, 100, 200, 255]], np.uint8)
        drawn = overlay(grey, np.array([[0, 1, 3, 7]], np.uint8), DROSOPHILA_CLASSES)
        assert drawn[0, 0].tolist() == [0, 0, 0]
        assert drawn[0, 3].tolist() == [255, 255, 255]  # no such class
        for x, value, shade in ((1, 1, 100), (2, 3, 200)):
            color = np.array(DROSOPHILA_CLASSES.classes[value - 1].rgb)
            np.testing.assert_allclose(drawn[0, x], (1 - OPACITY) * shade + OPACITY * color, atol=1)

    @pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32, np.float64])
    def test_contrast_comes_from_percentiles_without_fill_and_hot_pixels(self, kind: Any) -> None:
        section = np.linspace(20_000, 30_000, 128 * 128).reshape(128, 128).astype(kind)
        section[:, :20] = 0
        section[5, 50] = 65_000 if np.issubdtype(kind, np.unsignedinteger) else 1e9
        grey = to_grey(section)
        inside = grey[:, 20:]
        assert (inside.min(), inside.max()) == (0, 255)
        assert 100 < np.median(inside) < 155
        assert not grey[:, :20].any()

    def test_not_a_number_is_black_and_a_constant_section_grey(self) -> None:
        section = np.random.default_rng(0).normal(0.5, 0.1, (64, 64)).astype(np.float32)
        section[3, 3] = np.nan
        section[4, 4] = np.inf
        grey = to_grey(section)
        assert grey[3, 3] == 0
        assert grey[4, 4] == 255
        assert (to_grey(np.full((4, 4), 7, np.uint16)) == 128).all()
        assert (to_grey(np.zeros((4, 4))) == 128).all()


class TestFiles:
    def test_one_of_each_section_named_as_its_labels(self, make: Run, folder: Path, tmp_path: Path) -> None:
        batch = make(folder, tmp_path / "out", CONFIG, overlays=tmp_path / "seen")
        events = list(batch.run())
        assert {o.state for o in batch.outcomes.values()} == {"done"}
        assert "overlays" in {e.text for e in events if e.kind == "progress"}
        found = sorted(str(p.relative_to(tmp_path / "seen")) for p in (tmp_path / "seen").rglob("*.png"))
        assert found == ["s0.png", "s1.png", str(Path("stack/0000.png")), str(Path("stack/0001.png"))]
        for name, source, z in (("s1.png", "s1.tif", 0), ("stack/0001.png", "stack.tif", 1)):
            with Image.open(tmp_path / "seen" / name) as image:
                assert image.mode == "RGB"
                assert image.info["dpi"][0] == pytest.approx(2.54e7 / 4.6, rel=1e-4)
                assert "Software" in image.info
                np.testing.assert_array_equal(image, expected(folder / source, tmp_path / "out" / source, z))
        assert not hidden(tmp_path)

    def test_of_a_part_show_the_part(self, make: Run, stack: Path, tmp_path: Path) -> None:
        from napari_drososeg.batch import Part

        part = Part((1, 3), (slice(16, 64), slice(8, 72)))
        assert states(make(stack, tmp_path / "l.tif", CONFIG, overlays=tmp_path / "seen", part=part)) == ["done"]
        assert sorted(p.name for p in (tmp_path / "seen" / "l").iterdir()) == ["0001.png", "0003.png"]
        with Image.open(tmp_path / "seen" / "l" / "0001.png") as image:
            assert image.size == (64, 48)

    @pytest.mark.parametrize("form", ["png", "ome-zarr", "ome-tiff"])
    def test_of_labels_in_every_format(self, make: Run, folder: Path, tmp_path: Path, network: Path, form: Any) -> None:
        from napari_drososeg.zoo import find_card

        job = plan_job(folder, str(tmp_path / "out"), form)
        config = BatchConfig(predict=PREDICT, overlays=tmp_path / "seen")
        config.check(job)
        batch = Batch(job, find_card(str(network)), config, str)
        batch.prepare()
        assert states(batch) == ["done"] * 3
        with Image.open(tmp_path / "seen" / "stack" / "0001.png") as image:
            target = batch.outcomes[job.items[2].target].target
            np.testing.assert_array_equal(image, expected(folder / "stack.tif", target, 1))

    def test_of_a_volume_in_blocks(self, make: Run, volume: Path, pixels: np.ndarray, tmp_path: Path) -> None:
        out = tmp_path / "out.zarr"
        config = BatchConfig(predict=PREDICT, block=(2, 128, 128), overlays=tmp_path / "seen")
        assert states(make(volume, out, config)) == ["done"]
        assert len(list((tmp_path / "seen" / "out").iterdir())) == 5
        with Image.open(tmp_path / "seen" / "out" / "0003.png") as image:
            drawn = overlay(to_grey(pixels[3]), read_labels(out).read(3), DROSOPHILA_CLASSES)
            np.testing.assert_array_equal(image, drawn)

    def test_by_workers_too(self, make: Run, folder: Path, tmp_path: Path, content: Run) -> None:
        assert states(make(folder, tmp_path / "out", CONFIG, overlays=tmp_path / "seen")) == ["done"] * 3
        assert states(make(folder, tmp_path / "2", CONFIG, overlays=tmp_path / "seen 2", workers=2)) == ["done"] * 3
        assert content(tmp_path / "seen") == content(tmp_path / "seen 2")


class TestResume:
    def test_draws_what_is_labelled_without_predicting_again(
        self, make: Run, folder: Path, tmp_path: Path, content: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out, seen = tmp_path / "out", tmp_path / "seen"
        list(make(folder, out, CONFIG).run())
        labels = {p: p.stat().st_mtime_ns for p in out.glob("*.tif")}
        again = make(folder, out, CONFIG, resume=True, overlays=seen)
        assert (len(again.waiting), len(again.undrawn)) == (0, 3)
        flight = again.preflight()
        assert (flight.n_items, flight.n_undrawn, flight.pixels) == (0, 3, 0)
        assert flight.bytes_needed == 3 * 4 * 96 * 80
        assert states(again) == ["done"] * 3
        assert {p: p.stat().st_mtime_ns for p in labels} == labels
        assert states(make(folder, out, CONFIG, resume=True, overlays=seen)) == ["skipped"] * 3
        (seen / "s1.png").unlink()
        assert states(make(folder, out, CONFIG, resume=True, overlays=seen)) == ["skipped", "done", "skipped"]
        assert (seen / "s1.png").exists()

    def test_draws_again_what_was_labelled_again(self, make: Run, folder: Path, tmp_path: Path) -> None:
        out, seen = tmp_path / "out", tmp_path / "seen"
        list(make(folder, out, CONFIG, overlays=seen).run())
        tifffile.imwrite(folder / "s0.tif", tifffile.imread(folder / "s1.tif")[::-1])
        assert states(make(folder, out, CONFIG, resume=True, overlays=seen)) == ["done", "skipped", "skipped"]
        with Image.open(seen / "s0.png") as image:
            np.testing.assert_array_equal(image, expected(folder / "s0.tif", out / "s0.tif"))

    def test_a_picture_becomes_a_folder_with_its_stack(self, make: Run, folder: Path, tmp_path: Path) -> None:
        out, seen = tmp_path / "out", tmp_path / "seen"
        list(make(folder, out, CONFIG, overlays=seen).run())
        tifffile.imwrite(folder / "s0.tif", tifffile.imread(folder / "stack.tif"))
        assert states(make(folder, out, CONFIG, resume=True, overlays=seen)) == ["done", "skipped", "skipped"]
        assert len(list((seen / "s0").iterdir())) == 2
        assert not (seen / "s0.png").exists()
        assert states(make(folder, out, CONFIG, resume=True, overlays=seen)) == ["skipped"] * 3

    @pytest.mark.parametrize("moment", ["before", "between", "after"])
    def test_after_a_kill_at_any_moment_of_renaming(
        self, make: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
    ) -> None:
        """Earlier overlays are there: they stay until the new ones are complete, and are not taken for another's."""
        out, seen = tmp_path / "out", tmp_path / "seen"
        list(make(folder, out, CONFIG, overlays=seen).run())
        (folder / "stack.tif").write_bytes((folder / "stack.tif").read_bytes())  # its time is another
        real, before = module.atomic.put_in_place, (seen / "stack" / "0000.png").read_bytes()

        def killed(temporary: Path, path: Path) -> None:
            if path.name == "stack":
                if moment == "between":
                    path.rename(path.with_name(".stack.01234567.part"))
                elif moment == "after":
                    real(temporary, path)
                raise KeyboardInterrupt
            real(temporary, path)

        monkeypatch.setattr(module.atomic, "put_in_place", killed)
        with pytest.raises(KeyboardInterrupt):
            list(make(folder, out, CONFIG, resume=True, overlays=seen).run())
        monkeypatch.undo()
        again = make(folder, out, CONFIG, resume=True, overlays=seen)
        assert (len(again.waiting), len(again.undrawn)) == (0, 0 if moment == "after" else 1)
        assert states(again)[2] == ("skipped" if moment == "after" else "done")
        assert (seen / "stack" / "0000.png").read_bytes() == before
        if moment != "after":
            assert not hidden(tmp_path)

    def test_of_an_overwrite_that_was_stopped(self, make: Run, folder: Path, tmp_path: Path) -> None:
        out, seen = tmp_path / "out", tmp_path / "seen"
        list(make(folder, out, CONFIG, overlays=seen).run())
        events = make(folder, out, CONFIG, overwrite=True, overlays=seen).run()
        next(e for e in events if e.outcome is not None)
        events.close()
        assert sorted(states(make(folder, out, CONFIG, resume=True, overlays=seen))) == ["done", "done", "skipped"]

    def test_never_replaces_what_someone_put_or_changed(self, make: Run, folder: Path, tmp_path: Path) -> None:
        out, seen = tmp_path / "out", tmp_path / "seen"
        list(make(folder, out, CONFIG).run())
        seen.mkdir()
        (seen / "s0.png").write_bytes(b"mine")
        with pytest.raises(DrososegError, match="s0.png' exists and is not in the record"):
            make(folder, out, CONFIG, resume=True, overlays=seen)
        (seen / "s0.png").unlink()
        assert states(make(folder, out, CONFIG, resume=True, overlays=seen)) == ["done"] * 3
        (seen / "stack" / "notes.txt").write_text("mine")
        with pytest.raises(DrososegError, match="stack' was changed since it was drawn"):
            make(folder, out, CONFIG, resume=True, overlays=seen)


class TestTrouble:
    def test_a_full_disk_costs_the_overlays_and_not_the_labels(
        self, make: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out, seen = tmp_path / "out", tmp_path / "seen"
        real = module.save_overlay

        def full(path: Path, *more: Any) -> None:
            real(path, *more)
            if path.name == "0001.png":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(module, "save_overlay", full)
        batch = make(folder, out, CONFIG, overlays=seen)
        assert states(batch) == ["done", "done", "failed"]
        error = batch.outcomes[out / "stack.tif"].error
        assert error == f"'{seen / 'stack'}' cannot be written: {os.strerror(errno.ENOSPC)}."
        assert not (seen / "stack").exists()
        assert not hidden(tmp_path)
        assert any(error in line for line in (out / ".drososeg.jsonl").read_text().splitlines())
        monkeypatch.undo()
        again = make(folder, out, CONFIG, resume=True, overlays=seen)
        assert ([i.source.name for i in again.undrawn], again.waiting) == (["stack.tif"], [])
        assert states(again) == ["skipped", "skipped", "done"]

    def test_stopping_while_drawing_leaves_nothing(self, make: Run, stack: Path, tmp_path: Path) -> None:
        events = make(stack, tmp_path / "l.tif", CONFIG, overlays=tmp_path / "seen").run()
        next(e for e in events if e.text == "overlays" and e.done == 2)
        assert hidden(tmp_path)
        events.close()
        assert not hidden(tmp_path)
        assert not (tmp_path / "seen" / "l").exists()
        again = make(stack, tmp_path / "l.tif", CONFIG, overlays=tmp_path / "seen", resume=True)
        assert (len(again.waiting), len(again.undrawn)) == (0, 1)
        assert states(again) == ["done"]

    @pytest.mark.skipif(os.name == "nt", reason="signals are others there")
    def test_sigkill_while_drawing_leaves_a_temporary_name_at_most(
        self, make: Run, tmp_path: Path, sections: np.ndarray, network: Path
    ) -> None:
        source, out, seen = tmp_path / "long.tif", tmp_path / "l.tif", tmp_path / "seen"
        tifffile.imwrite(source, np.tile(sections, (25, 1, 1)), photometric="minisblack")
        list(make(source, out, CONFIG).run())
        labels = out.read_bytes()
        command = "from napari_drososeg.cli import app; app()"
        options = ["--model", network, "--engine", "torch", "--precision", "f32", "--threads", "1", "--quiet"]
        options += ["--pixel-size", "4.6", "--resume", "--overlays", seen]
        arguments = [sys.executable, "-c", command, "predict", source, "-o", out, *options]
        process = subprocess.Popen([str(a) for a in arguments])
        while process.poll() is None and not list(seen.glob(".l.*.part/0003.png")):
            time.sleep(0.002)
        process.kill()
        process.wait()
        assert hidden(seen)
        assert not (seen / "l").exists()
        assert states(make(source, out, CONFIG, resume=True, overlays=seen)) == ["done"]
        assert len(list((seen / "l").iterdir())) == 100
        assert not hidden(tmp_path)
        assert out.read_bytes() == labels

    @pytest.mark.skipif(os.name == "nt", reason="signals are others there")
    def test_a_killed_worker_leaves_nothing(self, make: Run, tmp_path: Path, sections: np.ndarray) -> None:
        source = tmp_path / "long.tif"
        tifffile.imwrite(source, np.tile(sections, (25, 1, 1)), photometric="minisblack")
        list(make(source, tmp_path / "l.tif", CONFIG).run())
        batch = make(source, tmp_path / "l.tif", CONFIG, overlays=tmp_path / "seen", workers=1, resume=True)
        killed = False
        for event in batch.run():
            if event.text == "overlays" and event.done >= 2 and not killed:
                killed = True
                os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)
        assert batch.outcomes[tmp_path / "l.tif"].state == "done"
        assert "killed by SIGKILL" in batch.manifest.path.read_text()
        assert len(list((tmp_path / "seen" / "l").iterdir())) == 100
        assert not hidden(tmp_path)

    def test_an_image_that_changes_while_it_is_drawn(self, make: Run, stack: Path, tmp_path: Path) -> None:
        batch = make(stack, tmp_path / "l.tif", CONFIG, overlays=tmp_path / "seen")
        for event in batch.run():
            if event.text == "overlays" and event.done == 4:
                stack.write_bytes(stack.read_bytes() + b"\0")
        assert "was changed while it was read" in (batch.outcomes[tmp_path / "l.tif"].error or "")
        assert not list((tmp_path / "seen").iterdir())

    def test_sections_too_large_for_a_picture_are_refused_first(
        self, make: Run, folder: Path, stack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "MAX_PIXELS", 96 * 80 - 1)
        with pytest.raises(DrososegError, match=r"'stack' has 0; omit --overlays, or choose a smaller region"):
            make(stack, tmp_path / "l.tif", CONFIG, overlays=tmp_path / "seen")
        tifffile.imwrite(folder / "s0.tif", np.ones((10, 10), np.uint8))
        batch = make(folder, tmp_path / "out", CONFIG, overlays=tmp_path / "seen")
        assert len(batch.preflight().unreadable) == 2
        assert states(batch) == ["done", "failed", "failed"]
        assert not (tmp_path / "out" / "s1.tif").exists()

    def test_labels_that_vanished_are_named(self, stack: Path, tmp_path: Path) -> None:
        task = OverlayTask(stack, "x", tmp_path / "no.tif", tmp_path / "seen" / "l", CONFIG.part, DROSOPHILA_CLASSES)
        with pytest.raises(DrososegError, match=r"no.tif does not exist"):
            next(task.steps())
        assert not (tmp_path / "seen").exists()


class TestPlaces:
    @pytest.mark.parametrize(
        ("place", "reason"),
        [
            ("out", "labels .* overwrite each other"),
            ("out/s0.png/below", "overwrite each other"),
            ("in", "be among the inputs"),
            ("a.png", "name of a file"),
            ("file", "name of a file"),
            ("out.zarr", "name of a file"),
        ],
    )
    def test_that_would_hurt(self, folder: Path, tmp_path: Path, place: str, reason: str) -> None:
        (tmp_path / "file").write_bytes(b"x")
        job = plan_job(folder, str(tmp_path / "out"), "png")
        with pytest.raises(DrososegError, match=reason):
            BatchConfig(overlays=tmp_path / place).check(job)

    def test_below_a_searched_input_are_refused(self, folder: Path, tmp_path: Path) -> None:
        for subfolders in (False, True):
            job = plan_job(folder, str(tmp_path / "out"), None, subfolders=subfolders)
            config = BatchConfig(overlays=folder / "seen")
            if subfolders:
                with pytest.raises(DrososegError, match="read next time"):
                    config.check(job)
            else:
                config.check(job)

    def test_names_that_climb_out_are_refused(self, folder: Path, tmp_path: Path, sections: np.ndarray) -> None:
        for name in ("..tif", "...tif"):
            climbing = folder / name
            tifffile.imwrite(climbing, sections[0])
            job = plan_job([climbing], str(tmp_path / "out"), None)
            with pytest.raises(DrososegError, match="cannot be used for a folder of overlays"):
                BatchConfig(overlays=tmp_path / "seen").check(job)

    def test_a_link_that_leads_out_is_refused(self, folder: Path, tmp_path: Path) -> None:
        (folder / "below").mkdir()
        (folder / "s0.tif").rename(folder / "below" / "s0.tif")
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "seen").mkdir()
        (tmp_path / "seen" / "below").symlink_to(tmp_path / "elsewhere")
        job = plan_job(folder, str(tmp_path / "out"), None, subfolders=True)
        with pytest.raises(DrososegError, match="link that points outside"):
            BatchConfig(overlays=tmp_path / "seen").check(job)

    def test_overwrite_replaces_only_ours(self, make: Run, folder: Path, tmp_path: Path) -> None:
        seen = tmp_path / "seen"
        list(make(folder, tmp_path / "out", CONFIG, overlays=seen).run())
        job = plan_job(folder, str(tmp_path / "out"), None)
        with pytest.raises(DrososegError, match="use --overwrite, --resume or another"):
            BatchConfig(overlays=seen).check(plan_job(folder, str(tmp_path / "other"), None))
        check_beside(job, None, seen, replace=True, trust=False)
        assert states(make(folder, tmp_path / "out", CONFIG, overlays=seen, overwrite=True)) == ["done"] * 3
        assert holds_overlays(seen / "stack")
        Image.new("RGB", (3, 3)).save(seen / "stack" / "0007.png")
        assert not holds_overlays(seen / "stack")
        with pytest.raises(DrososegError, match="does not contain overlays written by this program"):
            BatchConfig(overlays=seen, overwrite=True).check(job)
        (seen / "stack" / "0007.png").rename(seen / "s0.png")
        with pytest.raises(
            DrososegError, match=r"s0.png' exists and does not contain overlays written by this program"
        ):
            BatchConfig(overlays=seen, overwrite=True).check(job)


class TestProbabilitiesOfFolders:
    def test_are_a_zarr_for_each(self, make: Run, folder: Path, tmp_path: Path) -> None:
        places = {"probabilities": tmp_path / "p", "overlays": tmp_path / "p"}
        assert states(make(folder, tmp_path / "out", CONFIG, **places)) == ["done"] * 3
        assert sorted(p.name for p in (tmp_path / "p").glob("*.zarr")) == ["s0.zarr", "s1.zarr", "stack.zarr"]
        values = zarr.open_array(tmp_path / "p" / "stack.zarr", mode="r")[:]
        assert values.shape == (3, 2, 96, 80)
        labels = read_labels(tmp_path / "out" / "stack.tif").read(1)
        assert np.mean(values[:, 1].argmax(0) + 1 == labels) > 0.999  # float16 has ties
        assert states(make(folder, tmp_path / "out", CONFIG, resume=True, **places)) == ["skipped"] * 3

    def test_of_an_overwrite_that_was_stopped(self, make: Run, folder: Path, tmp_path: Path) -> None:
        places = {"probabilities": tmp_path / "p"}
        list(make(folder, tmp_path / "out", CONFIG, **places).run())
        events = make(folder, tmp_path / "out", CONFIG, overwrite=True, **places).run()
        next(e for e in events if e.outcome is not None)
        events.close()
        again = states(make(folder, tmp_path / "out", CONFIG, resume=True, **places))
        assert sorted(again) == ["done", "done", "skipped"]

    @pytest.mark.parametrize(("place", "reason"), [("p.zarr", "name a folder"), ("in", "among the inputs")])
    def test_that_cannot_work(self, folder: Path, tmp_path: Path, place: str, reason: str) -> None:
        with pytest.raises(DrososegError, match=reason):
            BatchConfig(probabilities=tmp_path / place).check(plan_job(folder, str(tmp_path / "out"), None))


class TestCommand:
    def test_writes_overlays_and_says_what_is_to_be_drawn(
        self, drososeg: Run, folder: Path, tmp_path: Path, network: Path
    ) -> None:
        fixed = ("--model", network, "--engine", "torch", "--precision", "f32", "--pixel-size", 4.6)
        run = ("predict", folder, "-o", tmp_path / "out", *fixed)
        drososeg(*run, "--quiet")
        wanted = (*run, "--overlays", tmp_path / "seen", "--resume")
        said = drososeg(*wanted, "--dry-run").stdout
        assert "0 to do, 3 only to be drawn" in said
        assert f"draw {tmp_path / 'out' / 's0.tif'}" in " ".join(said.split())
        items = json.loads(drososeg(*wanted, "--json").stdout)["items"]
        assert [i["state"] for i in items] == ["done"] * 3
        assert (tmp_path / "seen" / "s0.png").is_file()
