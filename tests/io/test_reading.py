"""The reader against every format it knows."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from napari_drososeg.errors import DrososegError
from napari_drososeg.io import Stack, as_stack, read_labels, read_stack
from napari_drososeg.io.lazy import LazyArray
from napari_drososeg.io.zarr_stack import ZarrSections

SHAPE = (5, 40, 56)


@pytest.fixture
def volume() -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 255, SHAPE).astype(np.uint8)


def folder_of(volume: NDArray[np.uint8], folder: Path, ending: str = ".tif") -> Path:
    folder.mkdir()
    for i, section in enumerate(volume):
        # s8, s9, s10: only a natural sort keeps the order
        name = folder / f"s{i + 8}{ending}"
        if ending == ".png":
            Image.fromarray(section).save(name)
        else:
            tifffile.imwrite(name, section)
    return folder


@pytest.mark.parametrize("ending", [".tif", ".png"])
def test_folder_in_natural_order(tmp_path: Path, volume: NDArray[np.uint8], ending: str) -> None:
    stack = read_stack(folder_of(volume, tmp_path / "raw", ending))
    np.testing.assert_array_equal(stack.data, volume)
    assert (stack.name, stack.shape, stack.voxel_size) == ("raw", SHAPE, (None, None, None))


def test_list_of_files_is_one_stack(tmp_path: Path, volume: NDArray[np.uint8]) -> None:
    folder = folder_of(volume, tmp_path / "raw")
    files = sorted(folder.iterdir())
    np.testing.assert_array_equal(read_stack(files).data, volume)
    for name in ("x.zarr", "x.png"):
        (tmp_path / name).mkdir()
        with pytest.raises(DrososegError, match="is a folder; the sections of one stack are files"):
            read_stack([*files, tmp_path / name])


TIFF_KINDS = {
    "plain": {},
    "big": {"bigtiff": True},
    "big-endian": {"byteorder": ">"},
    "zlib strips": {"compression": "zlib", "rowsperstrip": 7},
    "zlib predictor": {"compression": "zlib", "predictor": True, "rowsperstrip": 11},
    "lzw tiles": {"compression": "lzw", "tile": (16, 32)},
    "tiles": {"tile": (16, 16)},
    "strips": {"rowsperstrip": 9},
    "imagej": {"imagej": True, "metadata": {"axes": "ZYX"}},
    "ome": {"ome": True, "metadata": {"axes": "ZYX"}},
    "ome zlib": {"ome": True, "metadata": {"axes": "ZYX"}, "compression": "zlib"},
    "no metadata": {"metadata": None},
}


@pytest.mark.parametrize("kind", TIFF_KINDS)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_tiff_whole_and_by_region(tmp_path: Path, volume: NDArray[np.uint8], kind: str, dtype: str) -> None:
    if kind == "imagej" and dtype == "int16":
        pytest.skip("ImageJ has no int16")
    expected = (volume.astype(dtype) * (3 if dtype != "uint8" else 1)).astype(dtype)
    path = tmp_path / ("a.ome.tif" if "ome" in kind else "a.tif")
    tifffile.imwrite(path, expected, photometric="minisblack", **TIFF_KINDS[kind])
    stack = read_stack(path)
    assert stack.dtype == np.dtype(dtype)
    assert stack.dtype.isnative
    assert stack.name == "a"
    np.testing.assert_array_equal(stack.data, expected)
    region = stack.read(1, slice(5, 23), slice(13, 50))
    np.testing.assert_array_equal(region, expected[1, 5:23, 13:50])
    assert region.flags.writeable


@pytest.mark.parametrize(
    "kinds",
    [
        [{"photometric": "minisblack"}],
        [{"description": "section"}],
        [{"compression": "zlib"}, {}],
        [{"compression": "zlib", "metadata": None}, {"metadata": None}],
    ],
    ids=["pages", "descriptions", "compression", "compression without metadata"],
)
def test_tiff_pages_written_one_by_one_are_one_stack(
    tmp_path: Path, volume: NDArray[np.uint8], kinds: list[dict[str, object]]
) -> None:
    path = tmp_path / "a.tif"
    for i, section in enumerate(volume):
        tifffile.imwrite(path, section, append=i > 0, **kinds[i % len(kinds)])
    np.testing.assert_array_equal(read_stack(path).data, volume)


def test_jpeg_tiff(tmp_path: Path, volume: NDArray[np.uint8]) -> None:
    pytest.importorskip("imagecodecs")
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, volume, compression="jpeg", tile=(16, 16), photometric="minisblack")
    stack: Stack = pickle.loads(pickle.dumps(read_stack(path)))
    np.testing.assert_array_equal(stack.data, tifffile.imread(path))


def test_region_of_large_compressed_section_reads_only_its_strips(
    tmp_path: Path, volume: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_drososeg.io.lazy._WHOLE_SECTION_BYTES", 1)
    tifffile.imwrite(tmp_path / "a.tif", volume, compression="zlib", tile=(16, 16))
    stack = read_stack(tmp_path / "a.tif")
    section = stack.data.sections[1]
    wanted = set(section._segments(slice(17, 30), slice(33, 47)))
    assert wanted == {1 * 4 + 2}  # one tile of three by four
    broken = bytearray((tmp_path / "a.tif").read_bytes())
    for i, (offset, count) in enumerate(zip(section._offsets, section._counts, strict=True)):
        if i not in wanted:
            broken[offset : offset + count] = b"\xff" * count
    (tmp_path / "a.tif").write_bytes(broken)
    np.testing.assert_array_equal(stack.read(1, slice(17, 30), slice(33, 47)), volume[1, 17:30, 33:47])
    with pytest.raises(DrososegError, match=r"Page 2 of .*a\.tif is damaged"):
        stack.read(1)


@pytest.mark.parametrize("kind", ["png", "one strip", "one strip a plane"])
def test_large_section_that_decodes_only_whole_is_decoded_once(
    tmp_path: Path, volume: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("napari_drososeg.io.lazy._WHOLE_SECTION_BYTES", 1)
    monkeypatch.setattr("napari_drososeg.io.lazy._CACHE_BYTES", 1)
    folder = tmp_path / "raw"
    if kind == "png":
        folder_of(volume[:2], folder, ".png")
    else:
        folder.mkdir()
        for i, section in enumerate(volume[:2]):
            rgb = {"photometric": "rgb", "planarconfig": "separate"} if "plane" in kind else {}
            pixels = np.stack([section] * 3) if rgb else section
            tifffile.imwrite(folder / f"{i}.tif", pixels, compression="zlib", rowsperstrip=SHAPE[1], **rgb)
    stack = read_stack(folder)
    for z, file in enumerate(sorted(folder.iterdir(), key=lambda f: (len(f.name), f.name))):
        np.testing.assert_array_equal(stack.read(z, slice(0, 9)), volume[z, :9])
        file.unlink()
        np.testing.assert_array_equal(stack.read(z, slice(9, 40), slice(3, 20)), volume[z, 9:, 3:20])
    with pytest.raises(DrososegError):  # only one is kept: large sections would fill the memory
        stack.read(0)


@given(key=st.tuples(*(st.one_of(st.integers(-n, n - 1), st.slices(n)) for n in SHAPE)))
@settings(max_examples=60, deadline=None)
def test_lazy_indexing_is_numpy_indexing(key: tuple[int | slice, ...]) -> None:
    expected = np.arange(np.prod(SHAPE), dtype=np.int32).reshape(SHAPE)

    class Counting(LazyArray):
        def read_region(self, z: int, ys: slice, xs: slice) -> NDArray[np.int32]:
            return expected[z, ys, xs].copy()

    lazy = Counting(SHAPE, np.int32)
    np.testing.assert_array_equal(lazy[key], expected[key])
    np.testing.assert_array_equal(lazy[..., key[2]], expected[..., key[2]])


def test_imagej_voxel_size(tmp_path: Path, volume: NDArray[np.uint8]) -> None:
    for unit, factor in (("nm", 1), ("micron", 1000), ("\\u00B5m", 1000)):
        tifffile.imwrite(
            tmp_path / "a.tif",
            volume,
            imagej=True,
            resolution=(factor / 4.6, factor / 5.0),
            metadata={"axes": "ZYX", "unit": unit, "spacing": 50 / factor},
        )
        assert read_stack(tmp_path / "a.tif").voxel_size == pytest.approx((50, 5.0, 4.6), rel=1e-5)


@pytest.mark.parametrize(("unit", "factor"), [("inch", 2.54e7), ("cm", 1e7)])
def test_imagej_dots_per_inch_count_only_where_plausible(
    tmp_path: Path, volume: NDArray[np.uint8], unit: str, factor: float
) -> None:
    metadata = {"axes": "ZYX", "unit": unit, "spacing": 1.0}
    tifffile.imwrite(tmp_path / "a.tif", volume, imagej=True, resolution=(72, 72), metadata=metadata)
    assert read_stack(tmp_path / "a.tif").voxel_size == (None, None, None)
    size = (factor / 4.6, factor / 4.6)
    metadata["spacing"] = 50 / factor
    tifffile.imwrite(tmp_path / "b.tif", volume, imagej=True, resolution=size, metadata=metadata)
    assert read_stack(tmp_path / "b.tif").voxel_size == pytest.approx((50, 4.6, 4.6), rel=1e-5)


def test_ome_voxel_size_in_its_units(tmp_path: Path, volume: NDArray[np.uint8]) -> None:
    metadata = {
        "axes": "ZYX",
        "PhysicalSizeX": 46.0,
        "PhysicalSizeXUnit": "Å",
        "PhysicalSizeY": 0.0046,  # micrometres unless it says otherwise
        "PhysicalSizeZ": 50,
        "PhysicalSizeZUnit": "nm",
    }
    tifffile.imwrite(tmp_path / "a.ome.tif", volume, ome=True, metadata=metadata)
    assert read_stack(tmp_path / "a.ome.tif").voxel_size == pytest.approx((50, 4.6, 4.6))


def test_resolution_tag_counts_only_where_plausible(tmp_path: Path, volume: NDArray[np.uint8]) -> None:
    tifffile.imwrite(tmp_path / "a.tif", volume, resolution=(1e7 / 4.6, 1e7 / 4.6), resolutionunit="CENTIMETER")
    assert read_stack(tmp_path / "a.tif").voxel_size == pytest.approx((None, 4.6, 4.6))
    tifffile.imwrite(tmp_path / "b.tif", volume, resolution=(300, 300), resolutionunit="INCH")
    assert read_stack(tmp_path / "b.tif").voxel_size == (None, None, None)


def test_axes_of_length_one_are_squeezed_and_longer_refused(tmp_path: Path, volume: NDArray[np.uint8]) -> None:
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, volume[None, :, None], ome=True, metadata={"axes": "TZCYX"})
    np.testing.assert_array_equal(read_stack(path).data, volume)
    tifffile.imwrite(path, volume[:, None], ome=True, metadata={"axes": "CZYX"}, photometric="minisblack")
    with pytest.raises(DrososegError, match="5 channels"):
        read_stack(path)
    tifffile.imwrite(tmp_path / "t.tif", volume, imagej=True, metadata={"axes": "TYX"})
    with pytest.raises(DrososegError, match="5 time points"):
        read_stack(tmp_path / "t.tif")
    # as GDAL and Matlab write channels; not to be taken for colours
    tifffile.imwrite(tmp_path / "c.tif", volume, photometric="minisblack", planarconfig="separate")
    with pytest.raises(DrososegError, match="5 channels"):
        read_stack(tmp_path / "c.tif")


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_rgb_tiff_becomes_grey_with_a_notice(
    tmp_path: Path, volume: NDArray[np.uint8], planar: str, compression: str | None
) -> None:
    grey = volume[0]
    rgb = np.stack([grey] * 3, 0 if planar == "separate" else -1)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, rgb, photometric="rgb", planarconfig=planar, compression=compression)
    stack = read_stack(path)
    np.testing.assert_array_equal(stack.data[0], grey)
    np.testing.assert_array_equal(stack.read(0, slice(3, 9), slice(4, 33)), grey[3:9, 4:33])
    assert stack.notices == ("a.tif: colour was converted to grey",)
    with pytest.raises(DrososegError, match="colour image"):
        read_labels(path)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "L", "P", "1", "I;16"])
def test_png_modes(tmp_path: Path, volume: NDArray[np.uint8], mode: str) -> None:
    path = tmp_path / "a.png"
    expected = volume[0] if mode != "1" else (volume[0] > 99).astype(np.uint8)
    if mode == "I;16":
        expected = volume[0].astype(np.uint16) * 200
        Image.fromarray(expected).save(path)
    elif mode == "1":
        Image.fromarray(expected * 255).convert("1").save(path)
    elif mode == "P":
        image = Image.fromarray(volume[0]).convert("P")
        image.putpalette(np.repeat(np.arange(256, dtype=np.uint8)[::-1], 3).tobytes())
        image.save(path)
        np.testing.assert_array_equal(read_labels(path).data[0], volume[0])
        expected = 255 - volume[0]
    else:
        Image.fromarray(volume[0]).convert(mode).save(path)
    stack = read_stack(path)
    np.testing.assert_array_equal(stack.data[0], expected)
    assert stack.shape == (1, 40, 56)
    assert stack.dtype == expected.dtype
    assert bool(stack.notices) == (mode in ("RGB", "RGBA", "LA", "P"))


def test_white_is_zero_is_inverted_with_a_notice(tmp_path: Path, volume: NDArray[np.uint8]) -> None:
    tifffile.imwrite(tmp_path / "a.tif", volume, photometric="miniswhite")
    stack = read_stack(tmp_path / "a.tif")
    np.testing.assert_array_equal(stack.data, 255 - volume)
    assert "inverted" in stack.notices[0]


def test_palette_tiff_gives_indices_as_labels_and_grey_as_image(tmp_path: Path, volume: NDArray[np.uint8]) -> None:
    colors = np.repeat((np.arange(256)[::-1] * 257).astype(np.uint16)[None], 3, 0)
    tifffile.imwrite(tmp_path / "a.tif", volume, photometric="palette", colormap=colors)
    np.testing.assert_array_equal(read_labels(tmp_path / "a.tif").data, volume)
    np.testing.assert_array_equal(read_stack(tmp_path / "a.tif").data, 255 - volume)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("chunks", [(1, 16, 16), (2, 40, 56), (3, 7, 56)])
def test_plain_zarr(tmp_path: Path, volume: NDArray[np.uint8], version: int, chunks: tuple[int, ...]) -> None:
    path = tmp_path / "a.zarr"
    array = zarr.create_array(str(path), data=volume, chunks=chunks, zarr_format=version)
    array.attrs.update({"voxel_size": [50, 4.6, 4.6], "units": ["nm", "nm", "nm"]})
    stack = read_stack(path)
    np.testing.assert_array_equal(stack.data, volume)
    np.testing.assert_array_equal(stack.read(2, slice(3, 31), slice(14, 20)), volume[2, 3:31, 14:20])
    assert stack.voxel_size == (50, 4.6, 4.6)
    assert stack.name == "a"


def test_plain_zarr_whose_axes_have_names(tmp_path: Path, volume: NDArray[np.uint8]) -> None:
    def read(version: int, **said: object) -> Stack:
        zarr.create_array(str(tmp_path / "a.zarr"), data=volume, zarr_format=version, overwrite=True, **said)
        return read_stack(tmp_path / "a.zarr")

    for names in (("z", "y", "x"), ("depth", "height", "width")):
        np.testing.assert_array_equal(read(3, dimension_names=names).data, volume)
        np.testing.assert_array_equal(read(2, attributes={"_ARRAY_DIMENSIONS": names}).data, volume)
    with pytest.raises(DrososegError, match="with axes 'xyz'; a stack needs"):
        read(3, dimension_names=("x", "y", "z"))
    with pytest.raises(DrososegError, match="with axes 'xyz'; a stack needs"):
        read(2, attributes={"_ARRAY_DIMENSIONS": ["x", "y", "z"]})


def test_deep_chunks_are_decoded_once_for_all_tiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Section by section, each whole and then tile by tile, as a prediction reads."""
    volume = np.random.default_rng(0).integers(0, 255, (9, 40, 60), np.uint8)
    zarr.create_array(str(tmp_path / "deep.zarr"), data=volume, chunks=(4, 20, 20))
    stack = read_stack(tmp_path / "deep.zarr")
    decoded: list[tuple[slice, slice, slice]] = []
    read = ZarrSections._read

    def counting(self: ZarrSections, *part: slice) -> NDArray[np.uint8]:
        decoded.append(part)
        return read(self, *part)

    monkeypatch.setattr(ZarrSections, "_read", counting)
    parts = [(slice(0, 40), slice(0, 60)), (slice(0, 25), slice(0, 35)), (slice(15, 40), slice(25, 60))]
    for z in range(9):
        for ys, xs in parts:
            np.testing.assert_array_equal(stack.read(z, ys, xs), volume[z, ys, xs])
    assert len(decoded) == len(set(map(repr, decoded))) == 3 * len(parts), "three chunks deep"
    assert {z for z, *_ in stack.data._slabs} == {8}, "of sections before nothing is kept"
    monkeypatch.setattr("napari_drososeg.io.zarr_stack._SLAB_BYTES", 4 * 25 * 35)
    for z in range(4):
        for ys, xs in parts[1:]:
            np.testing.assert_array_equal(stack.read(z, ys, xs), volume[z, ys, xs])
    assert len(stack.data._slabs) == 1, "what does not fit is not kept"


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr(tmp_path: Path, volume: NDArray[np.uint8], version: str) -> None:
    path = tmp_path / "img.ome.zarr"
    group = zarr.create_group(str(path), zarr_format=2 if version == "0.4" else 3)
    group.create_array("s0", data=volume[None], chunks=(1, 1, 16, 32))
    group.create_array("s1", data=volume[None, :, ::2, ::2])
    units = [("c", "channel", None), *((a, "space", "micrometer") for a in "zyx")]
    multiscale = {
        "axes": [{"name": n, "type": t} | ({"unit": u} if u else {}) for n, t, u in units],
        "datasets": [
            {"path": p, "coordinateTransformations": [{"type": "scale", "scale": [1, 0.05, s, s]}]}
            for p, s in (("s0", 0.0023), ("s1", 0.0046))
        ],
        "coordinateTransformations": [{"type": "scale", "scale": [1, 1, 2, 2]}],
    }
    if version == "0.4":
        group.attrs["multiscales"] = [multiscale | {"version": "0.4"}]
    else:
        group.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale]}
    stack = read_stack(path)
    np.testing.assert_array_equal(stack.data, volume)
    assert stack.voxel_size == pytest.approx((50, 4.6, 4.6))
    assert stack.name == "img"


