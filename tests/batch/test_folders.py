"""Many files: which are done, what is said of them, and names that mean harm."""

from __future__ import annotations

import csv
import json
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr

from napari_drososeg.batch import Batch, BatchConfig, Manifest, plan_job
from napari_drososeg.batch.preflight import LARGE_BYTES, Preflight
from napari_drososeg.errors import DrososegError
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
    """Four sections as files."""
    folder = tmp_path / "in"
    folder.mkdir()
    for z, section in enumerate(sections):
        tifffile.imwrite(folder / f"s{z}.tif", section)
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


class TestAreas:
    def test_of_every_section_and_stack(self, make: Run, tmp_path: Path, sections: np.ndarray) -> None:
        source = tmp_path / "stack.tif"
        voxel = {"axes": "ZYX", "spacing": 0.05, "unit": "um"}
        tifffile.imwrite(source, sections, imagej=True, metadata=voxel, resolution=(250, 250))
        table = tmp_path / "areas.csv"
        predict = replace(PREDICT, pixel_size=None)
        batch = make(source, tmp_path / "out.tif", CONFIG, areas=table, predict=predict)
        list(batch.run())
        labels = read_labels(tmp_path / "out.tif")
        for row in rows(table):
            chosen = range(4) if row["section"] == "all" else [int(row["section"])]
            value = 1 + ["cytoplasm", "cell membrane", "mitochondria"].index(row["class"])
            pixels = sum(np.count_nonzero(labels.read(z) == value) for z in chosen)
            assert int(row["pixels"]) == pixels
            assert float(row["um2"]) == pytest.approx(pixels * 16e-6, rel=1e-4)
            assert float(row["fraction"]) == pytest.approx(pixels / (len(chosen) * 96 * 80), abs=1e-6)
            if row["section"] == "all":
                assert float(row["um3"]) == pytest.approx(pixels * 16e-6 * 0.05, rel=1e-4)
            else:
                assert row["um3"] == ""
        assert len(rows(table)) == 5 * 3

    def test_of_what_was_done_before_as_well(self, make: Run, folder: Path, tmp_path: Path) -> None:
        table = tmp_path / "areas.csv"
        list(make(folder, tmp_path / "out", CONFIG).run())
        (tmp_path / "out" / "s2.tif").unlink()
        batch = make(folder, tmp_path / "out", CONFIG, resume=True, areas=table)
        list(batch.run())
        assert [o.state for o in batch.outcomes.values()].count("skipped") == 3
        assert {(Path(r["input"]).name, r["section"]) for r in rows(table)} == {
            (f"s{z}.tif", section) for z in range(4) for section in ("0", "all")
        }


def test_findings_are_recorded_and_nothing_is_left_out(make: Run, folder: Path, tmp_path: Path) -> None:
    tifffile.imwrite(folder / "s2.tif", np.zeros((96, 80), np.uint8))
    (folder / "s3.tif").write_bytes((folder / "s1.tif").read_bytes())
    (folder / "s4.tif").write_bytes((folder / "s3.tif").read_bytes())
    batch = make(folder, tmp_path / "out", CONFIG)
    told = [(e.item.source.name, e.finding.kind) for e in batch.run() if e.finding and e.item]
    assert told == [("s2.tif", "missing"), ("s4.tif", "duplicate")]
    lines = [json.loads(line) for line in batch.manifest.path.read_text().splitlines()]
    assert [(e["output"], e["kind"]) for e in lines if e["what"] == "finding"] == told
    assert {o.state for o in batch.outcomes.values()} == {"done"}
    assert [f.kind for f in batch.outcomes[tmp_path / "out" / "s2.tif"].findings] == ["missing"]
    assert read_labels(tmp_path / "out" / "s2.tif").shape == (1, 96, 80)
    unchecked = make(folder, tmp_path / "out2", CONFIG, check_sections=False)
    assert not [e for e in unchecked.run() if e.finding]


def test_workers_do_files_too(make: Run, folder: Path, tmp_path: Path, content: Run) -> None:
    (folder / "bad.tif").write_bytes(b"")
    batch = make(folder, tmp_path / "out", CONFIG)
    list(batch.run())
    states = {t.name: o.state for t, o in batch.outcomes.items()}
    assert states == {"bad.tif": "failed"} | {f"s{z}.tif": "done" for z in range(4)}
    both = make(folder, tmp_path / "both", CONFIG, workers=2)
    list(both.run())
    assert {t.name: o.state for t, o in both.outcomes.items()} == states
    assert {n: c for n, c in content(tmp_path / "both").items() if n.endswith(".tif")} == {
        n: c for n, c in content(tmp_path / "out").items() if n.endswith(".tif")
    }


