"""The npe2 writer: a labels layer as napari hands it over."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_drososeg._widgets.files.reader import read_layers
from napari_drososeg._widgets.files.writer import write_labels_layer
from napari_drososeg.classes import DROSOPHILA_CLASSES, ClassTable, SegmentationClass
from napari_drososeg.errors import DrososegError
from napari_drososeg.io import read_labels

napari_layers = pytest.importorskip("napari.layers", reason="napari is not installed")


@pytest.fixture
def volume() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 4, (3, 20, 30)).astype(np.uint8)


@pytest.mark.parametrize("name", ["a.tif", "a.tiff", "a.ome.tif", "a.zarr", "a.png"])
def test_layer_to_file_and_back(tmp_path: Path, volume: np.ndarray, name: str) -> None:
    layer = napari_layers.Labels(volume, scale=(0.05, 4.6e-3, 4.6e-3), units=("um", "um", "um"), name="x [U-Net]")
    data, meta, _ = layer.as_layer_data_tuple()
    (written,) = write_labels_layer(str(tmp_path / name), data, meta)
    stack = read_labels(written)
    np.testing.assert_array_equal(stack.data, volume)
    assert stack.voxel_size == pytest.approx((50, 4.6, 4.6))
    assert stack.classes == DROSOPHILA_CLASSES


def test_unknown_units_and_other_types(tmp_path: Path, volume: np.ndarray) -> None:
    layer = napari_layers.Labels(volume[0].astype(np.int64))
    data, meta, _ = layer.as_layer_data_tuple()
    (written,) = write_labels_layer(str(tmp_path / "a.tif"), data, meta)
    stack = read_labels(written)
    assert stack.voxel_size == (None, None, None)
    np.testing.assert_array_equal(stack.read(0), volume[0])


def test_multiscale_writes_the_first_level(tmp_path: Path, volume: np.ndarray) -> None:
    layer = napari_layers.Labels([volume, volume[:, ::2, ::2]], multiscale=True)
    data, meta, _ = layer.as_layer_data_tuple()
    (written,) = write_labels_layer(str(tmp_path / "a.tif"), data, meta)
    np.testing.assert_array_equal(read_labels(written).data, volume)


def test_classes_of_the_run_record(tmp_path: Path, volume: np.ndarray) -> None:
    classes = ClassTable(tuple(SegmentationClass(v, n, "#112233") for v, n in enumerate("abc", start=1)))
    meta = {"metadata": {"drososeg": {"classes": classes.to_list()}}}
    (written,) = write_labels_layer(str(tmp_path / "a.tif"), volume, meta)
    assert read_labels(written).classes == classes
    assert read_layers(written)[0][1]["features"]["class"] == ["unlabelled", "a", "b", "c"]


def test_labels_beyond_a_byte_are_refused(tmp_path: Path, volume: np.ndarray) -> None:
    with pytest.raises(DrososegError, match="Label 256"):
        write_labels_layer(str(tmp_path / "a.tif"), volume.astype(int) + 253, {})
    assert not (tmp_path / "a.tif").exists()
