"""What changes under the Segment widget: units, network files, pixels and layers."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.layers import Labels
from qtpy.QtCore import QCoreApplication, QEvent, QObject, Qt

from napari_drososeg._widgets.layers.images import view_of
from napari_drososeg._widgets.segment import choice
from napari_drososeg._widgets.work import store, work
from napari_drososeg._widgets.work.job import Scope
from napari_drososeg._widgets.work.work import Work
from napari_drososeg._widgets.work.worker import Control
from napari_drososeg.checkpoint import load_model, save_checkpoint, sha256
from napari_drososeg.inference import PredictConfig, predict
from napari_drososeg.io import as_stack


def click(qtbot: Any, button: Any) -> None:
    qtbot.mouseClick(button.native, Qt.MouseButton.LeftButton)


def labels_in(widget: Any) -> list[Labels]:
    return [layer for layer in widget.viewer.layers if isinstance(layer, Labels)]


def test_a_unit_far_off_is_marked_not_an_error(make_napari_viewer: Any, open_widget: Any, stack: np.ndarray) -> None:
    viewer = make_napari_viewer(show=True)
    image = viewer.add_image(stack, name="em", units=("mm", "mm", "mm"))
    widget = open_widget(viewer=viewer)
    assert widget.marked("pixel_size")
    assert not widget.run_button.enabled
    image.units, image.scale = ("nm", "nm", "nm"), (50, 4.6, 4.6)
    widget.update_state()
    assert not widget.marked("pixel_size")
    image.units = ("mm", "mm", "mm")
    widget.update_state()
    assert not widget.run_button.enabled


def test_a_network_file_that_was_replaced_is_used(
    open_widget: Any, qtbot: Any, finish: Any, stack: np.ndarray, zoo_with_tiny: Path
) -> None:
    import torch

    widget = open_widget(stack)
    widget.scope.value, widget.pixel_size.value = Scope.STACK, 4.6
    click(qtbot, widget.run_button)
    finish(widget)
    layer, path = labels_in(widget)[0], zoo_with_tiny / "tiny.safetensors"
    before = np.array(layer.data)
    spec, model = load_model(path)
    last = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d)][-1]
    with torch.no_grad():
        last.bias.copy_(last.bias.roll(1))
    save_checkpoint(path, model.state_dict(), spec)
    widget.update_state()
    assert widget.run_button.text == "Segment"  # nothing is done by this one
    click(qtbot, widget.run_button)
    finish(widget)
    assert layer.metadata["drososeg"]["sha256"] == sha256(path)
    config = PredictConfig("cpu", "torch", "f32", pixel_size=4.6)
    np.testing.assert_array_equal(layer.data, predict(as_stack(stack), path, config))
    assert (layer.data != before).any()


@pytest.mark.parametrize("change", ["same shape", "another shape", "removed"])
def test_an_image_that_changes_while_the_network_loads_ends_the_run(
    change: str, open_widget: Any, qtbot: Any, finish: Any, stack: np.ndarray
) -> None:
    widget = open_widget(stack)
    image = widget.viewer.layers["em"]
    widget.scope.value = Scope.STACK
    click(qtbot, widget.run_button)
    assert widget.runner.busy
    if change == "removed":
        widget.viewer.layers.remove(image)
    else:
        image.data = 255 - stack if change == "same shape" else stack[:, :50, :60]
    finish(widget)
    assert widget.runner.message == "Stopped: the image was removed, or given other data."
    assert not labels_in(widget)
    if change != "removed":
        click(qtbot, widget.run_button)
        finish(widget)
        assert widget.runner.message.startswith("Done")
        assert labels_in(widget)[0].data.all()


@pytest.mark.parametrize("segmented", [False, True])
def test_an_image_is_let_go_with_its_layer(
    segmented: bool, open_widget: Any, qtbot: Any, finish: Any, settle: Any, many_sections: Any
) -> None:
    widget = open_widget()
    widget.viewer.add_image(many_sections(3), name="gone")
    settle(widget)
    if segmented:
        widget.pixel_size.value = 4.6
        click(qtbot, widget.run_button)
        finish(widget)
    pixels = weakref.ref(widget.viewer.layers["gone"].data)
    widget.viewer.layers.clear()
    widget.viewer.add_image(many_sections(4), name="other")
    settle(widget)

    def freed() -> bool:
        QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
        gc.collect()
        return pixels() is None

    qtbot.waitUntil(freed, timeout=20_000)


def test_what_i_see_of_a_pyramid_reaches_its_border(open_widget: Any, qtbot: Any) -> None:
    finest = np.zeros((2048, 2048), np.uint8)
    widget = open_widget()
    layer = widget.viewer.add_image([finest[::n, ::n] for n in (1, 2, 4, 8)], multiscale=True, contrast_limits=(0, 255))
    widget.viewer.reset_view()
    qtbot.waitUntil(lambda: layer.data_level > 0, timeout=5000)
    assert view_of(widget.viewer, layer).rect == (0, 2048, 0, 2048)


def test_a_removed_uncertainty_is_made_again(open_widget: Any, qtbot: Any, finish: Any, stack: np.ndarray) -> None:
    widget = open_widget(stack)
    widget.uncertainty.value, widget.pixel_size.value = True, 4.6
    widget.scope.value, widget.first.value, widget.last.value = Scope.RANGE, 0, 1
    click(qtbot, widget.run_button)
    finish(widget)
    first = next(layer for layer in widget.viewer.layers if layer.name.endswith("uncertainty"))
    expected = np.array(first.data)
    widget.viewer.layers.remove(first)
    widget.scope.value = Scope.STACK
    click(qtbot, widget.run_button)
    finish(widget)
    again = next(layer for layer in widget.viewer.layers if layer.name.endswith("uncertainty"))
    np.testing.assert_array_equal(again.data[:2], expected[:2])
    assert again.data[2].any()


def test_what_is_wrong_in_one_result_is_not_said_of_another(
    open_widget: Any, qtbot: Any, finish: Any, stack: np.ndarray
) -> None:
    widget = open_widget(stack)
    widget.scope.value = Scope.STACK
    click(qtbot, widget.run_button)
    finish(widget)
    labels_in(widget)[0].paint((view_of(widget.viewer, widget.image.value).section, 20, 20), 9)
    qtbot.waitUntil(lambda: "label above 3" in widget.status.value, timeout=5000)
    widget.viewer.add_image(stack, name="other")
    widget.image.value = widget.viewer.layers["other"]
    widget.update_state()
    assert "label above 3" not in widget.status.value


def test_a_transposed_section_is_a_section_and_a_cut_through_all_is_not(open_widget: Any, stack: np.ndarray) -> None:
    widget = open_widget(stack)
    for order, ok in (((0, 2, 1), True), ((1, 0, 2), False), ((0, 1, 2), True)):
        widget.viewer.dims.order = order
        for scope in (Scope.VIEW, Scope.SECTION):
            widget.scope.value = scope
            widget.update_state()
            assert widget.marked("scope") is not ok
        widget.scope.value = Scope.STACK
        widget.update_state()
        assert widget.run_button.enabled


def test_a_stroke_that_does_not_end_is_said_and_cancel_is_heard(
    open_widget: Any, qtbot: Any, finish: Any, many_sections: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with the right button of napari's brush, which encircles and fills."""
    monkeypatch.setattr(work, "LONG_STROKE", 0.05)
    widget = open_widget(many_sections(12))
    widget.scope.value = Scope.SECTION
    click(qtbot, widget.run_button)
    finish(widget)
    widget.target.layer._block_history = True
    widget.scope.value = Scope.STACK
    click(qtbot, widget.run_button)
    qtbot.waitUntil(lambda: "press Esc" in widget.status.value, timeout=20_000)
    click(qtbot, widget.run_button)
    qtbot.waitUntil(lambda: not widget.runner.busy, timeout=20_000)
    assert widget.runner.message.startswith("Cancelled")
    widget.target.layer._block_history = False
    click(qtbot, widget.run_button)
    finish(widget)
    assert np.asarray(widget.target.layer.data).all()


