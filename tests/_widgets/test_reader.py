"""The npe2 reader and sample contributions, and the layers napari makes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from npe2 import DynamicPlugin, PluginManager, PluginManifest

from napari_drososeg._widgets.files.reader import get_reader, read_layers
from napari_drososeg._widgets.files.sample_data import drosophila_vnc_sample, synthetic_sample
from napari_drososeg.errors import DrososegError
from napari_drososeg.io import write_labels

napari_layers = pytest.importorskip("napari.layers", reason="napari is not installed")


@pytest.fixture
def volume() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 4, (5, 20, 30)).astype(np.uint8)


def test_none_for_what_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "a.jpg", tmp_path / "a.csv", tmp_path / "empty", tmp_path / "a.py"):
        assert get_reader(str(path)) is None
    assert get_reader([str(tmp_path / "a.tif"), str(tmp_path / "a.csv")]) is None
    assert get_reader([]) is None


def test_image_layer_with_its_space(tmp_path: Path, volume: np.ndarray) -> None:
    path = tmp_path / "ssTEM.ome.tif"
    size = {f"PhysicalSize{a}": s for a, s in zip("ZYX", (0.05, 0.0046, 0.0046), strict=True)}
    tifffile.imwrite(path, volume * 60, ome=True, metadata={"axes": "ZYX"} | size)
    reader = get_reader(str(path))
    assert reader is not None
    data, arguments, kind = reader(str(path))[0]
    layer = napari_layers.Layer.create(data, arguments, kind)
    assert isinstance(layer, napari_layers.Image)
    assert layer.name == "ssTEM"
    np.testing.assert_allclose(layer.scale, (50, 4.6, 4.6))
    assert [str(u) for u in layer.units] == ["nanometer"] * 3
    assert layer.axis_labels == ("z", "y", "x")
    np.testing.assert_array_equal(layer.data, volume * 60)


def test_unknown_sizes_stay_pixels(tmp_path: Path, volume: np.ndarray) -> None:
    zarr.create_array(str(tmp_path / "a.zarr"), data=volume.astype(np.float32), chunks=(1, 20, 30))
    layer = napari_layers.Layer.create(*read_layers(str(tmp_path / "a.zarr"))[0])
    assert [str(u) for u in layer.units] == ["pixel"] * 3
    np.testing.assert_allclose(layer.scale, 1)


@pytest.mark.parametrize("name", ["a.tif", "a.ome.tif", "a.ome.zarr", "pngs"])
def test_own_labels_become_a_labels_layer_that_can_be_painted(tmp_path: Path, volume: np.ndarray, name: str) -> None:
    path = write_labels(tmp_path / name, volume, voxel_size=(50, 4.6, 4.6), format="png" if name == "pngs" else None)
    reader = get_reader(str(path))
    assert reader is not None
    layer = napari_layers.Layer.create(*reader(str(path))[0])
    assert isinstance(layer, napari_layers.Labels)
    np.testing.assert_allclose(layer.get_color(2), (0xE6 / 255, 0x9F / 255, 0, 1))
    assert list(layer.features["class"]) == ["unlabelled", "cytoplasm", "cell membrane", "mitochondria"]
    layer.data_setitem((np.array([0]), np.array([1]), np.array([2])), 3)
    assert layer.data[0, 1, 2] == 3
    np.testing.assert_allclose(layer.scale, (50, 4.6, 4.6))


def test_several_files_are_one_stack(tmp_path: Path, volume: np.ndarray) -> None:
    paths = []
    for i, section in enumerate(volume):
        paths.append(str(tmp_path / f"s{i + 9}.tif"))
        tifffile.imwrite(paths[-1], section)
    reader = get_reader(paths[::-1])
    assert reader is not None
    np.testing.assert_array_equal(reader(paths[::-1])[0][0], volume)


def test_damage_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.tif").touch()
    reader = get_reader(str(tmp_path / "a.tif"))
    assert reader is not None
    with pytest.raises(DrososegError, match="empty"):
        reader(str(tmp_path / "a.tif"))


def test_notices_are_kept(tmp_path: Path, volume: np.ndarray) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.stack([volume[0]] * 3, -1), photometric="rgb")
    assert read_layers(str(tmp_path / "a.tif"))[0][1]["metadata"]["notices"]


def test_the_manifest_finds_reader_writer_and_samples(tmp_path: Path, volume: np.ndarray) -> None:
    path = Path(__file__).parents[2] / "src" / "napari_drososeg" / "napari.yaml"
    manifest = PluginManifest.from_file(path)
    manager = PluginManager()
    with DynamicPlugin(manifest.name, plugin_manager=manager, manifest=manifest):
        tifffile.imwrite(tmp_path / "a.tif", volume)
        for what in (tmp_path / "a.tif", tmp_path / "b.zarr", tmp_path):
            assert [r.command for r in manager.iter_compatible_readers([str(what)])] == ["napari-drososeg.read"]
        writers = manager.iter_compatible_writers(["labels"])
        assert "napari-drososeg.write_labels" in [w.command for w in writers]
        keys = [s.key for _, samples in manager.iter_sample_data() for s in samples]
        assert keys == ["drosophila-vnc", "synthetic"]


def test_synthetic_sample() -> None:
    (image, image_arguments, kind), (truth, labels_arguments, labels_kind) = synthetic_sample()
    assert (kind, labels_kind) == ("image", "labels")
    assert image.shape == truth.shape == (8, 512, 512)
    assert image_arguments["scale"] == labels_arguments["scale"] == (50, 4.6, 4.6)
    napari_layers.Layer.create(truth, labels_arguments, labels_kind)


def test_public_sample_from_a_folder(vnc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DROSOSEG_DATA", str(vnc))
    image, labels = drosophila_vnc_sample()
    assert image[0].shape == labels[0].shape == (16, 1024, 1024)
    assert set(np.unique(labels[0][::5])) == {1, 2, 3}
    assert "CC BY-NC-SA" in image[1]["metadata"]["source"]


def test_viewer_walks_through_a_lazy_stack(make_napari_viewer, tmp_path: Path, volume: np.ndarray) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    for i, section in enumerate(volume.astype(np.uint16) * 99):
        tifffile.imwrite(folder / f"{i}.tif", section, compression="zlib")
    viewer = make_napari_viewer()
    layer = viewer.add_layer(napari_layers.Layer.create(*read_layers(str(folder))[0]))
    for z in (0, 4, 2):
        viewer.dims.set_current_step(0, z)
        np.testing.assert_array_equal(np.asarray(layer._slice.image.raw), volume[z].astype(np.uint16) * 99)
