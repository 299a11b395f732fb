"""The Segment widget in a real viewer, driven by clicks and keys: run, cancel, resume, record, painting."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from napari.layers import Labels
from napari.utils.notifications import notification_manager
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication, QLabel

from napari_drososeg._widgets.work.job import Scope
from napari_drososeg._widgets.work.work import SPINNER_PERCENT
from napari_drososeg._widgets.work.worker import State
from napari_drososeg.io import read_labels

# napari's own label colours, made by scikit-image


def click(qtbot: Any, button: Any) -> None:
    qtbot.mouseClick(button.native, Qt.MouseButton.LeftButton)


def labels_of(widget: Any) -> Labels:
    found = [layer for layer in widget.viewer.layers if isinstance(layer, Labels)]
    assert len(found) == 1
    return found[0]


def expected(data: np.ndarray, zoo: Any, **options: Any) -> np.ndarray:
    """What the engine says without a viewer."""
    from napari_drososeg.inference import PredictConfig, predict
    from napari_drososeg.io import as_stack

    config = PredictConfig(device="cpu", engine="torch", precision="f32", pixel_size=4.6, **options)
    return predict(as_stack(data), zoo / "tiny.safetensors", config)


def test_run_fills_a_labels_layer(
    open_widget: Any, qtbot: Any, finish: Any, stack: np.ndarray, zoo_with_tiny: Any
) -> None:
    space = {
        "scale": (50, 4.6, 4.6),
        "translate": (0, 10, 20),
        "units": ("nm", "nm", "nm"),
        "axis_labels": ("z", "y", "x"),
    }
    widget = open_widget(stack, **space)
    widget.scope.value = Scope.STACK
    click(qtbot, widget.run_button)
    assert widget.run_button.text == "Cancel"
    assert not widget.choice.enabled
    finish(widget)

    layer = labels_of(widget)
    image = widget.viewer.layers["em"]
    assert layer.name == "em [Tiny U-Net]"
    assert set(np.unique(layer.data)) == {1, 2, 3}
    np.testing.assert_array_equal(layer.data, expected(stack, zoo_with_tiny))
    assert layer.data.dtype == np.uint8
    np.testing.assert_allclose(layer.scale, image.scale)
    np.testing.assert_allclose(layer.translate, image.translate)
    assert layer.units == image.units
    assert layer.axis_labels == ("z", "y", "x")
    np.testing.assert_allclose(layer.colormap.color_dict[2], (0xE6 / 255, 0x9F / 255, 0, 1), atol=1e-6)
    assert layer.colormap.color_dict[None][3] == 0
    assert widget.run_button.text == "Segment again"
    assert widget.choice.enabled
    assert widget.viewer.layers.selection.active is image

    record = layer.metadata["drososeg"]
    assert record["network"] == "tiny"
    assert record["sha256"] == widget.card.sha256
    assert record["sections_done"] == [0, 1, 2]
    assert record["config"]["precision"] == "f32"
    assert record["description"] == "CPU, PyTorch, f32"
    assert record["seconds"] > 0
    assert record["time"]

    status = layer.get_status(position=tuple(layer.data_to_world((1, 40, 40))), world=True)
    name = ["unlabelled", "cytoplasm", "cell membrane", "mitochondria"][layer.data[1, 40, 40]]
    assert f"class: {name}" in status["value"]

    shares = [float(text.removesuffix(" %")) for text in widget.legend.texts()]
    for value, share in enumerate(shares, start=1):
        assert share == pytest.approx(100 * np.mean(layer.data == value), abs=0.06)


def test_orientations_reach_the_result_and_the_estimate(
    open_widget: Any, qtbot: Any, finish: Any, settle: Any, stack: np.ndarray, zoo_with_tiny: Any
) -> None:
    from napari_drososeg._widgets.controls import preferences

    widget = open_widget(stack)
    widget.scope.value = Scope.SECTION
    click(qtbot, widget.run_button)
    finish(widget)
    settle(widget)
    seconds = widget.expected_seconds(widget.job())
    layer = labels_of(widget)
    np.testing.assert_array_equal(layer.data[1], expected(stack, zoo_with_tiny)[1])
    widget.orientations.value = 4
    assert widget.expected_seconds(widget.job()) == pytest.approx(4 * seconds)
    assert preferences.load("segment")["orientations"] == 4
    assert widget.run_button.text == "Segment"  # what is there was made otherwise
    click(qtbot, widget.run_button)
    finish(widget)
    averaged = expected(stack, zoo_with_tiny, orientations=4)[1]
    assert np.mean(averaged != expected(stack, zoo_with_tiny)[1]) > 0.01
    np.testing.assert_array_equal(layer.data[1], averaged)
    assert layer.metadata["drososeg"]["config"]["orientations"] == 4


def test_again_updates_in_place(open_widget: Any, qtbot: Any, finish: Any, stack: np.ndarray) -> None:
    widget = open_widget(stack)
    widget.scope.value = Scope.SECTION
    click(qtbot, widget.run_button)
    finish(widget)
    layer = labels_of(widget)
    first = np.array(layer.data)
    assert first[1].all()  # napari shows the middle section
    assert not first[0].any()
    layer.name = "renamed by the user"
    assert widget.run_button.text == "Segment again"
    click(qtbot, widget.run_button)
    finish(widget)
    assert labels_of(widget) is layer
    assert layer.name == "renamed by the user"
    np.testing.assert_array_equal(layer.data, first)
    widget.scope.value = Scope.RANGE
    widget.first.value, widget.last.value = 0, 1
    assert widget.run_button.text == "Segment"
    click(qtbot, widget.run_button)
    finish(widget)
    assert layer.metadata["drososeg"]["sections_done"] == [0, 1]
    assert labels_of(widget) is layer


def test_keys_reach_the_button(open_widget: Any, qtbot: Any, finish: Any, stack: np.ndarray) -> None:
    widget = open_widget(stack)
    widget.run_button.native.setFocus()
    qtbot.keyClick(widget.run_button.native, Qt.Key.Key_Space)
    assert widget.runner.busy
    finish(widget)
    assert labels_of(widget).data[1].all()


def test_cancel_keeps_and_the_next_run_does_the_rest(
    open_widget: Any, qtbot: Any, finish: Any, many_sections: Any, zoo_with_tiny: Any
) -> None:
    data = many_sections(80, 128, 128)
    widget = open_widget(data)
    widget.scope.value = Scope.STACK
    seen: list[str] = []
    widget.runner.changed.connect(lambda: seen.append(widget.run_button.text))

    def cancel_after_the_first_tile() -> None:
        if widget.runner.state is State.RUNNING and widget.runner.fraction:
            click(qtbot, widget.run_button)

    widget.runner.changed.connect(cancel_after_the_first_tile)
    click(qtbot, widget.run_button)
    finish(widget)
    widget.runner.changed.disconnect(cancel_after_the_first_tile)
    movies = [label.movie() for label in widget.window().statusBar().findChildren(QLabel) if label.movie()]
    assert [movie.speed() for movie in movies] == [SPINNER_PERCENT]
    layer = labels_of(widget)
    done = layer.metadata["drososeg"]["sections_done"]
    assert 0 < len(done) < 80
    assert 40 in done  # what is on screen comes first
    assert "Cancelling" in seen
    assert widget.run_button.text == "Segment"
    assert "Cancelled" in widget.status.value
    kept = {z: np.array(layer.data[z]) for z in done}

    layer.data[done[0]] = 3  # would be overwritten if the section were predicted again
    click(qtbot, widget.run_button)
    finish(widget)
    assert labels_of(widget) is layer
    assert layer.metadata["drososeg"]["sections_done"] == list(range(80))
    assert (layer.data[done[0]] == 3).all()
    layer.data[done[0]] = kept[done[0]]
    np.testing.assert_array_equal(layer.data, expected(data, zoo_with_tiny))


def test_nothing_is_said_of_another_image(open_widget: Any, qtbot: Any, finish: Any, stack: np.ndarray) -> None:
    widget = open_widget(np.stack([stack] * 3, axis=-1), rgb=True)
    click(qtbot, widget.run_button)
    finish(widget)
    assert "Done" in widget.status.value
    assert "grey" in widget.status.value
    widget.image.value = widget.viewer.add_image(stack, name="other")
    assert widget.status.value == ""
    widget.viewer.layers.clear()
    assert widget.status.value == ""


def test_what_i_see_is_all_that_is_predicted(open_widget: Any, qtbot: Any, finish: Any, many_sections: Any) -> None:
    widget = open_widget(many_sections(1, 512, 512))
    viewer = widget.viewer
    camera = getattr(viewer, "scene", viewer).camera
    camera.zoom = 8
    camera.center = (0, 100, 120)
    qtbot.wait(300)
    widget.scope.value = Scope.VIEW
    click(qtbot, widget.run_button)
    finish(widget)
    data = np.asarray(labels_of(widget).data).reshape(512, 512)
    assert data[100, 120] > 0
    assert data[500, 500] == 0
    assert 0 < np.count_nonzero(data) < 512 * 512 / 2


def test_strokes_survive(open_widget: Any, qtbot: Any, finish: Any, stack: np.ndarray, zoo_with_tiny: Any) -> None:
    widget = open_widget(stack)
    widget.scope.value = Scope.STACK
    click(qtbot, widget.run_button)
    finish(widget)
    layer = labels_of(widget)
    predicted = expected(stack, zoo_with_tiny)
    widget.viewer.dims.set_point(0, 1)
    other = int(predicted[1, 48, 40]) % 3 + 1
    layer.brush_size = 11
    layer.paint((1, 48, 40), other)
    layer.paint((1, 20, 20), other)
    layer.paint((1, 20, 60), other)
    layer.undo()  # an undone stroke leaves no trace
    layer.paint((1, 20, 20), 0)  # erased: back to the network
    click(qtbot, widget.run_button)
    finish(widget)
    mine = np.zeros(stack.shape, bool)
    yy, xx = np.mgrid[:96, :80]
    mine[1] = (yy - 48) ** 2 + (xx - 40) ** 2 <= 5.5**2
    np.testing.assert_array_equal(layer.data, np.where(mine, other, predicted))
    assert "painted pixels kept" in widget.status.value
    np.testing.assert_array_equal(np.bincount(layer.data.ravel(), minlength=256), widget.target.store.counts)
    # undo must not reach back over the prediction
    before = np.array(layer.data)
    layer.undo()
    np.testing.assert_array_equal(layer.data, before)


def test_nothing_is_written_during_a_stroke(
    open_widget: Any, qtbot: Any, finish: Any, many_sections: Any, zoo_with_tiny: Any
) -> None:
    data = many_sections(40, 128, 128)
    widget = open_widget(data)
    widget.scope.value = Scope.STACK
    runner = widget.runner
    click(qtbot, widget.run_button)
    qtbot.waitUntil(lambda: bool(runner.fraction), timeout=60_000)
    layer = labels_of(widget)
    widget.viewer.dims.set_point(0, 0)
    with layer.block_history():  # as napari does from button down to button up
        before = np.array(layer.data)
        layer.paint((0, 30, 30), 3)
        qtbot.wait(400)
        changed = np.asarray(layer.data) != before
        assert changed[0, 30, 30] or before[0, 30, 30] == 3
        assert not changed[1:].any()
        assert runner.busy
    finish(widget)
    predicted = expected(data, zoo_with_tiny)
    predicted[0][np.asarray(layer.data[0]) != predicted[0]] = 3
    np.testing.assert_array_equal(layer.data, predicted)
    assert layer.data[0, 30, 30] == 3


def test_legend_follows_the_brush(open_widget: Any, qtbot: Any, finish: Any, stack: np.ndarray) -> None:
    widget = open_widget(stack)
    widget.scope.value = Scope.STACK
    click(qtbot, widget.run_button)
    finish(widget)
    layer = labels_of(widget)
    layer.brush_size = 41
    layer.paint((1, 48, 40), 3)

    def shown() -> None:
        share = 100 * np.mean(np.asarray(layer.data) == 3)
        assert float(widget.legend.texts()[2].removesuffix(" %")) == pytest.approx(share, abs=0.06)

    qtbot.waitUntil(shown, timeout=3000)
    layer.undo()
    qtbot.waitUntil(shown, timeout=3000)


def test_probabilities_and_uncertainty(open_widget: Any, qtbot: Any, finish: Any, stack: np.ndarray) -> None:
    widget = open_widget(stack, scale=(50, 4.6, 4.6), units=("nm", "nm", "nm"))
    widget.probabilities.value = widget.uncertainty.value = True
    widget.scope.value = Scope.SECTION
    click(qtbot, widget.run_button)
    finish(widget)
    layer, layers = labels_of(widget), widget.viewer.layers
    names = ["p(cytoplasm)", "p(cell membrane)", "p(mitochondria)"]
    maps = np.stack([layers[f"{layer.name} {n}"].data[1] for n in names]).astype(float)
    np.testing.assert_allclose(maps.sum(axis=0), 1, atol=5e-3)
    best = np.sort(maps, axis=0)
    clear = best[-1] - best[-2] > 5e-3
    np.testing.assert_array_equal((maps.argmax(axis=0) + 1)[clear], layer.data[1][clear])
    assert not layers[f"{layer.name} p(cytoplasm)"].visible
    uncertainty = layers[f"{layer.name} uncertainty"]
    assert uncertainty.visible
    assert 0 < uncertainty.data[1].max() <= 1
    np.testing.assert_allclose(uncertainty.scale, layer.scale)
    assert layers[-1] is layer
    assert widget.run_button.text == "Segment again"
    widget.probabilities.value = False
    assert widget.run_button.text == "Segment again"  # what is there is more than what is asked for


def test_save_and_copy(
    open_widget: Any, qtbot: Any, finish: Any, stack: np.ndarray, tmp_path: Any, make_napari_viewer: Any
) -> None:
    import tifffile

    file = tmp_path / "my stack.tif"
    tifffile.imwrite(file, stack, photometric="minisblack")
    viewer = make_napari_viewer(show=True)
    viewer.open(str(file), plugin="napari-drososeg")
    widget = open_widget(viewer=viewer)
    widget.scope.value = Scope.RANGE
    widget.first.value, widget.last.value = 1, 2
    assert not widget.save_button.enabled
    widget.orientations.value = 2
    click(qtbot, widget.copy_button)
    text = QApplication.clipboard().text()
    assert text.startswith(f"drososeg predict '{file}' -o ")
    assert "--model tiny --sections 1-2" in text
    assert "--precision f32 --orientations 2" in text
    assert "--pixel-size 4.6" in text
    assert "uncertainty" not in widget.status.value
    widget.uncertainty.value = True
    assert "uncertainty" in widget.copy_button.tooltip
    click(qtbot, widget.copy_button)
    assert "uncertainty is not included" in widget.status.value
    widget.uncertainty.value = False
    click(qtbot, widget.run_button)
    finish(widget)
    assert widget.save_button.enabled
    widget.save_to(tmp_path / "out.tif", "tiff")
    qtbot.waitUntil(lambda: not widget._saving, timeout=20_000)
    saved = read_labels(tmp_path / "out.tif")
    np.testing.assert_array_equal(np.stack([saved.read(z) for z in range(3)]), labels_of(widget).data)
    assert "Saved" in widget.status.value
    before = file.read_bytes()
    widget.save_to(file, "tiff")
    assert "is the input itself" in notification_manager.records[-1].message
    assert not widget._saving
    assert file.read_bytes() == before


def test_files_chosen_one_by_one_have_no_command(
    open_widget: Any, stack: np.ndarray, tmp_path: Any, make_napari_viewer: Any
) -> None:
    import tifffile

    files = [str(tmp_path / f"{z}.tif") for z in range(3)]
    for file, section in zip(files, stack, strict=True):
        tifffile.imwrite(file, section, photometric="minisblack")
    viewer = make_napari_viewer(show=True)
    viewer.open(files, stack=True, plugin="napari-drososeg")
    assert viewer.layers[0].source.path == files[0]  # which is not all of it
    widget = open_widget(viewer=viewer)
    assert not widget.copy_button.enabled
    assert "opened from several files" in widget.copy_button.tooltip


def test_choices_persist_but_not_the_images(
    open_widget: Any, make_napari_viewer: Any, qtbot: Any, finish: Any, stack: np.ndarray
) -> None:
    widget = open_widget(stack)
    widget.scope.value = Scope.SECTION
    widget.uncertainty.value = True
    widget.invert.value = True
    widget.pixel_size.value = 5.0
    click(qtbot, widget.run_button)
    finish(widget)
    from napari_drososeg._widgets.segment.widget import SegmentWidget

    viewer = make_napari_viewer()
    viewer.add_image(stack, name="another")
    again = SegmentWidget(viewer)
    qtbot.addWidget(again)
    assert again.network.value == "tiny"
    assert again.scope.value is Scope.SECTION
    assert again.uncertainty.value
    assert again.engine.value == "torch"
    assert not again.invert.value
    assert again.pixel_size.value == pytest.approx(4.6)
    again.close()


def test_choices_are_kept_without_a_run(make_napari_viewer: Any, qtbot: Any) -> None:
    from napari_drososeg._widgets.controls import preferences
    from napari_drososeg._widgets.segment.widget import SegmentWidget

    preferences.save("segment", {"network": "tiny", "device": "cuda:1"})
    viewer = make_napari_viewer(show=True)
    widget = SegmentWidget(viewer)
    viewer.window.add_dock_widget(widget)
    assert widget.device.value == "auto"  # it is not known yet whether there is such a card
    widget._show_devices(("cuda:0", "cuda:1"))
    assert widget.device.value == "cuda:1"
    assert widget.device.choices == ("auto", "cpu", "cuda:0", "cuda:1")
    widget.network.value = "unet"
    assert preferences.load("segment")["network"] == "unet"
    widget.halo.value = "exact"
    viewer.window.remove_dock_widget(widget)
    assert preferences.load("segment")["halo"] == "exact"
    assert preferences.load("segment")["device"] == "cuda:1"

    widget = SegmentWidget(viewer)
    viewer.window.add_dock_widget(widget)
    assert widget.halo.value == "exact"
    widget.halo.value = "default"
    viewer.close()
    assert preferences.load("segment")["halo"] == "default"


def test_what_it_runs_on_and_how_long_is_said_before(
    open_widget: Any, qtbot: Any, finish: Any, settle: Any, stack: np.ndarray
) -> None:
    from napari_drososeg.inference import accelerators
    from napari_drososeg.io import as_stack

    widget = open_widget(stack)
    settle(widget)
    assert "Runs on CPU, PyTorch, f32" in widget.card_text.value
    assert widget.device.choices == ("auto", "cpu", *accelerators())
    assert widget.expected_seconds(widget.job()) is None
    widget.scope.value = Scope.STACK
    click(qtbot, widget.run_button)
    finish(widget)
    settle(widget)
    predictor, job = widget.runner._predictor[1], widget.job()
    estimate = predictor.estimate(predictor.plan(as_stack(stack)))
    assert widget.expected_seconds(job) == pytest.approx(estimate)


def test_what_napari_imports_late_is_imported_by_a_thread(
    open_widget: Any, qtbot: Any, stack: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    from napari_drososeg._widgets.segment import widget

    imported: list[tuple[str, bool]] = []

    def import_module(name: str) -> None:
        imported.append((name, threading.current_thread() is threading.main_thread()))

    monkeypatch.setattr(widget, "import_module", import_module)
    open_widget(stack)
    qtbot.waitUntil(lambda: imported == [("pandas", False)], timeout=10_000)


def test_notices_of_the_reader_are_said(open_widget: Any, qtbot: Any, finish: Any, stack: np.ndarray) -> None:
    widget = open_widget(stack, metadata={"notices": ["RGB converted to grey."]})
    assert widget.status.value == "RGB converted to grey."
    click(qtbot, widget.run_button)
    finish(widget)
    assert widget.status.value.count("RGB converted to grey.") == 1
    assert labels_of(widget).metadata["drososeg"]["notices"] == ["RGB converted to grey."]


def test_keys_choose_the_class(open_widget: Any, qtbot: Any, finish: Any, stack: np.ndarray) -> None:
    widget = open_widget(stack)
    click(qtbot, widget.run_button)
    finish(widget)
    layer = labels_of(widget)
    widget.viewer.layers.selection.active = layer
    canvas = widget.viewer.window._qt_viewer.canvas.native
    for key, value in ((Qt.Key.Key_E, 3), (Qt.Key.Key_Q, 1), (Qt.Key.Key_W, 2)):
        qtbot.keyClick(canvas, key, Qt.KeyboardModifier.ShiftModifier)
        assert layer.selected_label == value
        assert layer.mode == "paint"  # a drag paints, and does not move the picture
    layer.mode = "fill"
    qtbot.keyClick(canvas, Qt.Key.Key_E, Qt.KeyboardModifier.ShiftModifier)
    assert (layer.selected_label, layer.mode) == (3, "fill")
    assert "Shift+Q" in widget.keys.value
