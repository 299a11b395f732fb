"""Volumes made block by block."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr

from napari_drososeg.batch import Batch, BatchConfig, Event, Manifest, Part
from napari_drososeg.batch.blocks import tile_for_blocks
from napari_drososeg.classes import DROSOPHILA_CLASSES
from napari_drososeg.errors import DrososegError
from napari_drososeg.inference import PredictConfig, Predictor
from napari_drososeg.inference import predict as predict_in_memory
from napari_drososeg.inference.reading import TileReader
from napari_drososeg.io import read_labels, read_stack
from napari_drososeg.io.zarr_volume import LabelsVolume, block_shape

PREDICT = PredictConfig(engine="torch", precision="f32", pixel_size=4.6, threads=1)
CONFIG = BatchConfig(predict=PREDICT, block=(2, 128, 128))
Read = Callable[[Path], Any]


def finished(batch: Batch) -> list[str]:
    """Run, and say what became of the items."""
    return [e.outcome.error or e.outcome.state for e in batch.run() if e.outcome is not None]


def interrupted(batch: Batch, n_blocks: int) -> list[Event]:
    """Run until so many blocks are done, and stop as if killed: nothing is tidied up by the run itself."""
    seen, events = 0, batch.run()
    for event in events:
        seen = event.done if event.kind == "progress" else 0
        if seen == n_blocks:
            break
    events.close()
    return []


class TestLabels:
    def test_are_those_of_the_whole_section_with_an_exact_halo(
        self, done: Any, volume: Path, tmp_path: Path, network: Path, whole: Read
    ) -> None:
        exact = replace(PREDICT, halo="exact")
        done(volume, tmp_path / "out.zarr", replace(CONFIG, predict=exact))
        expected = predict_in_memory(read_stack(volume), network, exact)
        assert set(np.unique(expected)) == {1, 2, 3}  # or comparing would show little
        np.testing.assert_array_equal(whole(tmp_path / "out.zarr"), expected)

    def test_of_a_block_are_those_of_its_region_in_memory(
        self, done: Any, volume: Path, tmp_path: Path, network: Path, whole: Read
    ) -> None:
        done(volume, tmp_path / "out.zarr")
        found = whole(tmp_path / "out.zarr")
        stack = read_stack(volume)
        predictor = Predictor(network, PREDICT)
        for y, x in product(range(0, 200, 128), range(0, 168, 128)):
            roi = slice(y, min(y + 128, 200)), slice(x, min(x + 128, 168))
            for result in predictor.run(stack, predictor.plan(stack, sections=[1, 4], roi=roi)):
                np.testing.assert_array_equal(found[result.z, *result.slices], result.labels)

    def test_fill_only_what_was_chosen(self, done: Any, volume: Path, tmp_path: Path, whole: Read) -> None:
        done(volume, tmp_path / "all.zarr")
        part = Part((1, 3), (slice(30, 125), slice(70, 100)))
        outcome = done(volume, tmp_path / "out.zarr", part=part)[-1].outcome
        expected = np.zeros((5, 200, 168), bool)
        expected[[1, 3], 30:125, 70:100] = True
        found = whole(tmp_path / "out.zarr")
        np.testing.assert_array_equal(found > 0, expected)
        assert np.mean(found[expected] == whole(tmp_path / "all.zarr")[expected]) > 0.9
        assert {z: sum(row) for z, row in outcome.counts.items()} == {1: 2850, 3: 2850}

    def test_of_a_smaller_batch_are_the_same(
        self, make: Any, volume: Path, tmp_path: Path, whole: Read, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Memory that runs out changes the batch and no label; where that does not help, the block fails."""
        assert finished(make(volume, tmp_path / "one.zarr", predict=replace(PREDICT, batch=1))) == ["done"]
        forward, sizes = torch.nn.Conv2d.forward, set()

        def scarce(self: torch.nn.Conv2d, images: torch.Tensor) -> torch.Tensor:
            if len(images) > limit:
                raise RuntimeError("[enforce fail at alloc_cpu.cpp] . DefaultCPUAllocator: can't allocate memory")
            sizes.add(len(images))
            return forward(self, images)

        limit = 1
        batch = make(volume, tmp_path / "two.zarr", predict=replace(PREDICT, batch=4))
        monkeypatch.setattr(torch.nn.Conv2d, "forward", scarce)
        assert finished(batch) == ["done"]
        assert sizes == {1}
        np.testing.assert_array_equal(whole(tmp_path / "two.zarr"), whole(tmp_path / "one.zarr"))
        limit = 0
        batch = Batch(batch.job, batch.card, replace(batch.config, overwrite=True), str)
        monkeypatch.undo()
        batch.prepare()
        monkeypatch.setattr(torch.nn.Conv2d, "forward", scarce)
        error = finished(batch)[0]
        assert "There is not enough memory for a tile of" in error
        assert "(and 11 more blocks failed)" in error
        np.testing.assert_array_equal(whole(tmp_path / "two.zarr"), whole(tmp_path / "one.zarr"))  # the earlier ones

    def test_are_sharded_checksummed_and_have_levels(
        self, done: Any, volume: Path, tmp_path: Path, whole: Read
    ) -> None:
        tall = tmp_path / "tall.zarr"
        zarr.create_array(tall, data=np.random.default_rng(0).integers(1, 255, (2, 700, 40), dtype=np.uint8))
        done(tall, tmp_path / "out.zarr", block=(2, 256, 256))
        group = zarr.open_group(tmp_path / "out.zarr", mode="r")
        first, second = (zarr.open_array(tmp_path / "out.zarr" / k, mode="r") for k in "01")
        assert sorted(group.array_keys()) == ["0", "1"]
        assert first.shards == (2, 256, 40)
        assert [c.to_dict()["name"] for c in first.compressors] == ["zstd", "crc32c"]
        np.testing.assert_array_equal(second[:], first[:, ::2, ::2])
        assert read_labels(tmp_path / "out.zarr").voxel_size == (None, 4.6, 4.6)
        block = tmp_path / "out.zarr" / "0" / "c" / "0" / "1" / "0"
        damaged = bytearray(block.read_bytes())
        damaged[len(damaged) // 3] ^= 1
        block.write_bytes(damaged)
        with pytest.raises(DrososegError, match="damaged"):
            whole(tmp_path / "out.zarr")


class TestGlobalContext:
    """Labels of a network for which every pixel depends on its whole tile."""

    predict = replace(PREDICT, batch=1)  # several at once may be added up in another order

    def test_are_those_of_the_whole_section(
        self, done: Any, volume: Path, tmp_path: Path, global_network: Path, whole: Read
    ) -> None:
        expected = predict_in_memory(read_stack(volume), global_network, self.predict)
        assert np.bincount(expected.ravel(), minlength=4)[1:].min() > 1000
        done(volume, tmp_path / "out.zarr", by=global_network, predict=self.predict)
        np.testing.assert_array_equal(whole(tmp_path / "out.zarr"), expected)
        part = Part((1, 3), (slice(30, 171), slice(70, 100)))
        for name in ("part.zarr", "part.tif"):
            events = done(volume, tmp_path / name, by=global_network, predict=self.predict, part=part)
            found, wanted = whole(tmp_path / name), np.zeros_like(expected)
            wanted[[1, 3], 30:171, 70:100] = expected[[1, 3], 30:171, 70:100]
            np.testing.assert_array_equal(found, wanted)
        progress = [e for e in events if e.kind == "progress"]
        assert progress[-1].done == progress[-1].total  # tiles that only reach into the region are no results


class TestResume:
    def test_makes_only_what_is_missing_and_ends_with_the_same_bytes(
        self, make: Any, done: Any, volume: Path, tmp_path: Path, content: Read
    ) -> None:
        done(volume, tmp_path / "undisturbed" / "out.zarr")
        out = tmp_path / "out.zarr"
        interrupted(make(volume, out), 7)
        partial = tmp_path / ".out.zarr.part"
        assert not out.exists()
        manifest = Manifest(tmp_path / ".out.zarr.drososeg.jsonl")
        assert len(manifest.blocks["out.zarr"]) == 7
        # A block on the disk that the manifest does not know is not done; one that it knows has to be intact.
        entries = list(manifest.blocks["out.zarr"])
        lost, damaged = (LabelsVolume(partial, (5, 200, 168), (2, 128, 128)).file(0, e[1:]) for e in entries[:2])
        lost.unlink()
        damaged.write_bytes(damaged.read_bytes()[:-1])
        (partial / "0" / "c" / "2" / "1").mkdir(parents=True)
        (partial / "0" / "c" / "2" / "1" / "1").write_bytes(b"half a shard")
        (partial / "0" / "c" / "2" / "1" / "1.0123.partial").write_bytes(b"left by a writer that was killed")
        batch = make(volume, out, resume=True)
        counts = [e for e in batch.run() if e.kind == "progress" and e.text == "block"]
        assert (counts[0].done, counts[0].total, counts[-1].done) == (5, 12, 12)
        assert content(out) == content(tmp_path / "undisturbed" / "out.zarr")
        assert "the previous run did not finish" in batch.manifest.path.read_text()
        assert not partial.exists()
        assert finished(make(volume, out, resume=True)) == ["skipped"]

    def test_refuses_another_input_settings_or_engine_and_says_which(
        self, make: Any, volume: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "out.zarr"
        interrupted(make(volume, out), 3)
        with pytest.raises(DrososegError, match=r"--tile was not set, now 128; "):
            make(volume, out, resume=True, predict=replace(PREDICT, tile=128, invert=True))
        with pytest.raises(DrososegError, match=r"--block was 2,128,128, now 1,128,128"):
            make(volume, out, resume=True, block=(1, 128, 128))
        with pytest.raises(DrososegError, match=r"--engine was torch, now openvino"):
            make(volume, out, resume=True, predict=replace(PREDICT, engine="openvino"))
        with pytest.raises(DrososegError, match=r"left by an interrupted run; use --resume"):
            make(volume, out)
        zarr.open_array(volume, mode="r+")[0, 0, 0] = 7
        assert "in.zarr' was changed since this volume was begun" in finished(make(volume, out, resume=True))[0]
        assert finished(make(volume, out, overwrite=True)) == ["done"]

    def test_keeps_to_what_the_first_run_fixed(self, make: Any, volume: Path, tmp_path: Path) -> None:
        out = tmp_path / "out.zarr"
        first = make(volume, out)
        interrupted(first, 3)
        fixed = Manifest(first.manifest.path).run["fixed"]
        assert (fixed["engine"], fixed["precision"], fixed["halo"]) == ("torch", "f32", 32)
        again = make(volume, out, resume=True)
        again.fixed["memory"] = fixed["memory"]
        assert finished(again) == ["done"]
        assert Manifest(first.manifest.path).run["fixed"] == fixed

    def test_knows_a_volume_that_was_killed_between_renaming_and_recording(
        self, make: Any, volume: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "out.zarr"
        batch = make(volume, out)
        assert finished(batch) == ["done"]
        path = batch.manifest.path
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(lines[:-2]))  # without the lines of the item and of the run's end
        assert finished(make(volume, out, resume=True)) == ["skipped"]
        out.rename(tmp_path / ".out.zarr.part")  # and before renaming
        assert finished(make(volume, out, resume=True)) == ["done"]

    def test_of_an_overwrite_that_was_stopped(self, make: Any, done: Any, volume: Path, tmp_path: Path) -> None:
        out = tmp_path / "out.zarr"
        done(volume, out)
        before = read_labels(out).read(0)
        interrupted(make(volume, out, overwrite=True, predict=replace(PREDICT, invert=True)), 3)
        np.testing.assert_array_equal(read_labels(out).read(0), before)  # until the new one is complete
        done(volume, out, resume=True, predict=replace(PREDICT, invert=True))
        assert not np.array_equal(read_labels(out).read(0), before)

    def test_never_replaces_another_zarr(self, make: Any, volume: Path, tmp_path: Path, content: Any) -> None:
        other = tmp_path / "other.zarr"
        zarr.create_array(other, data=np.arange(9))
        before = content(other)
        assert "contains something other than labels" in finished(make(volume, other, overwrite=True))[0]
        assert content(other) == before

    def test_twice_at_once_is_refused(self, make: Any, volume: Path, tmp_path: Path) -> None:
        first = make(volume, tmp_path / "out.zarr").run()
        next(first)
        with pytest.raises(DrososegError, match="Another run is writing"):
            next(make(volume, tmp_path / "out.zarr", overwrite=True).run())
        first.close()


def test_a_block_that_cannot_be_read_fails_with_its_reason_and_the_others_are_made(
    make: Any, volume: Path, tmp_path: Path, whole: Read
) -> None:
    next(p for p in (volume / "c" / "3").rglob("*") if p.is_file()).unlink()
    batch = make(volume, tmp_path / "out.zarr")
    error = finished(batch)[0]
    assert "c/3/" in error
    assert "is missing" in error
    manifest = Manifest(batch.manifest.path)
    assert {e[1] for e in manifest.blocks["out.zarr"]} == {0, 2}  # 1 holds section 3
    assert manifest.items["out.zarr"]["state"] == "failed"
    assert "missing" in manifest.items["out.zarr"]["error"]


def test_stop_finishes_the_block_and_keeps_it(make: Any, volume: Path, tmp_path: Path) -> None:
    batch = make(volume, tmp_path / "out.zarr")
    stopped = []
    states = []
    for event in batch.run(lambda: bool(stopped)):
        if event.kind == "progress" and event.done == 4:
            stopped.append(True)
        if event.outcome is not None:
            states.append(event.outcome.state)
    assert states == ["stopped"]
    assert len(Manifest(batch.manifest.path).blocks["out.zarr"]) == 4
    assert finished(make(volume, tmp_path / "out.zarr", resume=True)) == ["done"]


def test_statistics_are_those_of_the_sections(make: Any, volume: Path, tmp_path: Path) -> None:
    batch = make(volume, tmp_path / "out.zarr")
    interrupted(batch, 1)
    stack = read_stack(volume)
    reader = TileReader(stack, batch.card.spec.normalisation, PREDICT, str)
    kept = Manifest(batch.manifest.path).volumes["out.zarr"]["statistics"]
    assert {int(z): tuple(pair) for z, pair in kept.items()} == {
        z: (reader.statistics(z).mean, reader.statistics(z).std) for z in range(5)
    }


def test_tiles_cut_a_block_without_a_remainder(network: Path) -> None:
    class Large:
        shape, dtype, ndim = (1, 9000, 9000), np.dtype(np.uint8), 3

    from napari_drososeg.io import as_stack

    stack = as_stack(Large(), voxel_size=(50, 4.6, 4.6))
    predictor = Predictor(network, PREDICT)
    tile = tile_for_blocks(predictor, stack, block_shape(stack.shape), free=1 << 33)
    assert tile == 1024 + 2 * predictor.halo
    roi = slice(2048, 4096), slice(2048, 4096)
    assert [t.tile.write_shape for t in predictor.plan(stack, roi=roi, tile=tile)] == [(1024, 1024)] * 4
    small = tile_for_blocks(predictor, stack, block_shape(stack.shape), free=1 << 24)
    assert small < tile


def test_manifest_says_how_it_was_made(make: Any, volume: Path, tmp_path: Path) -> None:
    batch = make(volume, tmp_path / "out.zarr")
    assert finished(batch) == ["done"]
    run = Manifest(batch.manifest.path).run
    assert run["sha256"] == batch.card.sha256
    assert set(run["versions"]) >= {"torch", "numpy", "zarr"}
    assert len(run["configuration"]) == 64
    block = Manifest(batch.manifest.path).blocks["out.zarr"][(0, 1, 1, 0)]
    labels = read_labels(tmp_path / "out.zarr")
    region = np.stack([labels.read(z, slice(128, 200), slice(0, 128)) for z in (2, 3)])
    import hashlib

    assert block["labels"] == hashlib.blake2b(region.tobytes(), digest_size=16).hexdigest()
    assert block["counts"] == {str(z): np.bincount(region[z - 2].ravel(), minlength=4).tolist() for z in (2, 3)}
    assert block["where"].endswith(f":{os.getpid()}")


def test_a_full_disk_ends_the_run_and_not_only_its_blocks(
    make: Any, volume: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = make(volume, tmp_path / "out.zarr")
    monkeypatch.setattr("napari_drososeg.batch.volume.free_space", lambda _: 0)
    (volume / "c" / "0" / "0" / "0").write_bytes(b"damaged")  # one of the blocks fails, here for another reason
    assert "damaged" in finished(batch)[0]
    assert Manifest(batch.manifest.path).blocks["out.zarr"] == {}  # where 8 could be made


def test_threads_do_not_end_each_others_configuration(tmp_path: Path) -> None:
    """Blocks of zeros are written by any number of threads of a dask worker."""
    volume = LabelsVolume(tmp_path / "l.zarr", (1, 64, 4096), (1, 64, 64))
    volume.create(DROSOPHILA_CLASSES, (50.0, 4.6, 4.6), "l")
    before = zarr.config.get("array.write_empty_chunks")
    with ThreadPoolExecutor(8) as pool:
        written = pool.map(lambda k: volume.write(0, (0, 0, k), np.zeros((1, 64, 64), np.uint8)), range(64))
        assert len({block.file for block in written}) == 1
    assert zarr.config.get("array.write_empty_chunks") == before