def test_ome_zarr_with_channels_is_refused(tmp_path: Path, volume: NDArray[np.uint8]) -> None:
    group = zarr.create_group(str(tmp_path / "a.zarr"))
    group.create_array("0", data=volume)
    axes = [{"name": n} for n in "cyx"]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": [{"path": "0"}]}]}
    with pytest.raises(DrososegError, match="5 channels"):
        read_stack(tmp_path / "a.zarr")


def test_float_with_nan_is_passed_on(tmp_path: Path) -> None:
    data = np.full((2, 8, 8), np.nan, np.float32)
    tifffile.imwrite(tmp_path / "a.tif", data, photometric="minisblack")
    assert np.isnan(read_stack(tmp_path / "a.tif").read(1)).all()


def test_one_pixel(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.array([[7]], np.uint8))
    assert read_stack(tmp_path / "a.tif").read(0).tolist() == [[7]]


def test_as_stack_takes_what_users_have(volume: NDArray[np.uint8], tmp_path: Path) -> None:
    import dask.array as da

    array = zarr.create_array(str(tmp_path / "a.zarr"), data=volume)
    memory_map = np.memmap(tmp_path / "m", np.uint8, "w+", shape=SHAPE)
    memory_map[:] = volume
    for data in (volume, da.from_array(volume), array, memory_map, [volume, volume[:, ::2, ::2]], volume[None]):
        stack = as_stack(data, name="x", voxel_size=(50, 4.6, 4.6))
        assert stack.shape == SHAPE
        assert stack.pixel_size == pytest.approx(4.6)
        np.testing.assert_array_equal(stack.read(1, slice(2, 9), slice(4, 5)), volume[1, 2:9, 4:5])
    for flat in (volume[0], da.from_array(volume[0])):
        np.testing.assert_array_equal(as_stack(flat).read(0), volume[0])
    np.testing.assert_array_equal(as_stack(list(volume)).data, volume)
    np.testing.assert_array_equal(as_stack([volume[0], volume[0, ::2, ::2]]).read(0), volume[0])
    swapped = as_stack(volume.astype(">u2"))
    assert swapped.read(0).dtype == np.uint16
    assert as_stack(volume > 3).dtype == np.uint8


