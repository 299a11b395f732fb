"""Labels out and in again, and what other programs see of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray
from PIL import Image

from napari_drososeg.classes import DROSOPHILA_CLASSES, ClassTable, SegmentationClass
from napari_drososeg.errors import DrososegError
from napari_drososeg.io import Stack, open_labels_writer, read_labels, read_stack, write_labels
from napari_drososeg.io.lazy import LazyArray
from napari_drososeg.io.targets import resolve_target

SIZE = (50.0, 4.6, 5.75)  # rows and columns apart, so that they cannot be exchanged
TARGETS = {"tiff": "a.tif", "ome-tiff": "a.ome.tif", "ome-zarr": "a.ome.zarr", "png": "a"}
RGB = [(0x56, 0xB4, 0xE9), (0xE6, 0x9F, 0x00), (0xCC, 0x79, 0xA7)]


@pytest.fixture
def labels() -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 4, (3, 70, 1101)).astype(np.uint8)


def left_over(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir() if p.name.endswith(".part")]


@pytest.mark.parametrize("form", TARGETS)
def test_round_trip(tmp_path: Path, labels: NDArray[np.uint8], form: str) -> None:
    path = write_labels(tmp_path / "new" / TARGETS[form], labels, voxel_size=SIZE, format=form)
    for read in (read_labels, read_stack):
        stack = read(path)
        np.testing.assert_array_equal(stack.data, labels)
        assert stack.voxel_size == SIZE
        assert stack.classes == DROSOPHILA_CLASSES
        assert stack.notices == ()
    assert left_over(path.parent) == []
    # a second time, onto the first
    assert write_labels(path, labels[:1], format=form) == path
    again = read_labels(path)
    assert (again.shape, again.voxel_size) == ((1, 70, 1101), (None, None, None))
    assert left_over(path.parent) == []


@pytest.mark.parametrize("form", TARGETS)
def test_tiles_in_any_order(tmp_path: Path, labels: NDArray[np.uint8], form: str) -> None:
    rng = np.random.default_rng(4)
    tiles = [(z, y, x) for z in range(3) for y in range(0, 70, 33) for x in range(0, 1101, 257)]
    with open_labels_writer(tmp_path / TARGETS[form], labels.shape, form, DROSOPHILA_CLASSES, SIZE) as writer:
        for i in rng.permutation(len(tiles)):
            z, y, x = tiles[i]
            part = labels[z, y : y + 33, x : x + 257]
            writer.write(z, part, (slice(y, y + part.shape[0]), slice(x, x + part.shape[1])))
    np.testing.assert_array_equal(read_labels(writer.path).data, labels)
    if form == "ome-zarr":
        group = zarr.open_group(str(writer.path), mode="r")
        np.testing.assert_array_equal(group["1"][:], labels[:, ::2, ::2])
        np.testing.assert_array_equal(group["2"][:], labels[:, ::4, ::4])


@pytest.mark.parametrize("form", TARGETS)
def test_what_is_not_written_is_unlabelled_and_complete(tmp_path: Path, form: str) -> None:
    with open_labels_writer(tmp_path / TARGETS[form], (3, 20, 30), form) as writer:
        writer.write(1, np.full((20, 30), 3))
        writer.write(2, np.full((4, 30), 2), (slice(8, 12), slice(None)))
    stack = read_stack(writer.path)  # refuses missing chunks
    assert [int(stack.read(z).sum()) for z in range(3)] == [0, 1800, 240]


@pytest.mark.parametrize("form", TARGETS)
def test_abort_leaves_nothing_and_keeps_what_was_there(tmp_path: Path, labels: NDArray[np.uint8], form: str) -> None:
    path = write_labels(tmp_path / TARGETS[form], labels, format=form)
    before = sorted(p.name for p in tmp_path.iterdir())
    writer = open_labels_writer(path, labels.shape, form)
    writer.write(0, labels[1])
    assert left_over(tmp_path)
    writer.abort()
    with pytest.raises(DrososegError, match="already closed"):
        writer.write(1, labels[1])
    assert writer.close() == path  # closed already: does nothing
    with pytest.raises(DrososegError, match="Label 300"), open_labels_writer(path, labels.shape, form) as writer:
        writer.write(0, labels[1].astype(int) + 300 - labels[1])
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    np.testing.assert_array_equal(read_labels(path).data, labels)


@pytest.mark.parametrize("form", TARGETS)
def test_damage_in_the_source_leaves_nothing(tmp_path: Path, form: str) -> None:
    class Broken(LazyArray):
        def read_region(self, z: int, ys: slice, xs: slice) -> NDArray[np.uint8]:
            if z == 2:
                raise DrososegError("in.tif is damaged")
            return np.ones((ys.stop - ys.start, xs.stop - xs.start), np.uint8)

    with pytest.raises(DrososegError, match=r"in\.tif"):
        write_labels(tmp_path / TARGETS[form], Stack(Broken((4, 8, 8), np.uint8), "x"), format=form)
    assert [p.name for p in tmp_path.iterdir() if not p.name.startswith("drososeg")] == []


def test_tiff_is_a_palette_stack_that_imagej_opens(tmp_path: Path, labels: NDArray[np.uint8]) -> None:
    path = write_labels(tmp_path / "a.tif", labels, voxel_size=SIZE)
    with tifffile.TiffFile(path) as tif:
        page = tif.pages[0]
        assert page.photometric.name == "PALETTE"
        assert [tuple(page.colormap[:, v] >> 8) for v in (1, 2, 3)] == RGB
        assert not tif.is_bigtiff
        meta = tif.imagej_metadata
        assert (meta["images"], meta["slices"], meta["unit"], meta["spacing"]) == (3, 3, "nm", 50)
        # ImageJ reads the sections from one run of bytes behind the first directory
        assert tif.series[0].dataoffset == page.dataoffsets[0]
        assert tif.series[0].axes == "ZYX"
    with Image.open(path) as image:  # another reader, with its own eyes for the palette
        assert (image.mode, image.n_frames) == ("P", 3)
        image.seek(2)
        rgb = np.asarray(image.convert("RGB"))
    for value, color in enumerate(RGB, start=1):
        assert (rgb[labels[2] == value] == color).all()


def test_ome_tiff_says_its_voxel_size(tmp_path: Path, labels: NDArray[np.uint8]) -> None:
    path = write_labels(tmp_path / "a.ome.tif", labels, voxel_size=SIZE)
    with tifffile.TiffFile(path) as tif:
        assert tif.is_ome
        for text in (
            'PhysicalSizeZ="50.0"',
            'PhysicalSizeY="4.6"',
            'PhysicalSizeX="5.75"',
            'PhysicalSizeXUnit="nm"',
            'SizeZ="3"',
        ):
            assert text in tif.ome_metadata
        assert tif.pages[0].photometric.name == "PALETTE"


def test_ome_zarr_metadata(tmp_path: Path, labels: NDArray[np.uint8]) -> None:
    path = write_labels(tmp_path / "a.ome.zarr", labels, voxel_size=SIZE)
    attributes = json.loads((path / "zarr.json").read_text())["attributes"]
    ome = attributes["ome"]
    assert ome["version"] == "0.5"
    multiscale = ome["multiscales"][0]
    assert [(a["name"], a["unit"]) for a in multiscale["axes"]] == [(a, "nanometer") for a in "zyx"]
    scales = [d["coordinateTransformations"][0]["scale"] for d in multiscale["datasets"]]
    np.testing.assert_allclose(scales, [[50, 4.6 * s, 5.75 * s] for s in (1, 2, 4)])
    assert [c["rgba"][:3] for c in ome["image-label"]["colors"]] == [list(c) for c in RGB]
    assert all((path / str(k) / "zarr.json").is_file() for k in range(3))


def test_ome_zarr_is_valid_for_ome_zarr_py(tmp_path: Path, labels: NDArray[np.uint8]) -> None:
    reader = pytest.importorskip("ome_zarr.reader", reason="ome-zarr is not installed")
    io = pytest.importorskip("ome_zarr.io")
    path = write_labels(tmp_path / "a.ome.zarr", labels, voxel_size=SIZE)
    nodes = list(reader.Reader(io.parse_url(str(path)))())
    assert any([tuple(level.shape) for level in node.data][:1] == [labels.shape] for node in nodes)


@pytest.mark.parametrize(("name", "form"), [("a.png", "tiff"), ("a.zarr", "tiff"), ("a.tif", "ome-zarr")])
def test_a_name_that_says_another_format_is_refused(
    tmp_path: Path, labels: NDArray[np.uint8], name: str, form: str
) -> None:
    with pytest.raises(DrososegError, match=f"{name} does not match the format '{form}'"):
        write_labels(tmp_path / name, labels, format=form)
    assert list(tmp_path.iterdir()) == []


def test_png_sections_have_the_palette(tmp_path: Path, labels: NDArray[np.uint8]) -> None:
    path = write_labels(tmp_path / "out", labels, voxel_size=SIZE, format="png")
    assert sorted(p.name for p in path.iterdir()) == ["0000.png", "0001.png", "0002.png"]
    with Image.open(path / "0001.png") as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.asarray(image), labels[1])
        assert (np.asarray(image.convert("RGB"))[labels[1] == 3] == RGB[2]).all()
        assert image.info["dpi"][0] == pytest.approx(2.54e7 / 5.75, rel=1e-6)
    one = write_labels(tmp_path / "one.png", labels[:1])
    assert one.is_file()
    assert write_labels(tmp_path / "many.png", labels) == tmp_path / "many"


@pytest.mark.parametrize("size", [0.05, 0.4656, 1e12])
def test_any_pixel_size_can_be_written(tmp_path: Path, labels: NDArray[np.uint8], size: float) -> None:
    for form, name in TARGETS.items():
        path = write_labels(tmp_path / name, labels, voxel_size=(50, size, size), format=form)
        assert read_labels(path).voxel_size == pytest.approx((50, size, size))


def test_own_classes_come_back(tmp_path: Path, labels: NDArray[np.uint8]) -> None:
    classes = ClassTable((SegmentationClass(1, "Zelle \u2014 ä", "#010203"), SegmentationClass(2, "b", "#FF0000")))
    for form, name in TARGETS.items():
        assert read_labels(write_labels(tmp_path / name, labels, classes=classes, format=form)).classes == classes


def test_values_that_are_no_labels_are_refused(tmp_path: Path) -> None:
    for wrong, match in (
        (np.full((2, 4, 4), 256), "Label 256"),
        (np.full((2, 4, 4), -1), "Label -1"),
        (np.zeros((2, 4, 4), float), "must be integers"),
        (np.zeros((2, 2, 4, 4), int), "not a stack"),
    ):
        with pytest.raises(DrososegError, match=match):
            write_labels(tmp_path / "a.tif", wrong)
    assert list(tmp_path.glob("*.tif")) == []
    wide = np.full((1, 4, 4), 200, np.int64)
    assert read_labels(write_labels(tmp_path / "a.tif", wide)).read(0).max() == 200


def test_targets_that_cannot_be(tmp_path: Path, labels: NDArray[np.uint8]) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.doc").write_text("precious")
    (tmp_path / "file").write_text("precious")
    for target, form, match in (
        ("full", "png", "something other"),
        ("file", "png", "is a file"),
        ("a.jpg", None, "cannot be determined"),
        ("a.tif", "jpeg", "Unknown format 'jpeg'"),
        ("file/a.tif", None, "cannot be made"),
    ):
        with pytest.raises(DrososegError, match=match):
            write_labels(tmp_path / target, labels, format=form)
    (tmp_path / "dir.tif").mkdir()
    with pytest.raises(DrososegError, match="is a folder"):
        write_labels(tmp_path / "dir.tif", labels)
    assert (tmp_path / "full" / "thesis.doc").read_text() == "precious"


@pytest.mark.parametrize("form", ["png", "ome-zarr"])
def test_what_lies_among_labels_is_not_deleted_with_them(tmp_path: Path, labels: NDArray[np.uint8], form: str) -> None:
    path = write_labels(tmp_path / TARGETS[form], labels, format=form)
    for name in (".DS_Store", "Thumbs.db", "._0000.png"):
        (path / name).touch()
    write_labels(path, labels, format=form)
    places = [".notes", "corrections/mine.txt"] if form == "png" else ["notes", "raw/zarr.json", "0/README"]
    for name in places:
        foreign = path / name
        foreign.parent.mkdir(exist_ok=True)
        foreign.write_text("hours of work")
        with pytest.raises(DrososegError, match=r"(notes|corrections|raw|0.README) is not part of"):
            write_labels(path, labels, format=form)
        assert foreign.read_text() == "hours of work"
        foreign.unlink()
        if foreign.parent not in (path, path / "0"):
            foreign.parent.rmdir()
    write_labels(path, labels, format=form)


def test_names_get_their_ending() -> None:
    assert resolve_target("x/out", "tiff", 3) == (Path("x/out.tif"), "tiff")
    assert resolve_target("x/out.TIFF", None, 3) == (Path("x/out.TIFF"), "tiff")
    assert resolve_target("x/out", "ome-zarr", 3) == (Path("x/out.ome.zarr"), "ome-zarr")
    assert resolve_target("x/out.ome.tiff", None, 3) == (Path("x/out.ome.tiff"), "ome-tiff")
    assert resolve_target("x/out.png", None, 1) == (Path("x/out.png"), "png")


def test_more_than_four_gigabytes_is_bigtiff(tmp_path: Path) -> None:
    """Sparse on disk: only two sections are really written."""
    shape = (3, 40000, 40000)
    writer = open_labels_writer(tmp_path / "big.tif", shape)
    writer.write(2, np.full((1, 40000), 3), (slice(39999, 40000), slice(None)))
    writer._release()  # without the sync of five gigabytes of holes
    with tifffile.TiffFile(writer.temporary) as tif:
        assert tif.is_bigtiff
    stack = read_labels(writer.temporary.rename(tmp_path / "big.tif"))
    assert stack.shape == shape
    assert stack.read(2, slice(39990, 40000), slice(0, 5)).sum() == 15
    assert stack.read(1, slice(0, 5), slice(0, 5)).sum() == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a device that is always full")
def test_a_full_disk_leaves_nothing(tmp_path: Path, labels: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch) -> None:
    writer = open_labels_writer(tmp_path / "a.tif", labels.shape)
    with Path("/dev/full").open("wb", buffering=0) as full, monkeypatch.context() as patch:
        own = writer._file
        patch.setattr(writer, "_file", full)
        with pytest.raises(DrososegError, match=r"a\.tif cannot be written: No space left"):
            writer.write(0, labels[0])
        patch.setattr(writer, "_file", own)
        writer.abort()
    assert list(tmp_path.glob("*.tif*")) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a device that is always full")
def test_a_full_disk_is_named_although_closing_the_file_fails_again(
    tmp_path: Path, labels: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = open_labels_writer(tmp_path / "a.tif", labels.shape)
    writer._file.close()
    # Buffered, as the writer's own file is, which is what closing it trips over.
    monkeypatch.setattr(writer, "_file", Path("/dev/full").open("wb"))  # noqa: SIM115
    with pytest.raises(DrososegError, match=r"a\.tif cannot be written: No space left"), writer:
        writer.write(0, labels[0, :, :50], (slice(None), slice(0, 50)))
    assert list(tmp_path.iterdir()) == []