def test_an_input_that_changes_while_it_is_read_is_not_done(
    make: Run, folder: Path, tmp_path: Path, sections: np.ndarray
) -> None:
    batch = make(folder / "s0.tif", tmp_path / "out.tif", CONFIG)
    for event in batch.run():
        if event.kind == "progress":
            tifffile.imwrite(folder / "s0.tif", sections[1], description="another")
    assert "was changed while it was read" in (batch.outcomes[tmp_path / "out.tif"].error or "")
    assert not (tmp_path / "out.tif").exists()
    assert not list(tmp_path.glob(".*.part"))


def test_an_overwrite_that_was_stopped_can_be_resumed(make: Run, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    list(make(folder, out, CONFIG).run())
    (out / ".drososeg.jsonl").unlink()  # so that nothing says that they are ours
    events = make(folder, out, CONFIG, overwrite=True).run()
    next(e for e in events if e.outcome is not None)
    events.close()
    again = make(folder, out, CONFIG, resume=True)
    list(again.run())
    assert [o.state for o in again.outcomes.values()].count("skipped") == 1
    assert {o.state for o in again.outcomes.values()} == {"skipped", "done"}


def test_what_killed_runs_left_is_removed(make: Run, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / ".s1.tif.0123abcd.part").write_bytes(b"x")
    (out / ".s1.tif.notes.part").write_bytes(b"not ours")
    list(make(folder, out, CONFIG).run())
    assert [p.name for p in out.glob(".s1*")] == [".s1.tif.notes.part"]


class TestChoice:
    def test_patterns_subfolders_and_several_inputs(self, folder: Path, tmp_path: Path) -> None:
        deep = folder / "deep" / "er"
        deep.mkdir(parents=True)
        (deep / "s1.tif").write_bytes(b"x")
        (deep / "note.txt").write_bytes(b"x")
        job = plan_job(folder, str(tmp_path / "out"), None, pattern="s[1-2]*", subfolders=True)
        assert [str(i.target.relative_to(tmp_path / "out")) for i in job.items] == [
            "s1.tif",
            "s2.tif",
            "deep/er/s1.tif",
        ]
        assert "deep/er/note.txt" in job.left_out
        given = [folder / "s[0-1].tif", folder / "s3.tif"]
        assert [i.source.name for i in plan_job(given, str(tmp_path / "o"), None).items] == [
            "s0.tif",
            "s1.tif",
            "s3.tif",
        ]
        for arguments, match in (
            ((given, "out.tif", None), "3 inputs need a folder"),
            ((folder / "x*.tif", "out", None), "does not exist"),
        ):
            with pytest.raises(DrososegError, match=match):
                plan_job(*arguments)
        with pytest.raises(DrososegError, match="no images called 'z"):
            plan_job(folder, str(tmp_path / "out"), None, pattern="z*")
        with pytest.raises(DrososegError, match="lies inside the input"):
            plan_job(folder, str(folder / "out"), None, subfolders=True)

    def test_names_with_spaces_newlines_and_any_letters(self, make: Run, tmp_path: Path, sections: np.ndarray) -> None:
        folder = tmp_path / "in put"
        folder.mkdir()
        names = ["a b.tif", "zwei\nzeilen.tif", "ünï-日本.tif", "-o.tif", "'; rm -rf x.tif", "50%[1].tif"]
        for name in names:
            tifffile.imwrite(folder / name, sections[0])
        batch = make(folder, tmp_path / "out put", CONFIG, areas=tmp_path / "a.csv", check_sections=False)
        list(batch.run())
        assert {o.state for o in batch.outcomes.values()} == {"done"}
        assert sorted(p.name for p in (tmp_path / "out put").glob("*.tif")) == sorted(names)
        assert {Path(r["input"]).name for r in rows(tmp_path / "a.csv")} == set(names)
        again = make(folder, tmp_path / "out put", CONFIG, resume=True, check_sections=False)
        assert {o.state for o in again.outcomes.values()} == {"skipped"}


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
class TestHarm:
    def test_a_pattern_stays_in_its_folder(self, folder: Path, tmp_path: Path) -> None:
        for pattern in ("../*", "/etc/*"):
            with pytest.raises(DrososegError, match="contains a path"):
                plan_job(folder, str(tmp_path / "out"), None, pattern=pattern)

    def test_links_to_folders_are_not_followed(self, folder: Path, tmp_path: Path) -> None:
        (folder / "loop").symlink_to(folder)
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / "secret.tif").write_bytes(b"x")
        (folder / "away").symlink_to(tmp_path / "elsewhere")
        job = plan_job(folder, str(tmp_path / "out"), None, subfolders=True)
        assert [i.source.name for i in job.items] == [f"s{z}.tif" for z in range(4)]

    def test_an_output_folder_leads_nowhere_else(self, folder: Path, tmp_path: Path) -> None:
        (folder / "deep").mkdir()
        (folder / "deep" / "a.tif").write_bytes(b"x")
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "deep").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(DrososegError, match="points outside"):
            plan_job(folder, str(tmp_path / "out"), None, subfolders=True)

    def test_a_link_as_output_is_replaced_and_its_end_left_alone(self, make: Run, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "precious").write_bytes(b"precious")
        (tmp_path / "out.tif").symlink_to(tmp_path / "precious")
        job = plan_job(folder / "s0.tif", str(tmp_path / "out.tif"), None)
        with pytest.raises(DrososegError, match="exists"):
            CONFIG.check(job)
        list(make(folder / "s0.tif", tmp_path / "out.tif", CONFIG, overwrite=True).run())
        assert (tmp_path / "precious").read_bytes() == b"precious"
        assert read_labels(tmp_path / "out.tif").shape == (1, 96, 80)
        (tmp_path / "self.tif").symlink_to(folder / "s1.tif")
        with pytest.raises(DrososegError, match="the input itself"):
            plan_job(folder / "s1.tif", str(tmp_path / "self.tif"), None)

    @pytest.mark.parametrize("how", ["text", "cut", "pickle"])
    def test_a_checkpoint_that_is_none_runs_nothing(
        self, drososeg: Run, folder: Path, tmp_path: Path, network: Path, how: str
    ) -> None:
        class Harm:
            def __reduce__(self) -> Any:
                return (Path.touch, (tmp_path / "executed",))

        contents = {"text": b"no network", "cut": network.read_bytes()[:-100], "pickle": pickle.dumps(Harm())}
        bad = tmp_path / "bad.safetensors"
        bad.write_bytes(contents[how])
        result = drososeg("predict", folder, "-o", tmp_path / "out", "--model", bad, code=2)
        assert len(result.stderr.splitlines()) == 1
        assert not (tmp_path / "executed").exists()
        assert not (tmp_path / "out").exists()


