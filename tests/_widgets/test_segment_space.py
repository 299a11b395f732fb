"""What the form takes from an image layer follows the layer; what lies on disk stays apart from that of others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_drososeg._widgets.files import dialogs
from napari_drososeg._widgets.work.store import new_scratch, scratch_root


def test_the_pixel_size_follows_the_layers_scale(open_widget: Any, stack: np.ndarray) -> None:
    widget = open_widget(stack)
    layer = widget.viewer.layers[0]
    layer.units = ("nm", "nm", "nm")
    layer.scale = (50, 9.2, 9.2)
    assert widget.pixel_size.value == pytest.approx(9.2)
    assert widget.job().config.pixel_size == pytest.approx(9.2)


def test_the_user_knows_better_than_a_wrong_scale(open_widget: Any, qtbot: Any, stack: np.ndarray) -> None:
    widget = open_widget(stack)
    layer = widget.viewer.layers[0]
    layer.units = ("um", "um", "um")  # and a scale of 1: what many programs write
    assert widget.pixel_size.value == 1000
    qtbot.waitUntil(lambda: not widget.run_button.enabled, timeout=5000)
    widget.pixel_size.value = 9.2
    assert widget.pixel_size.value == 9.2
    assert widget.run_button.enabled
    assert widget.job().config.pixel_size == 9.2
    assert "1000 nm; the value entered here is used instead" in widget.problem.value
    widget.network.value = "unet"  # nothing else puts the file's back
    assert widget.pixel_size.value == 9.2
    widget.pixel_size.value = 0
    assert widget.pixel_size.value == 1000
    widget.pixel_size.value = 9.2
    layer.scale = (0.05, 0.005, 0.005)  # mended in the layer: said later
    assert widget.pixel_size.value == pytest.approx(5.0)
    qtbot.waitUntil(lambda: not widget.problem.value, timeout=5000)


def test_the_range_follows_the_layers_data(open_widget: Any, stack: np.ndarray) -> None:
    widget = open_widget(stack)
    widget.viewer.layers[0].data = np.concatenate([stack, stack])
    assert widget.last.max == widget.last.value == 2 * len(stack) - 1


def test_arrays_of_another_machine_are_left_alone() -> None:
    theirs = scratch_root() / "another-machine" / "run-999999999-x"
    theirs.mkdir(parents=True)
    dead = new_scratch().parent / "run-999999999-x"
    dead.mkdir()
    new_scratch()
    assert theirs.exists()
    assert not dead.exists()


def test_a_renamed_save_asks_before_it_replaces(
    open_widget: Any, stack: np.ndarray, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    widget = open_widget(stack)
    kind = next(k for k, (form, _) in dialogs.FORMATS.items() if form == "tiff")
    answers = iter([dialogs.QMessageBox.StandardButton.No, dialogs.QMessageBox.StandardButton.Yes])
    (tmp_path / "labels.tif").touch()
    # the two dialogs of Qt block; what they answer is the user's part
    monkeypatch.setattr(dialogs.QFileDialog, "getSaveFileName", lambda *_: (str(tmp_path / "labels"), kind))
    monkeypatch.setattr(dialogs.QMessageBox, "question", lambda *_: next(answers))
    assert dialogs.save_dialog(widget, "labels") is None
    assert dialogs.save_dialog(widget, "labels") == (tmp_path / "labels.tif", "tiff")