def test_work_is_stopped_when_qt_deletes_it(make_napari_viewer: Any, qtbot: Any) -> None:
    """napari deletes widgets without a word when the window of one of several viewers is closed."""
    owner = QObject()
    doing = Work(make_napari_viewer(), owner)

    def endless(control: Control) -> Iterator[int]:
        while not control.stop.wait(0.01):
            yield 0

    doing._begin("Doing", "it", endless)
    control = doing._control
    owner.deleteLater()
    qtbot.waitUntil(control.stop.is_set, timeout=5000)


def test_a_large_result_leaves_its_uncertainty_behind(
    open_widget: Any, qtbot: Any, finish: Any, stack: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "IN_MEMORY_BYTES", 1000)
    widget = open_widget(stack)
    widget.uncertainty.value, widget.scope.value = True, Scope.SECTION
    click(qtbot, widget.run_button)
    finish(widget)
    uncertainty = widget.target.extra["uncertainty"]
    before = np.asarray(uncertainty.data)
    assert before.any()
    widget.viewer.layers.remove(widget.target.layer)
    qtbot.wait(200)
    gc.collect()
    np.testing.assert_array_equal(np.asarray(uncertainty.data), before)


def test_what_was_asked_of_an_image_that_went_is_not_said(
    open_widget: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch, stack: np.ndarray
) -> None:
    gate = threading.Event()
    monkeypatch.setattr(choice, "looks_inverted", lambda _stack: gate.wait(20))
    widget = open_widget(stack)
    widget.viewer.layers.clear()
    gate.set()
    qtbot.wait(300)
    assert widget.contrast_hint == ""
