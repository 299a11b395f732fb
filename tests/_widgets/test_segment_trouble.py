"""What can go wrong around the Segment widget, and kinds of layers it has to live with."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from napari.layers import Labels
from napari.utils.notifications import NotificationSeverity, notification_manager
from qtpy.QtCore import Qt

from napari_drososeg._widgets.work.job import Scope
from napari_drososeg._widgets.work.worker import State

# napari's own label colours, made by scikit-image


def click(qtbot: Any, button: Any) -> None:
    qtbot.mouseClick(button.native, Qt.MouseButton.LeftButton)


def labels_of(widget: Any) -> Labels:
    found = [layer for layer in widget.viewer.layers if isinstance(layer, Labels)]
    assert len(found) == 1
    return found[0]


@pytest.fixture
def said() -> Iterator[list[Any]]:
    """Notifications that came during the test."""
    heard: list[Any] = []
    notification_manager.notification_ready.connect(heard.append)
    yield heard
    notification_manager.notification_ready.disconnect(heard.append)


def test_nothing_open_says_what_to_do(open_widget: Any, qtbot: Any, vnc: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DROSOSEG_DATA", str(vnc))
    widget = open_widget()
    assert widget.empty.visible
    assert widget.marked("image")
    assert not widget.run_button.enabled
    assert "Open an image" in widget.problem.value
    click(qtbot, widget.sample_button)
    assert not widget.sample_button.enabled
    qtbot.waitUntil(lambda: len(widget.viewer.layers) == 2, timeout=30_000)
    qtbot.waitUntil(lambda: widget.run_button.enabled, timeout=5000)
    assert not widget.empty.visible
    assert widget.image.value is widget.viewer.layers[0]
    assert not widget.viewer.layers[1].visible
    assert widget.pixel_size.value == pytest.approx(4.6)
    assert not widget.marked("pixel_size")
    qtbot.waitUntil(lambda: widget.sample_button.text == "Open the sample stack", timeout=5000)


def test_pixel_size_is_asked_once_and_checked(open_widget: Any, qtbot: Any, finish: Any, stack: np.ndarray) -> None:
    widget = open_widget(stack)
    assert widget.marked("pixel_size")
    assert "once" in widget.pixel_size.tooltip
    assert "does not give its pixel size" in widget.problem.value  # to be seen without a hover, and no hindrance
    assert widget.problem.visible
    assert widget.run_button.enabled
    for wrong in (0.0, 4600.0):
        widget.pixel_size.value = wrong
        assert widget.marked("pixel_size")
        assert not widget.run_button.enabled
        assert "nanometres" in widget.problem.value
        assert widget.problem.value in widget.pixel_size.tooltip
    widget.pixel_size.value = 5.0
    assert not widget.marked("pixel_size")
    assert widget.run_button.enabled
    assert widget.job().config.pixel_size == 5.0

    known = widget.viewer.add_image(stack, name="known", scale=(0.05, 0.0092, 0.0092), units=("um", "um", "um"))
    widget.image.value = known
    assert widget.pixel_size.value == pytest.approx(9.2)
    assert not widget.marked("pixel_size")
    assert not widget.problem.value
    widget.image.value = widget.viewer.layers["em"]
    assert widget.pixel_size.value == 5.0


def test_pixels_that_are_not_square_are_mentioned(open_widget: Any, stack: np.ndarray) -> None:
    widget = open_widget(stack)
    flat = widget.viewer.add_image(stack, name="flat", scale=(50, 4, 8), units=("nm", "nm", "nm"))
    widget.image.value = flat
    assert widget.pixel_size.value == 6
    assert widget.marked("pixel_size")
    assert "not square, 4 x 8 nm (y, x)" in widget.problem.value
    assert widget.run_button.enabled
    widget.pixel_size.value = 4.0  # the user knows better, and is told of that alone
    assert "the value entered here is used instead" in widget.problem.value


def test_choices_that_cannot_work_are_marked(open_widget: Any, stack: np.ndarray) -> None:
    widget = open_widget(stack)
    widget.precision.value = "int8"  # the engine is torch
    assert widget.marked("precision")
    assert not widget.run_button.enabled
    assert "OpenVINO" in widget.problem.value
    widget.precision.value = "f32"
    widget.scope.value = Scope.VIEW
    widget.viewer.dims.ndisplay = 3
    widget.update_state()
    assert widget.marked("scope")
    widget.viewer.dims.ndisplay = 2
    widget.update_state()
    assert widget.run_button.enabled
    widget.scope.value = Scope.RANGE
    widget.first.value, widget.last.value = 2, 1
    assert widget.marked("range")
    widget.viewer.add_image(np.zeros((2, 3, 8, 8), np.uint8), name="movie")
    widget.image.value = widget.viewer.layers["movie"]
    assert widget.marked("image")
    assert "4 axes" in widget.problem.value


def test_an_image_that_looks_inverted_is_said(open_widget: Any, qtbot: Any, settle: Any) -> None:
    from napari_drososeg.samples import synthetic_stack

    pixels = np.asarray(synthetic_stack()[0].data)
    widget = open_widget(pixels)
    settle(widget)
    assert "Invert" not in widget.status.value
    image = widget.viewer.layers["em"]
    image.data = 255 - pixels
    qtbot.waitUntil(lambda: "tick 'Invert grey values'" in widget.status.value, timeout=20_000)
    assert widget.run_button.enabled  # it is a guess
    widget.invert.value = True
    assert "Invert" not in widget.status.value
    widget.invert.value = False
    assert "Invert" in widget.status.value
    widget.viewer.add_image(pixels, name="other")
    widget.image.value = widget.viewer.layers["other"]
    settle(widget)
    assert "Invert" not in widget.status.value
    image.data = pixels
    widget.image.value = image
    settle(widget)
    assert "Invert" not in widget.status.value
    widget.invert.value = True  # or left ticked for another image, where Advanced is closed
    assert "Grey values are inverted" in widget.status.value


@pytest.mark.parametrize("kind", ["empty", "damaged", "cut short"])
def test_a_zoo_without_networks_is_said(
    kind: str,
    make_napari_viewer: Any,
    qtbot: Any,
    zoo_with_tiny: Any,
    tmp_path: Any,
    stack: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from napari_drososeg import zoo
    from napari_drososeg._widgets.segment.widget import SegmentWidget

    (zoo_with_tiny / "tiny.safetensors").unlink()
    rows = {"unet": {"title": "U", "file": "u.safetensors", "sha256": "0" * 64, "bytes": 9}}
    registry = tmp_path / "registry.json"
    text = json.dumps({"networks": {} if kind == "empty" else rows})
    registry.write_text(text[:20] if kind == "cut short" else text)
    (tmp_path / "u.safetensors").write_bytes(b"not a network")
    monkeypatch.setattr(zoo.list_networks, "__defaults__", (registry,))
    viewer = make_napari_viewer()
    viewer.add_image(stack, name="em", scale=(50, 4.6, 4.6), units=("nm", "nm", "nm"))
    widget = SegmentWidget(viewer)
    qtbot.addWidget(widget)
    assert not widget.run_button.enabled
    assert widget.marked("network")
    said_why = {"empty": "No network", "damaged": "u.safetensors", "cut short": "cannot be read"}[kind]
    assert said_why in widget.problem.value
    assert widget.problem.value in widget.network.tooltip
    assert widget.card_text.value == widget.problem.value
    widget.close()


def test_scratch_that_cannot_be_written_ends_the_run(
    open_widget: Any,
    qtbot: Any,
    finish: Any,
    many_sections: Any,
    said: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from napari_drososeg._widgets.work import store

    monkeypatch.setattr(store, "IN_MEMORY_BYTES", 1000)
    widget = open_widget(many_sections(40, 96, 96))
    root = store.scratch_root()
    root.parent.mkdir(parents=True, exist_ok=True)
    root.write_text("a file where the folder should be")
    widget.scope.value = Scope.STACK
    click(qtbot, widget.run_button)
    finish(widget)
    errors = [n for n in said if n.severity >= NotificationSeverity.WARNING]
    assert len(errors) == 1
    assert widget.status.value.startswith("Failed")
    assert widget.run_button.text == "Segment"
    assert widget.run_button.enabled
    assert len(widget.viewer.layers) == 1
    root.unlink()
    click(qtbot, widget.run_button)
    finish(widget)
    assert np.asarray(labels_of(widget).data).all()


def test_labels_outside_the_table_are_refused_and_said(
    open_widget: Any, qtbot: Any, finish: Any, stack: np.ndarray
) -> None:
    widget = open_widget(stack)
    widget.scope.value = Scope.STACK
    click(qtbot, widget.run_button)
    finish(widget)
    layer = labels_of(widget)
    predicted = np.array(layer.data)
    layer.brush_size = 9
    layer.paint((1, 48, 40), 7)
    qtbot.waitUntil(lambda: "not a class" in widget.status.value, timeout=3000)
    click(qtbot, widget.run_button)
    finish(widget)
    np.testing.assert_array_equal(layer.data, predicted)
    assert "replaced by the prediction" in widget.status.value
    assert "painted pixels kept" not in widget.status.value


def test_the_record_names_what_it_ended_on(open_widget: Any, qtbot: Any, finish: Any, many_sections: Any) -> None:
    from napari_drososeg.inference import Choice

    widget = open_widget(many_sections(40, 128, 128))
    widget.scope.value = Scope.STACK
    click(qtbot, widget.run_button)
    qtbot.waitUntil(lambda: bool(widget.runner.fraction), timeout=60_000)
    # what the engine does when a graphics card has no memory left; there is none here
    widget.runner._predictor[1]._network.choice = Choice("cpu", "torch", "bf16")
    finish(widget)
    assert labels_of(widget).metadata["drososeg"]["description"] == "CPU, PyTorch, bf16"
    assert "(CPU, PyTorch, bf16)" in widget.status.value


def test_failure_is_said_once_and_nothing_sticks(open_widget: Any, qtbot: Any, finish: Any, said: list[Any]) -> None:
    data = np.full((2, 64, 64), 0.5, np.float32)
    data[:, 10:20] = np.nan
    widget = open_widget(data)
    widget.scope.value = Scope.STACK
    click(qtbot, widget.run_button)
    finish(widget)
    errors = [n for n in said if n.severity >= NotificationSeverity.WARNING]
    assert len(errors) == 1
    assert "NaN" in errors[0].message
    assert widget.status.value.startswith("Failed")
    assert widget.run_button.text == "Segment"
    assert widget.run_button.enabled
    assert not widget.progress.visible
    assert len(widget.viewer.layers) == 1  # no empty labels layer
    widget.fill.value = True
    widget.fill_value.value = 0.5
    click(qtbot, widget.run_button)
    finish(widget)
    assert labels_of(widget).data.all()


class Treacherous:
    """An array whose second section cannot be read, as on a disk that has gone."""

    shape, dtype, ndim = (3, 64, 64), np.dtype(np.uint8), 3

    def __init__(self) -> None:
        self.broken = False
        self._data = np.random.default_rng(0).integers(0, 255, self.shape, np.uint8)

    def __getitem__(self, index: Any) -> np.ndarray:
        z = index[0] if isinstance(index, tuple) else index
        if self.broken and z == 1:
            raise RuntimeError("the disk has gone")
        return self._data[index]

    def __array__(self, *_args: Any, **_kwargs: Any) -> np.ndarray:
        return self._data


def test_cancelling_while_the_network_is_prepared(
    open_widget: Any, qtbot: Any, finish: Any, stack: np.ndarray, said: list[Any]
) -> None:
    import psutil

    pytest.importorskip("openvino")

    def preparing() -> list[Any]:
        return [p for p in psutil.Process().children() if "napari_drososeg.inference" in p.cmdline()]

    widget = open_widget(stack)
    widget.engine.value = "openvino"
    click(qtbot, widget.run_button)
    qtbot.waitUntil(lambda: bool(preparing()), timeout=30_000)
    assert widget.runner.state is State.LOADING
    click(qtbot, widget.run_button)
    finish(widget)
    assert preparing() == []
    assert widget.status.value.startswith("Cancelled, nothing done")
    assert len(widget.viewer.layers) == 1
    assert not [n for n in said if n.severity >= NotificationSeverity.WARNING]
    assert widget.run_button.enabled


def test_a_runtime_error_does_not_leave_a_spinner(open_widget: Any, qtbot: Any, finish: Any, said: list[Any]) -> None:
    data = Treacherous()
    widget = open_widget(data, contrast_limits=(0, 255), multiscale=False)
    widget.viewer.dims.set_point(0, 0)
    data.broken = True
    widget.scope.value = Scope.STACK
    click(qtbot, widget.run_button)
    finish(widget)
    errors = [n for n in said if n.severity >= NotificationSeverity.WARNING]
    assert len(errors) == 1
    assert "the disk has gone" in widget.status.value
    assert widget.run_button.enabled
    data.broken = False
    click(qtbot, widget.run_button)
    finish(widget)
    assert np.asarray(labels_of(widget).data).all()


def test_labels_layer_removed_while_running(
    open_widget: Any, qtbot: Any, finish: Any, many_sections: Any, said: list[Any]
) -> None:
    widget = open_widget(many_sections(60, 128, 128))
    widget.scope.value = Scope.STACK
    click(qtbot, widget.run_button)
    qtbot.waitUntil(lambda: bool(widget.runner.fraction), timeout=60_000)
    widget.viewer.layers.remove(labels_of(widget))
    finish(widget)
    assert "removed" in widget.status.value
    assert len(widget.viewer.layers) == 1
    assert not [n for n in said if n.severity >= NotificationSeverity.WARNING]
    click(qtbot, widget.run_button)
    qtbot.waitUntil(lambda: bool(widget.runner.fraction), timeout=60_000)
    labels_of(widget).name = "other"
    # napari 0.9.2 on Mesa's software OpenGL crashes (without this plugin as well) when it draws a labels layer
    # from under which the only image has been removed, so it is hidden here
    labels_of(widget).visible = False
    widget.viewer.layers.remove("em")  # its pixels are at hand, so the run goes on
    finish(widget)
    assert labels_of(widget).data.all()


def test_widget_closed_while_running(open_widget: Any, qtbot: Any, many_sections: Any) -> None:
    from superqt.utils._qthreading import WorkerBase

    widget = open_widget(many_sections(60, 128, 128))
    viewer = widget.viewer
    widget.scope.value = Scope.STACK
    click(qtbot, widget.run_button)
    qtbot.waitUntil(lambda: bool(widget.runner.fraction), timeout=60_000)
    layer = labels_of(widget)
    viewer.window.remove_dock_widget(widget)  # what the cross of the dock does
    assert not widget.runner.busy
    kept = np.array(layer.data)
    assert kept.any()
    qtbot.waitUntil(lambda: not WorkerBase._worker_set, timeout=20_000)
    np.testing.assert_array_equal(layer.data, kept)
    assert layer.metadata["drososeg"]["sections_done"]
    viewer.layers[0].name = "the closed widget must not mind"


def test_viewer_closed_while_running(make_napari_viewer: Any, open_widget: Any, qtbot: Any, many_sections: Any) -> None:
    from superqt.utils._qthreading import WorkerBase

    widget = open_widget(many_sections(60, 128, 128))
    widget.scope.value = Scope.STACK
    click(qtbot, widget.run_button)
    qtbot.waitUntil(lambda: bool(widget.runner.fraction), timeout=60_000)
    widget.viewer.close()
    qtbot.waitUntil(lambda: not WorkerBase._worker_set, timeout=20_000)


@pytest.mark.parametrize("kind", ["dask", "zarr", "memmap", "multiscale", "2d", "rgb", "float", "wide"])
def test_kinds_of_layers(
    kind: str,
    open_widget: Any,
    qtbot: Any,
    finish: Any,
    stack: np.ndarray,
    zoo_with_tiny: Any,
    tmp_path: Any,
) -> None:
    plain, arguments = stack, {}
    if kind == "dask":
        import dask.array as da

        data: Any = da.from_array(stack, chunks=(1, 50, 50))
    elif kind == "zarr":
        import zarr

        data = zarr.create_array(tmp_path / "a.zarr", shape=stack.shape, chunks=(1, 40, 40), dtype=stack.dtype)
        data[:] = stack
    elif kind == "memmap":
        data = np.memmap(tmp_path / "a.raw", stack.dtype, "w+", shape=stack.shape)
        data[:] = stack
    elif kind == "multiscale":
        data, arguments = [stack, stack[:, ::2, ::2]], {"multiscale": True}
    elif kind == "2d":
        data, plain = stack[0], stack[0]
    elif kind == "rgb":
        data, arguments = np.repeat(stack[..., None], 3, axis=-1), {"rgb": True}
    elif kind == "float":
        data = plain = stack.astype(np.float32) / 255
    else:
        data = plain = stack.astype(np.uint16) * 100
    widget = open_widget(data, **arguments)
    widget.scope.value = Scope.STACK
    click(qtbot, widget.run_button)
    finish(widget)
    layer = labels_of(widget)
    assert layer.data.shape == plain.shape
    assert not layer.multiscale

    from napari_drososeg.inference import PredictConfig, predict
    from napari_drososeg.io import as_stack

    config = PredictConfig(device="cpu", engine="torch", precision="f32", pixel_size=4.6)
    wanted = predict(as_stack(plain), zoo_with_tiny / "tiny.safetensors", config)
    np.testing.assert_array_equal(np.asarray(layer.data), wanted.reshape(plain.shape))


def test_large_stacks_live_on_disk(
    open_widget: Any, qtbot: Any, finish: Any, stack: np.ndarray, monkeypatch: pytest.MonkeyPatch, zoo_with_tiny: Any
) -> None:
    import zarr

    from napari_drososeg._widgets.work import store

    monkeypatch.setattr(store, "IN_MEMORY_BYTES", 1000)
    widget = open_widget(stack)
    widget.scope.value = Scope.SECTION
    click(qtbot, widget.run_button)
    finish(widget)
    layer = labels_of(widget)
    assert isinstance(layer.data, zarr.Array)
    folder = widget.target.store.folder
    assert folder.is_dir()
    assert "temporary" in widget.status.value
    assert "Save" in widget.status.value
    assert np.asarray(layer.data[1]).all()
    np.testing.assert_array_equal(layer._slice.image.raw, layer.data[1])  # what is on screen is not stale
    layer.brush_size = 5
    layer.paint((1, 48, 40), 3)
    click(qtbot, widget.run_button)
    finish(widget)
    assert (np.asarray(layer.data[1, 47:50, 39:42]) == 3).all()


def test_both_themes_at_320_px(open_widget: Any, qtbot: Any, stack: np.ndarray) -> None:
    widget = open_widget(stack)
    widget.viewer.layers["em"].name = "a stack with a name that is much longer than the widget is wide"
    seen = {}
    for theme in ("dark", "light"):
        widget.viewer.theme = theme
        widget.resize(320, 700)
        qtbot.wait(50)
        body = widget.widget()
        assert body.minimumSizeHint().width() <= 320
        assert not widget.styleSheet()
        assert not body.styleSheet()
        palette = body.palette()
        seen[theme] = palette.window().color().lightness(), palette.windowText().color().lightness()
    assert seen["dark"][0] < seen["dark"][1]
    assert seen["light"][0] > seen["light"][1]
    for name in ("image", "network", "scope", "pixel_size", "device", "engine", "precision", "halo", "invert", "fill",
                 "orientations", "fill_value", "probabilities", "uncertainty", "first", "last", "open_button",
                 "info_button", "sample_button", "run_button", "save_button", "copy_button", "progress"):  # fmt: skip
        assert len(getattr(widget, name).tooltip) > 20, name
    assert widget.legend.toolTip()
    assert not widget.collapsible.isExpanded()


def test_the_manifest_opens_the_widget(make_napari_viewer: Any, qtbot: Any, stack: np.ndarray) -> None:
    viewer = make_napari_viewer()
    viewer.add_image(stack, name="em")
    _, widget = viewer.window.add_plugin_dock_widget("napari-drososeg", "Segment stack")
    assert widget.image.value is viewer.layers["em"]
    viewer.layers["em"].name = "renamed"
    assert widget.image.current_choice == "renamed"
    viewer.layers.clear()
    assert widget.image.value is None


VIEWER_WITH_TORCH = """
import sys, napari, numpy
from qtpy.QtWidgets import QApplication
viewer = napari.Viewer(show=True)
viewer.add_image(numpy.eye(9))
for _ in range(20):
    QApplication.processEvents()
assert "libLLVM" in open("/proc/self/maps").read(), "no LLVM here"
assert "triton" not in sys.modules
from napari_drososeg.models import create_model
create_model("fpn", 3, width=0.125)
assert "torchvision" in sys.modules
viewer.close()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere torch brings no triton along")
def test_torch_comes_after_software_opengl() -> None:
    """As in a remote desktop: an engine that is loaded when the viewer is there must not end the program."""
    done = subprocess.run([sys.executable, "-c", VIEWER_WITH_TORCH], capture_output=True, text=True, check=False)
    if "no LLVM here" in done.stderr:
        pytest.skip("the OpenGL of this display holds no LLVM")
    assert done.returncode == 0, done.stderr