def test_as_stack_colour_and_refusals(volume: NDArray[np.uint8]) -> None:
    stack = as_stack(np.stack([volume] * 3, -1), rgb=True)
    np.testing.assert_array_equal(stack.read(2), volume[2])
    assert stack.notices
    for wrong in (np.zeros((2, 3, 4, 5)), np.zeros(5), np.zeros((0, 4, 4)), np.zeros((2, 2), complex)):
        with pytest.raises(DrososegError):
            as_stack(wrong)


def test_file_stacks_travel_to_other_processes(tmp_path: Path, volume: NDArray[np.uint8]) -> None:
    tifffile.imwrite(tmp_path / "a.tif", volume, compression="zlib")
    zarr.create_array(str(tmp_path / "a.zarr"), data=volume)
    for name in ("a.tif", "a.zarr"):
        stack: Stack = pickle.loads(pickle.dumps(read_stack(tmp_path / name)))
        np.testing.assert_array_equal(stack.data, volume)


def test_the_public_stack(vnc: Path) -> None:
    stack = read_stack(vnc / "stack1" / "raw")
    assert stack.shape == (16, 1024, 1024)
    np.testing.assert_array_equal(stack.read(7), tifffile.imread(vnc / "stack1" / "raw" / "07.tif"))
    labels = read_labels(vnc / "stack1" / "labels")
    assert set(np.unique(labels.read(3))) <= {0, 32, 64, 96, 128, 159, 191, 223, 255}


def test_colours_become_grey_by_their_brightness(tmp_path: Path) -> None:
    pure = np.zeros((3, 20, 3), np.uint8)
    pure[(0, 1, 2), :, (0, 1, 2)] = 200
    tifffile.imwrite(tmp_path / "rgb.tif", pure, photometric="rgb")
    assert read_stack(tmp_path / "rgb.tif").read(0)[:, 0].tolist() == pytest.approx([60, 117, 23], abs=1)  # ITU-R 601
