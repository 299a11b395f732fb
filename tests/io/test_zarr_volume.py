"""Labels written block by block."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import zarr

from napari_drososeg.classes import DROSOPHILA_CLASSES
from napari_drososeg.errors import DrososegError
from napari_drososeg.io import read_labels
from napari_drososeg.io.atomic import remove_leftovers, temporary_sibling
from napari_drososeg.io.zarr_volume import BLOCK, CHUNK, LabelsVolume, block_shape


@pytest.fixture
def volume(tmp_path: Path) -> LabelsVolume:
    made = LabelsVolume(tmp_path / "labels.zarr", (3, 1037, 600), (2, 256, 256))
    made.create(DROSOPHILA_CLASSES, (50, 4.6, 4.6), "labels")
    return made


def test_blocks_cover_every_pixel_once(volume: LabelsVolume) -> None:
    for level, shape in enumerate(volume.shapes):
        times = np.zeros(shape, int)
        for index in volume.blocks(level):
            times[volume.region(level, index)] += 1
        assert (times == 1).all()
    assert volume.shapes == [(3, 1037, 600), (3, 519, 300), (3, 260, 150)]
    assert volume.n_blocks() == 2 * 5 * 3


def test_what_is_written_is_read_at_every_level(volume: LabelsVolume) -> None:
    labels = np.random.default_rng(0).integers(0, 4, volume.shape, dtype=np.uint8)
    labels[:2, :256, :256] = 0
    for level in range(3):
        for index in volume.blocks(level):
            region = volume.region(level, index)
            written = volume.write(level, index, volume.half(level, index) if level else labels[region])
            assert volume.is_intact(level, index, written.file)
            assert volume.file(level, index).stat().st_size == written.n_bytes
    found = read_labels(volume.path)
    assert found.voxel_size == (50, 4.6, 4.6)
    np.testing.assert_array_equal(np.stack([found.read(z) for z in range(3)]), labels)
    for level in (1, 2):
        expected = labels[:, :: 2**level, :: 2**level]
        np.testing.assert_array_equal(zarr.open_array(volume.path / str(level), mode="r")[:], expected)


def test_the_same_labels_give_the_same_file_whatever_was_there(volume: LabelsVolume) -> None:
    labels = np.full((2, 256, 256), 2, np.uint8)
    first = volume.write(0, (0, 0, 0), labels)
    volume.write(0, (0, 0, 0), np.random.default_rng(0).integers(0, 4, labels.shape, dtype=np.uint8))
    assert not volume.is_intact(0, (0, 0, 0), first.file)
    volume.file(0, (0, 0, 0)).write_bytes(b"half a shard")
    assert volume.write(0, (0, 0, 0), labels) == first
    assert not volume.is_intact(0, (0, 1, 1), first.file)


def test_blocks_are_no_larger_than_needed() -> None:
    assert block_shape((100, 9000, 9000)) == BLOCK
    assert block_shape((3, 1037, 600)) == (3, 2 * CHUNK, 600)
    assert block_shape((3, 1037, 600), (1, 64, 1024)) == (1, 64, 600)


@pytest.mark.parametrize("block", [(0, 64, 64), (1, CHUNK + 1, 64)])
def test_blocks_that_cannot_be_written_are_refused(block: tuple[int, int, int]) -> None:
    with pytest.raises(DrososegError, match="cannot be written; give three numbers"):
        LabelsVolume(Path("x"), (1, 5000, 5000), block)


def test_a_full_disk_is_named(volume: LabelsVolume) -> None:
    folder = volume.path / "0" / "c"
    folder.mkdir()
    folder.joinpath("0").write_bytes(b"")  # no folder can be made here
    with pytest.raises(DrososegError, match=r"labels.zarr cannot be written"):
        volume.write(0, (0, 0, 0), np.zeros((2, 256, 256), np.uint8))


def test_leftovers_are_told_from_other_files(tmp_path: Path) -> None:
    target = tmp_path / "a.tif"
    left = temporary_sibling(target)
    others = [tmp_path / name for name in (".a.tif.part", ".a.tif.notes123.part", ".b.tif.0123abcd.part")]
    for path in (left, *others):
        path.write_bytes(b"x")
    remove_leftovers(target)
    assert not left.exists()
    assert all(p.exists() for p in others)


def test_writers_killed_in_a_shard_leave_nothing(volume: LabelsVolume) -> None:
    for level, name in product("01", ("0.12ab.partial", "kept")):
        (volume.path / level / name).write_bytes(b"x")
    volume.tidy()
    assert sorted(p.name for p in volume.path.rglob("*") if p.name in ("kept", "0.12ab.partial")) == ["kept", "kept"]