class TestCommand:
    def test_dry_run_writes_nothing(self, drososeg: Run, folder: Path, tmp_path: Path, network: Path) -> None:
        (folder / "bad.tif").write_bytes(b"")
        run = ("predict", folder, "-o", tmp_path / "out", "--model", network, "--engine", "torch", "--dry-run")
        said = drososeg(*run).stdout
        assert "5 to do" in said
        assert "bad.tif" in said
        assert "on disk" in said
        told = json.loads(drososeg(*run, "--json").stdout)
        assert (told["n_items"], told["pixels"], told["bytes_needed"]) == (5, 4 * 96 * 80, 4 * 96 * 80)
        assert not (tmp_path / "out").exists()

    def test_a_large_run_needs_yes(
        self, drososeg: Run, folder: Path, tmp_path: Path, network: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("napari_drososeg.batch.preflight.LARGE_BYTES", 1000)
        run = ("predict", folder / "s0.tif", "-o", tmp_path / "o.tif", "-m", network, "--engine", "torch")
        refused = drososeg(*run, code=2)
        assert "large run: it may write up to" in refused.stderr
        assert not (tmp_path / "o.tif").exists()
        drososeg(*run, "--yes")

    def test_events_are_lines(self, drososeg: Run, folder: Path, tmp_path: Path, network: Path) -> None:
        (folder / "s2.tif").write_bytes(b"")
        run = ("predict", folder, "-o", tmp_path / "out", "-m", network, "--engine", "torch", "--events")
        lines = [json.loads(line) for line in drososeg(*run, code=1).stdout.splitlines()]
        finished = {Path(e["input"]).name: e["state"] for e in lines if e["event"] == "finished"}
        assert finished == {"s0.tif": "done", "s1.tif": "done", "s2.tif": "failed", "s3.tif": "done"}
        assert lines[-1]["event"] == "end"
        assert [i["state"] for i in lines[-1]["items"]] == ["done", "done", "failed", "done"]

    def test_findings_are_shown(self, drososeg: Run, folder: Path, tmp_path: Path, network: Path) -> None:
        tifffile.imwrite(folder / "s1.tif", np.zeros((96, 80), np.uint8))
        said = drososeg("predict", folder, "-o", tmp_path / "o.tif", "-m", network, "--engine", "torch", "--yes").stdout
        assert "Sections to look at" in said
        assert "missing" in said

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("--workers", 2, "--scheduler", "x:1"), "contradict"),
            (("--block", "2,64"), "is not a block size"),
            (("--block", "2,64,64"), "needs a .zarr output"),
            (("-o", "x.zarr", "--block", "16,1500,1500"), "Blocks of 16,1500,1500 cannot be written"),
            (("--areas", "a.txt"), "written as .csv"),
            (("--pattern", "s*"), "select files one by one"),
        ],
    )
    def test_what_cannot_work(
        self, drososeg: Run, folder: Path, tmp_path: Path, arguments: tuple[Any, ...], message: str
    ) -> None:
        assert message in drososeg("predict", folder, "-o", tmp_path / "o.tif", *arguments, code=2).stderr


