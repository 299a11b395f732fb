"""What the form takes from an image layer follows the layer; what lies on disk stays apart from that of others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_drososeg._widgets import files
from napari_drososeg._widgets.store import new_scratch, scratch_root


def test_the_pixel_size_follows_the_layers_scale(open_widget: Any, stack: np.ndarray) -> None:
    widget = open_widget(stack)
    layer = widget.viewer.layers[0]
    layer.units = ("nm", "nm", "nm")
    layer.scale = (50, 9.2, 9.2)
    assert widget.pixel_size.value == pytest.approx(9.2)
    assert widget.job().config.pixel_size == pytest.approx(9.2)


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
    kind = next(k for k, (form, _) in files.FORMATS.items() if form == "tiff")
    answers = iter([files.QMessageBox.StandardButton.No, files.QMessageBox.StandardButton.Yes])
    (tmp_path / "labels.tif").touch()
    # the two dialogs of Qt block; what they answer is the user's part
    monkeypatch.setattr(files.QFileDialog, "getSaveFileName", lambda *_: (str(tmp_path / "labels"), kind))
    monkeypatch.setattr(files.QMessageBox, "question", lambda *_: next(answers))
    assert files.save_dialog(widget, "labels") is None
    assert files.save_dialog(widget, "labels") == (tmp_path / "labels.tif", "tiff")
