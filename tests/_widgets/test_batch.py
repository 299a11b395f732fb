"""The Batch widget in a real viewer with its real process: bad files, cancelling, going on, closing, being killed."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from napari.layers import Image, Labels
from napari.utils.notifications import NotificationSeverity, notification_manager
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication, QMessageBox
from typer.testing import CliRunner

from napari_drososeg._widgets.work.worker import State
from napari_drososeg.io import read_labels

PATIENCE = 900_000
"""Milliseconds. The process that works imports torch first; what takes too long is for pytest's own timeout to say."""


@pytest.fixture(scope="module")
def converted(balanced_network: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the tiny network for OpenVINO: converting it takes longer than a test."""
    from napari_drososeg.inference import conversion

    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DROSOSEG_CACHE", str(cache))
        conversion.converted(balanced_network)
    return cache


@pytest.fixture
def open_batch(make_napari_viewer: Any, qtbot: Any, converted: Path) -> Callable[..., Any]:
    """Give a viewer with the Batch widget docked, on the tiny network, with torch unless another engine is named.

    torch is slow enough to be stopped on the way, but takes seconds to start.
    """

    def build(source: Path | None = None, engine: str = "torch") -> Any:
        from napari_drososeg._widgets.batch.widget import BatchWidget

        shutil.copytree(converted, os.environ["DROSOSEG_CACHE"], dirs_exist_ok=True)
        viewer = make_napari_viewer(show=True)
        widget = BatchWidget(viewer)
        viewer.window.add_dock_widget(widget, name="Batch predict", area="right")
        qtbot.waitUntil(widget.isVisible)
        widget.network.value = "tiny"
        widget.device.value, widget.engine.value, widget.precision.value = "cpu", engine, "f32"
        if source is not None:
            widget.source.value = str(source)
            looked(qtbot, widget)
        return widget

    return build


def looked(qtbot: Any, widget: Any) -> None:
    """Wait until the widget has looked at what is chosen."""

    def through() -> bool:
        return widget._looking is None and not widget._later.isActive() and widget.looked_job == widget.job()

    qtbot.waitUntil(through, timeout=PATIENCE)


def press(qtbot: Any, widget: Any) -> None:
    qtbot.mouseClick(widget.run_button.native, Qt.MouseButton.LeftButton)


def finish(qtbot: Any, widget: Any) -> None:
    qtbot.waitUntil(lambda: not widget.runner.busy, timeout=PATIENCE)
    looked(qtbot, widget)


def states(widget: Any) -> dict[str, str]:
    return {Path(row.source).name: row.state for row in widget.table.files.rows}


def row(widget: Any, name: str) -> Any:
    return next(r for r in widget.table.files.rows if Path(r.source).name == name)


def expected(path: Path, zoo: Path, engine: str) -> np.ndarray:
    """What the engine says without a viewer."""
    from napari_drososeg.inference import PredictConfig, predict
    from napari_drososeg.io import read_stack

    return predict(read_stack(path), zoo / "tiny.safetensors", PredictConfig("cpu", engine, "f32"))


@pytest.fixture
def folder(tmp_path: Path, many_sections: Callable[..., np.ndarray]) -> Path:
    """Two good files, one cut short, one of no bytes."""
    place = tmp_path / "my images ☃"
    place.mkdir()
    sections = many_sections(2, 64, 48)
    for section, name in zip(sections, ("a b.tif", "ünï.tif"), strict=True):
        tifffile.imwrite(place / name, section)
    (place / "cut short.tif").write_bytes((place / "a b.tif").read_bytes()[:1500])
    (place / "empty.tif").write_bytes(b"")
    return place


@pytest.fixture
def volume(tmp_path: Path, many_sections: Callable[..., np.ndarray]) -> Path:
    """A stack of several blocks, as one file in a folder."""
    place = tmp_path / "volume"
    place.mkdir()
    tifffile.imwrite(place / "stack.tif", many_sections(96, 160, 160))
    return place


def test_run_marks_bad_files_and_does_the_rest(
    open_batch: Any, qtbot: Any, folder: Path, zoo_with_tiny: Path, tmp_path: Path
) -> None:
    widget = open_batch(folder, "openvino")
    assert widget.output.value == f"{folder}-labels"
    assert states(widget) == dict.fromkeys(("a b.tif", "cut short.tif", "empty.tif", "ünï.tif"), "waiting")
    assert widget.summary.value.startswith("4 files")
    assert not widget.record_button.enabled
    notification_manager.records.clear()
    press(qtbot, widget)
    assert widget.run_button.text == "Cancel"
    assert not widget.inputs.enabled
    finish(qtbot, widget)

    assert states(widget) == {"a b.tif": "done", "cut short.tif": "failed", "empty.tif": "failed", "ünï.tif": "done"}
    assert "cut short" in row(widget, "cut short.tif").note
    assert "empty" in row(widget, "empty.tif").note
    assert widget.run_button.text == "Run"
    qtbot.waitUntil(lambda: widget.record_button.enabled, timeout=20_000)  # once the folder has been looked at again
    assert widget.run_button.enabled
    assert widget.inputs.enabled
    assert "2 done, 2 failed" in widget.status.value
    assert [r.severity for r in notification_manager.records] == [NotificationSeverity.WARNING]
    for name in ("a b", "ünï"):
        found = read_labels(Path(widget.output.value) / f"{name}.tif")
        np.testing.assert_array_equal(found.read(0), expected(folder / f"{name}.tif", zoo_with_tiny, "openvino")[0])
    areas = folder.with_name(f"{folder.name}-labels-areas.csv").read_text().splitlines()
    assert sum(",all," in line for line in areas) == 2 * 3
    shares = [float(text.removesuffix(" %")) for text in widget.legend.texts()]
    assert sum(shares) == pytest.approx(100, abs=0.2)

    widget.open_record()
    dialog = next(w for w in QApplication.topLevelWidgets() if type(w).__name__ == "RecordDialog")
    assert "cut short.tif: FAILED" in dialog.text.toPlainText()
    assert "ünï.tif: done" in dialog.text.toPlainText()
    dialog.close()
    opens_on_double_click(widget, qtbot)
    goes_on_once_mended(widget, qtbot, folder)
    command_does_the_same(widget, tmp_path)


def opens_on_double_click(widget: Any, qtbot: Any) -> None:
    files, viewer = widget.table.files, widget.viewer
    at = widget.table.visualRect(files.index(files.rows.index(row(widget, "ünï.tif")), 0)).center()
    for _ in range(2):  # the second time it is open already
        qtbot.mouseClick(widget.table.viewport(), Qt.MouseButton.LeftButton, pos=at)
        qtbot.mouseDClick(widget.table.viewport(), Qt.MouseButton.LeftButton, pos=at)
        qtbot.waitUntil(lambda: len(viewer.layers) == 2, timeout=PATIENCE)
    assert [type(layer) for layer in viewer.layers] == [Image, Labels]
    assert [layer.name for layer in viewer.layers] == ["ünï", "ünï [Tiny U-Net]"]
    written = read_labels(Path(row(widget, "ünï.tif").target))
    np.testing.assert_array_equal(np.asarray(viewer.layers[1].data)[0], written.read(0))
    assert "labels:" in widget.detail.value


def goes_on_once_mended(widget: Any, qtbot: Any, folder: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in Path(widget.output.value).glob("*.tif")}
    (folder / "cut short.tif").write_bytes((folder / "a b.tif").read_bytes())
    (folder / "empty.tif").unlink()
    widget.check_sections.value = False
    looked(qtbot, widget)
    assert states(widget) == {"a b.tif": "done", "cut short.tif": "failed", "ünï.tif": "done"}
    assert widget.summary.value.startswith("3 files, 2 done")
    press(qtbot, widget)
    finish(qtbot, widget)
    assert set(states(widget).values()) == {"done"}
    assert row(widget, "ünï.tif").note == "done before"
    assert row(widget, "cut short.tif").note == ""
    assert {p: p.stat().st_mtime_ns for p in before} == before


def command_does_the_same(widget: Any, tmp_path: Path) -> None:
    from napari_drososeg.cli import app

    widget.copy_button.native.click()
    output, again = f"{widget.output.value}/", f"{tmp_path / 'by command'}/"
    words = [w.replace(output.rstrip("/"), again.rstrip("/")) for w in shlex.split(QApplication.clipboard().text())]
    assert words[:4] == ["drososeg", "predict", widget.source.value, "-o"]
    assert words[4] == again
    result = CliRunner().invoke(app, words[1:])
    assert result.exit_code == 0, result.output
    for path in Path(output).glob("*.tif"):
        assert (Path(again) / path.name).read_bytes() == path.read_bytes()
    assert Path(f"{again.rstrip('/')}-areas.csv").read_text().count("all") == 9


def blocks_of(output: Path) -> list[dict[str, Any]]:
    """Lines of the record about finished blocks."""
    path = output / ".drososeg.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    return [line for line in lines if line["what"] == "block"]


def start_volume(widget: Any, qtbot: Any) -> None:
    """Run until the first block is there."""
    widget.form.value = "ome-zarr"
    looked(qtbot, widget)
    press(qtbot, widget)
    output = Path(widget.output.value)
    qtbot.waitUntil(lambda: bool(blocks_of(output)) or not widget.runner.busy, timeout=PATIENCE)
    assert widget.runner.busy, widget.status.value


def test_cancel_keeps_blocks_and_run_goes_on(open_batch: Any, qtbot: Any, volume: Path, zoo_with_tiny: Path) -> None:
    widget = open_batch(volume)
    start_volume(widget, qtbot)
    press(qtbot, widget)
    assert widget.run_button.text == "Cancelling"
    assert not widget.run_button.enabled
    finish(qtbot, widget)
    first = blocks_of(Path(widget.output.value))
    assert 0 < len(first) < 6
    assert states(widget) == {"stack.tif": "stopped"}
    assert widget.status.value.startswith("Cancelled: 1 stopped")
    assert not (Path(widget.output.value) / "stack.ome.zarr").exists()
    press(qtbot, widget)
    finish(qtbot, widget)
    assert states(widget) == {"stack.tif": "done"}
    made = [(b["level"], *b["index"]) for b in blocks_of(Path(widget.output.value))]
    assert len(made) == len(set(made))  # none was made twice
    labels = read_labels(Path(widget.output.value) / "stack.ome.zarr")
    truth = expected(volume / "stack.tif", zoo_with_tiny, "torch")
    np.testing.assert_array_equal(np.stack([labels.read(z) for z in range(96)]), truth)


@pytest.mark.parametrize("what", ["widget", "viewer"])
def test_closing_stops_the_process_and_keeps_what_is_done(open_batch: Any, qtbot: Any, volume: Path, what: str) -> None:
    widget = open_batch(volume)
    start_volume(widget, qtbot)
    process, output = widget.runner._process._process, Path(widget.output.value)
    if what == "viewer":
        widget.viewer.close()
    else:
        widget.viewer.window.remove_dock_widget(widget)
        assert not widget.runner.busy
    qtbot.waitUntil(lambda: process.poll() is not None, timeout=PATIENCE)
    assert 0 < len(blocks_of(output)) < 6
    assert not (output / "stack.ome.zarr").exists()


@pytest.mark.skipif(os.name == "nt", reason="processes are killed by signals")
def test_a_killed_process_is_said(open_batch: Any, qtbot: Any, volume: Path) -> None:
    widget = open_batch(volume)
    start_volume(widget, qtbot)
    notification_manager.records.clear()
    os.kill(widget.runner._process._process.pid, signal.SIGKILL)
    finish(qtbot, widget)
    assert "process was killed" in widget.status.value
    assert states(widget) == {"stack.tif": "stopped"}
    assert widget.run_button.text == "Run"
    assert widget.run_button.enabled
    assert [r.severity for r in notification_manager.records] == [NotificationSeverity.ERROR]


def test_a_large_run_is_asked_about(open_batch: Any, qtbot: Any, tmp_path: Path) -> None:
    import zarr

    place = tmp_path / "large"
    place.mkdir()
    array = zarr.create_array(place / "v.zarr", shape=(4000, 20_000, 20_000), chunks=(1, 2000, 2000), dtype="uint8")
    array[0, :100, :100] = 7
    widget = open_batch(place, "openvino")
    widget.form.value = "ome-zarr"
    looked(qtbot, widget)
    press(qtbot, widget)
    qtbot.waitUntil(lambda: widget._question is not None or not widget.runner.busy, timeout=PATIENCE)
    assert widget.runner.state is State.LOADING
    assert "GB are free" in widget._question.text()
    widget._question.button(QMessageBox.StandardButton.No).click()
    qtbot.waitUntil(lambda: not widget.runner.busy, timeout=PATIENCE)
    assert widget.status.value.startswith("Not started.")
    assert not Path(widget.output.value).exists()
