"""Files that are really damaged: each gives one sentence that names the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray
from PIL import Image

from napari_drososeg.errors import DrososegError
from napari_drososeg.io import read_labels, read_stack


@pytest.fixture
def volume() -> NDArray[np.uint8]:
    return np.random.default_rng(2).integers(1, 255, (6, 48, 64)).astype(np.uint8)


def refused(path: Path, match: str, named: str | None = None) -> None:
    """Opening, or at the latest reading all of it, must raise the one error."""
    with pytest.raises(DrososegError, match=match) as caught:
        np.asarray(read_stack(path).data)
    text = str(caught.value)
    assert (named or path.name) in text
    assert "\n" not in text


KINDS = {
    "plain": {"metadata": None},
    "imagej": {"imagej": True},
    "shaped": {},
    "zlib": {"compression": "zlib", "metadata": None},
    "tiles": {"tile": (16, 16), "metadata": None},
    "ome": {"ome": True, "metadata": {"axes": "ZYX"}},
    "big": {"bigtiff": True, "metadata": None},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("left", [0.9, 0.5, 0.2])
def test_tiff_cut_short(tmp_path: Path, volume: NDArray[np.uint8], kind: str, left: float) -> None:
    path = tmp_path / "cut.tif"
    tifffile.imwrite(path, volume, photometric="minisblack", **KINDS[kind])
    whole = path.read_bytes()
    path.write_bytes(whole[: int(left * len(whole))])
    refused(path, "damaged|cut short|not a TIFF")


def test_tiff_pages_written_one_by_one_and_cut(tmp_path: Path, volume: NDArray[np.uint8]) -> None:
    path = tmp_path / "cut.tif"
    with tifffile.TiffWriter(path) as tif:
        for section in volume:
            tif.write(section, contiguous=False, metadata=None)
    with tifffile.TiffFile(path) as tif:
        third = tif.pages[2].dataoffsets[0]
    path.write_bytes(path.read_bytes()[: third + 10])
    refused(path, "cut short")


def test_imagej_that_declares_more_than_it_holds(tmp_path: Path, volume: NDArray[np.uint8]) -> None:
    path = tmp_path / "short.tif"
    with tifffile.TiffWriter(path) as tif:
        for i, section in enumerate(volume):
            text = "ImageJ=1.53\nimages=20\nslices=20\n" if i == 0 else None
            tif.write(section, contiguous=False, metadata=None, description=text, compression="zlib")
    refused(path, "6 of 20 sections are there")


def test_ome_that_declares_more_than_it_holds(tmp_path: Path, volume: NDArray[np.uint8]) -> None:
    path = tmp_path / "short.ome.tif"
    tifffile.imwrite(path, volume, ome=True, metadata={"axes": "ZYX"}, compression="zlib")
    data = path.read_bytes().replace(b'SizeZ="6"', b'SizeZ="9"').replace(b'PlaneCount="6"', b'PlaneCount="9"')
    path.write_bytes(data)
    refused(path, "damaged|cut short")


def test_bytes_overwritten_inside_compressed_data(tmp_path: Path, volume: NDArray[np.uint8]) -> None:
    path = tmp_path / "noise.tif"
    tifffile.imwrite(path, volume, compression="zlib", metadata=None)
    with tifffile.TiffFile(path) as tif:
        offset, count = tif.pages[3].dataoffsets[0], tif.pages[3].databytecounts[0]
    data = bytearray(path.read_bytes())
    data[offset : offset + count] = b"\x55" * count
    path.write_bytes(data)
    refused(path, "Page 4 of .* damaged")
    np.testing.assert_array_equal(read_stack(path).read(2), volume[2])  # the others can still be read


@pytest.mark.parametrize("name", ["a.tif", "a.png"])
def test_empty_and_foreign_files(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.touch()
    refused(path, r"is empty \(0 bytes\)")
    path.write_bytes(b"this is a letter, no image" * 20)
    refused(path, "is not a")


def test_a_file_that_may_not_be_read_is_not_called_damaged(
    tmp_path: Path, volume: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [tmp_path / "a.tif", tmp_path / "b.tif"]
    for file in files:
        tifffile.imwrite(file, volume[0])

    def locked(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(tifffile, "TiffFile", locked)
    for chosen in (files[0], tmp_path, files):
        with pytest.raises(DrososegError, match="a.tif cannot be read: Permission denied"):
            read_stack(chosen)


def test_pages_of_different_sizes(tmp_path: Path, volume: NDArray[np.uint8]) -> None:
    path = tmp_path / "mixed.tif"
    with tifffile.TiffWriter(path) as tif:
        tif.write(volume[0], metadata=None)
        tif.write(volume[1, :40], metadata=None)
    refused(path, "page 2 is 40 x 64")
    with tifffile.TiffWriter(path) as tif:
        tif.write(volume[0], photometric="minisblack")
        tif.write(volume[1], photometric="miniswhite")
    refused(path, "page 2 is 48 x 64 uint8 miniswhite, page 1 is 48 x 64 uint8 minisblack")


def test_a_page_of_its_own_is_named_by_its_number(tmp_path: Path, volume: NDArray[np.uint8]) -> None:
    path = tmp_path / "a.tif"
    for i, section in enumerate(volume):
        tifffile.imwrite(path, section, append=i > 0, compression="zlib")
    path.write_bytes(path.read_bytes()[:-100])
    refused(path, "page 6 needs")


def test_colours_for_print_are_refused(tmp_path: Path, volume: NDArray[np.uint8]) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(np.stack([volume[0]] * 3, -1)).convert("CMYK").save(path)
    refused(path, "CMYK.*save it as grey or RGB")


def test_an_error_without_words_is_named(tmp_path: Path, volume: NDArray[np.uint8]) -> None:
    tifffile.imwrite(tmp_path / "a.tif", volume, compression="zlib")
    section = read_stack(tmp_path / "a.tif").data.sections[0]

    def decode(*_: object, **__: object) -> None:
        raise AssertionError

    section._keyframe.decode = decode
    with pytest.raises(DrososegError, match=r"cannot be decoded \(AssertionError\)"):
        section.read(slice(0, 4), slice(0, 4))


@pytest.mark.parametrize("cut", [0.95, 0.5])
def test_png_cut_short(tmp_path: Path, volume: NDArray[np.uint8], cut: float) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(volume[0]).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(cut * len(whole))])
    refused(path, "cut short")


def test_png_with_damaged_data(tmp_path: Path, volume: NDArray[np.uint8]) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(volume[0]).save(path)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 40] = bytes(40)
    path.write_bytes(data)
    refused(path, "damaged")


@pytest.fixture
def folder(tmp_path: Path, volume: NDArray[np.uint8]) -> Path:
    folder = tmp_path / "raw"
    folder.mkdir()
    for i, section in enumerate(volume):
        tifffile.imwrite(folder / f"{i:02d}.tif", section)
    return folder


def test_folder_with_one_bad_section(folder: Path, volume: NDArray[np.uint8]) -> None:
    bad = folder / "03.tif"
    bad.write_bytes(bad.read_bytes()[:900])
    refused(folder, "cut short", "03.tif")
    tifffile.imwrite(bad, volume[0, :40])
    refused(folder, r"differs in size \(40 x 64\) from 00.tif \(48 x 64\)", "03.tif")
    tifffile.imwrite(bad, volume[0].astype(np.uint16))
    refused(folder, "differs in type", "03.tif")
    tifffile.imwrite(bad, volume)
    refused(folder, "has 6 pages", "03.tif")
    bad.write_bytes(b"")
    refused(folder, "is empty", "03.tif")


def test_folder_with_a_link_to_nothing(folder: Path) -> None:
    (folder / "03.tif").unlink()
    (folder / "03.tif").symlink_to(folder / "gone.tif")
    refused(folder, "is a link to a file that is not there", "03.tif")


def test_mixed_and_empty_folders(folder: Path, tmp_path: Path, volume: NDArray[np.uint8]) -> None:
    (folder / ".DS_Store").write_text("x")
    (folder / "Thumbs.db").write_text("x")
    assert read_stack(folder).n_sections == 6
    (folder / "notes.txt").write_text("x")
    refused(folder, "files other than", "notes.txt")
    (folder / "notes.txt").unlink()
    Image.fromarray(volume[0]).save(folder / "99.png")
    refused(folder, "mixes TIFF and PNG", "99.png")
    (tmp_path / "none").mkdir()
    refused(tmp_path / "none", "holds no TIFF or PNG")
    refused(tmp_path, "its folder raw does")


def test_what_is_not_there_or_not_ours(tmp_path: Path) -> None:
    refused(tmp_path / "nothing.tif", "does not exist")
    (tmp_path / "a.jpg").write_bytes(b"x")
    refused(tmp_path / "a.jpg", "is not a TIFF, PNG or zarr file")
    with pytest.raises(DrososegError, match="No path"):
        read_stack([])


@pytest.mark.parametrize("version", [2, 3])
def test_missing_and_damaged_zarr_chunks(
    tmp_path: Path, volume: NDArray[np.uint8], version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.zarr"
    array = zarr.create_array(str(path), data=volume, chunks=(1, 24, 64), zarr_format=version)
    lost = path / array.metadata.encode_chunk_key((4, 1, 0))
    kept = lost.read_bytes()
    lost.unlink()
    stack = read_stack(path)
    np.testing.assert_array_equal(stack.read(3), volume[3])
    np.testing.assert_array_equal(stack.read(4, slice(0, 24)), volume[4, :24])
    refused(path, "is missing")
    monkeypatch.setenv("DROSOSEG_MISSING_CHUNKS", "fill")
    assert not read_stack(path).read(4)[24:].any()
    monkeypatch.delenv("DROSOSEG_MISSING_CHUNKS")
    assert not read_labels(path).read(4)[24:].any()
    lost.write_bytes(kept[: len(kept) // 2])
    refused(path, "damaged")


def test_missing_shard(tmp_path: Path, volume: NDArray[np.uint8]) -> None:
    path = tmp_path / "a.zarr"
    array = zarr.create_array(str(path), data=volume, chunks=(1, 12, 16), shards=(2, 24, 32))
    (path / array.metadata.encode_chunk_key((1, 0, 1))).unlink()
    refused(path, "is missing")


def test_zarr_without_chunks_or_metadata(tmp_path: Path, volume: NDArray[np.uint8]) -> None:
    path = tmp_path / "a.zarr"
    zarr.create_array(str(path), shape=volume.shape, dtype=volume.dtype, chunks=(1, 24, 64))
    refused(path, "contains no chunks")
    (path / "zarr.json").write_text("{ not json")
    refused(path, "cannot be read as zarr")
    (path / "zarr.json").unlink()
    refused(path, "no zarr metadata")


def test_zarr_group_that_is_no_image(tmp_path: Path, volume: NDArray[np.uint8]) -> None:
    group = zarr.create_group(str(tmp_path / "a.zarr"))
    group.create_array("raw", data=volume)
    np.testing.assert_array_equal(read_stack(tmp_path / "a.zarr").data, volume)  # only one: that one
    group.create_array("other", data=volume)
    refused(tmp_path / "a.zarr", "open one of its contents: other, raw")
    np.testing.assert_array_equal(read_stack(tmp_path / "a.zarr" / "raw").data, volume)


def test_labels_must_be_integers(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((2, 4, 4), np.float32), photometric="minisblack")
    with pytest.raises(DrososegError, match="whole numbers"):
        read_labels(tmp_path / "a.tif")