def test_what_is_asked_about() -> None:
    plain = Preflight(1, 0, 100, 100, 10**9, 10**8, 60.0)
    assert plain.concerns == []
    assert "GB are free" in replace(plain, bytes_free=100).concerns[0]
    assert "may write" in replace(plain, bytes_needed=2 * LARGE_BYTES, bytes_free=10**14).concerns[0]
    assert "10 hours" in replace(plain, seconds=36_000.0).concerns[0]


def test_a_manifest_survives_a_line_cut_short(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "m.jsonl"
    manifest = Manifest(path)
    manifest.begin({"settings": {}}, afresh=True)
    with path.open("ab") as file:
        file.write(b'{"what": "item", "outp')
    manifest.note_event("fault", error="x")
    assert [json.loads(line)["what"] for line in path.read_text().splitlines() if line.endswith("}")] == [
        "run",
        "fault",
    ]
    assert Manifest(path).run["settings"] == {}


def test_batch_says_what_it_runs_on(make: Run, folder: Path, tmp_path: Path) -> None:
    batch: Batch = make(folder, tmp_path / "out", CONFIG)
    assert batch.description == "CPU, PyTorch, f32"


def test_int8_is_calibrated_once_for_all_files(make: Run, tmp_path: Path, sections: np.ndarray) -> None:
    pytest.importorskip("nncf")
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    (folder / "0 broken.tif").write_bytes(b"no image")  # it cannot be what the others are calibrated on
    for k, power in enumerate((1, 3), start=1):
        tifffile.imwrite(folder / f"{k}.tif", (255 * (sections[k] / 255.0) ** power).astype(np.uint8))
    predict = PredictConfig(device="cpu", engine="openvino", precision="int8", pixel_size=4.6)
    config = BatchConfig(predict=predict, probabilities=tmp_path / "p")

    def states(run: Batch) -> dict[str, str]:
        return {e.outcome.source.name: e.outcome.state for e in run.run() if e.outcome}

    def second() -> np.ndarray:
        return np.asarray(zarr.open_array(tmp_path / "p" / "2.zarr", mode="r"))

    run = make(folder, out, config)
    assert states(run) == {"0 broken.tif": "failed", "1.tif": "done", "2.tif": "done"}
    expected = second()
    assert run.manifest.run["fixed"]["calibration"][0] == str(folder / "1.tif")
    (out / "2.tif").unlink()
    shutil.rmtree(tmp_path / "p" / "2.zarr")
    assert states(make(folder, out, config, resume=True))["2.tif"] == "done"
    np.testing.assert_array_equal(second(), expected)

    (out / "2.tif").unlink()
    shutil.rmtree(tmp_path / "p" / "2.zarr")
    alone = make(folder / "2.tif", out, config, resume=True)
    assert states(alone) == {"2.tif": "done"}
    np.testing.assert_array_equal(second(), expected)
    assert alone.manifest.run["fixed"]["calibration"][0] == str(folder / "1.tif")

    (out / "2.tif").unlink()
    tifffile.imwrite(folder / "1.tif", sections[0])
    with pytest.raises(DrososegError, match=r"int8 was calibrated on '.*1.tif', which is gone or was changed"):
        list(make(folder, out, config, resume=True).run())
