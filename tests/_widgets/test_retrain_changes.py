"""What a user does to layers, images and widgets while Annotate and retrain is open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.layers import Labels
from napari.utils.notifications import notification_manager
from qtpy.QtWidgets import QFileDialog, QMessageBox

from napari_drososeg._widgets.controls import preferences
from napari_drososeg._widgets.layers.images import voxel_size_of
from napari_drososeg.inference.config import choose
from napari_drososeg.workspace import open_workspace
from napari_drososeg.workspace.suggest import Suggestion


def annotate(widget: Any, qtbot: Any, z: int = 0) -> Labels:
    """Begin empty labels and paint on them, so that there is a workspace and an outline."""
    layer = widget.new_labels().layer
    layer.brush_size = 9
    layer.paint((z, 40, 40), 2)
    outline = lambda: widget.annotation.overview is not None and widget.annotation.overview.layer  # noqa: E731
    qtbot.waitUntil(lambda: bool(outline()), timeout=20_000)
    return layer


def test_everything_selected_can_be_deleted(open_retrain: Any, qtbot: Any, stack: np.ndarray) -> None:
    widget = open_retrain(data=stack)
    annotate(widget, qtbot)
    viewer = widget.viewer
    assert len(viewer.layers) == 3
    viewer.layers.select_all()
    viewer.layers.remove_selected()
    qtbot.waitUntil(lambda: len(viewer.layers) == 0, timeout=5000)
    assert widget.image.value is None


def test_the_outline_goes_with_its_image(open_retrain: Any, qtbot: Any, stack: np.ndarray) -> None:
    widget = open_retrain(data=stack)
    labels = annotate(widget, qtbot)
    widget.viewer.layers.remove(widget.image.value)
    qtbot.waitUntil(lambda: list(widget.viewer.layers) == [labels], timeout=5000)


def test_a_deleted_outline_stays_away(open_retrain: Any, qtbot: Any, stack: np.ndarray) -> None:
    widget = open_retrain(data=stack)
    layer = annotate(widget, qtbot)
    widget.viewer.layers.remove(widget.annotation.overview.layer)
    qtbot.waitUntil(lambda: not widget.outline.value, timeout=5000)
    layer.paint((0, 60, 60), 1)
    qtbot.waitUntil(lambda: widget.annotation.overview.trains[1] > 0, timeout=20_000)
    assert len(widget.viewer.layers) == 2
    widget.outline.value = True
    qtbot.waitUntil(lambda: len(widget.viewer.layers) == 3, timeout=20_000)


def test_an_image_of_four_axes_is_marked_and_nothing_else(open_retrain: Any, qtbot: Any) -> None:
    before = len(notification_manager.records)
    widget = open_retrain(data=np.zeros((2, 3, 40, 50), np.uint8))
    assert "4 axes" in widget.problem.value
    assert voxel_size_of(widget.image.value) == (None, None, None)
    widget.tick()
    qtbot.wait(400)  # longer than between two looks of its timer
    assert len(notification_manager.records) == before


@pytest.mark.parametrize("choice", [{"device": "cuda"}, {"precision": "f16", "device": "cpu"}, {"device": "mps"}])
def test_what_was_chosen_on_another_machine_does_not_hinder_a_prediction(
    open_retrain: Any, stack: np.ndarray, choice: dict[str, str]
) -> None:
    widget = open_retrain(data=stack)
    preferences.save("segment", choice)
    config = widget.predict_config(widget.image.value, widget.start_card.spec)
    choose(config)
    assert (config.device, config.engine, config.precision) == ("auto", "auto", "auto")


def test_the_labels_of_a_renamed_and_calibrated_image_follow_it(
    open_retrain: Any, qtbot: Any, stack: np.ndarray
) -> None:
    widget = open_retrain(data=stack)
    widget.segment_section()
    qtbot.waitUntil(lambda: not widget.repainter.busy, timeout=60_000)
    image, target = widget.image.value, widget.target
    assert target.layer.name == "em [Tiny U-Net]"
    image.name, image.scale = "cortex", (30, 8, 8)
    widget.segment_section()
    qtbot.waitUntil(lambda: not widget.repainter.busy, timeout=60_000)
    assert widget.target is target
    assert target.layer.name == "cortex [Tiny U-Net]"
    np.testing.assert_array_equal(target.layer.scale, (30, 8, 8))
    target.layer.name = "mine"
    widget.segment_section()
    qtbot.waitUntil(lambda: not widget.repainter.busy, timeout=60_000)
    assert target.layer.name == "mine"


def test_another_folder_says_where_the_annotation_is_that_was(
    open_retrain: Any, qtbot: Any, stack: np.ndarray, tmp_path: Path
) -> None:
    widget = open_retrain(data=stack)
    layer = annotate(widget, qtbot)
    before = widget.annotation.folder
    widget.use_folder(tmp_path / "second")
    assert str(before) in widget.status.value
    assert "no longer used for training" in widget.status.value
    layer.paint((1, 60, 60), 3)
    qtbot.waitUntil(lambda: widget.annotation.workspace is not None, timeout=20_000)
    widget.annotation.flush()
    assert widget.annotation.workspace.sections == [1]
    assert layer.data[0, 40, 40] == 2
    widget.outcome = ""
    widget.use_folder(tmp_path / "second")
    assert widget.outcome == ""
    widget.use_folder(before)
    widget.annotation.flush()
    assert widget.annotation.workspace.sections == [0]


def test_the_annotation_can_be_copied_to_another_folder(
    open_retrain: Any, qtbot: Any, stack: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    widget = open_retrain(data=stack)
    annotate(widget, qtbot)
    before = widget.annotation.folder
    known = widget.annotation.workspace.labels(0)
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path / "second"))
    (tmp_path / "second").mkdir()
    monkeypatch.setattr(QMessageBox, "question", lambda *_: QMessageBox.StandardButton.Cancel)
    widget._ask_folder()
    assert widget.annotation.folder == before
    monkeypatch.setattr(QMessageBox, "question", lambda *_: QMessageBox.StandardButton.Yes)
    widget._ask_folder()
    assert widget.annotation.folder == tmp_path / "second"
    np.testing.assert_array_equal(widget.annotation.workspace.labels(0), known)
    assert "copied" in widget.status.value
    with open_workspace(before) as old:
        np.testing.assert_array_equal(old.labels(0), known)
    (tmp_path / "third").mkdir()
    (tmp_path / "third" / "mine.txt").touch()
    widget.use_folder(tmp_path / "third", along=True)
    assert "not empty" in notification_manager.records[-1].message
    assert widget.annotation.folder == tmp_path / "second"
    assert widget.annotation.workspace is not None


def test_a_place_is_gone_to_in_a_transposed_view(open_retrain: Any, qtbot: Any, stack: np.ndarray) -> None:
    widget = open_retrain(data=stack)
    annotate(widget, qtbot)
    viewer = widget.viewer
    for order in ((0, 1, 2), (0, 2, 1)):
        viewer.dims.order = order
        widget._go(Suggestion(1, slice(0, 20), slice(60, 70), 0.5))
        row, column = (10, 65) if order == (0, 1, 2) else (65, 10)
        assert viewer.scene.camera.center[1:] == pytest.approx((row, column))
    assert viewer.dims.current_step[0] == 1


def test_the_keys_stay_with_the_widget_that_has_them(open_retrain: Any, stack: np.ndarray) -> None:
    first = open_retrain(data=stack)
    second = open_retrain(viewer=first.viewer)
    first.stop()
    bound = set(map(id, second.viewer.keymap.values()))
    assert {id(pressed) for pressed in second._keys.values()} <= bound
    second.stop()
    assert not {id(pressed) for pressed in second._keys.values()} & set(map(id, second.viewer.keymap.values()))
