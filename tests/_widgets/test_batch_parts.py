"""The Batch widget without a run: what cannot work, what is remembered, the table, the job as a command."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication, QMessageBox

from napari_drososeg._widgets.batch.file_table import FileTable
from napari_drososeg._widgets.batch.job import BatchJob, clean_path, in_words
from napari_drososeg._widgets.batch.opening import show_result
from napari_drososeg._widgets.batch.outlook import UNDRAWN, FileRow, look_at
from napari_drososeg._widgets.batch.record import record_text
from napari_drososeg._widgets.controls import preferences
from napari_drososeg.batch import Batch
from napari_drososeg.inference import PredictConfig
from napari_drososeg.zoo import find_card

PREDICT = PredictConfig("cpu", "torch", "f32")


@pytest.fixture
def folder(tmp_path: Path, many_sections: Callable[..., np.ndarray]) -> Path:
    """Three sections, the last one black."""
    place = tmp_path / "in"
    place.mkdir()
    sections = many_sections(3, 64, 48)
    sections[2] = 0
    for z, section in enumerate(sections):
        tifffile.imwrite(place / f"{z}.tif", section)
    return place


@pytest.fixture
def job(folder: Path) -> BatchJob:
    """All of them to TIFFs beside them."""
    return BatchJob(str(folder), str(folder) + "-labels", "tiny", predict=PREDICT)


@pytest.fixture
def done(job: BatchJob) -> BatchJob:
    """The job, done."""
    batch = Batch(job.plan(), find_card("tiny"), job.config(), lambda _text: None)
    batch.prepare()
    assert {e.outcome.state for e in batch.run() if e.outcome is not None} == {"done"}
    return job


@pytest.fixture
def widget(make_napari_viewer: Any, qtbot: Any) -> Any:
    """The widget in a viewer that is not shown."""
    from napari_drososeg._widgets.batch.widget import BatchWidget

    widget = BatchWidget(make_napari_viewer(show=False))
    qtbot.addWidget(widget)
    widget.network.value = "tiny"
    widget.device.value, widget.engine.value, widget.precision.value = "cpu", "torch", "f32"
    return widget


def choose(qtbot: Any, widget: Any, **values: Any) -> None:
    """Make choices and wait until the widget has looked at them."""
    for name, value in values.items():
        getattr(widget, name).value = value

    def through() -> bool:
        if widget._looking is not None or widget._later.isActive():
            return False
        return widget.job() is None or widget.looked_job == widget.job()

    qtbot.waitUntil(through, timeout=120_000)


# ---------------------------------------------------------------- what cannot work


def test_nothing_chosen_says_what_to_do(widget: Any) -> None:
    assert not widget.run_button.enabled
    assert not widget.empty.native.isHidden()
    assert "Choose a folder" in widget.empty_text.value
    assert widget.table.isHidden()


def test_the_sample_folder_is_put_in(widget: Any, qtbot: Any) -> None:
    widget.sample_button.native.click()
    qtbot.waitUntil(lambda: bool(widget.source.value), timeout=120_000)
    choose(qtbot, widget)
    assert widget.summary.value.startswith("8 files")
    assert widget.run_button.enabled
    assert widget.empty.native.isHidden()


@pytest.mark.parametrize(
    ("choices", "field", "reason"),
    [
        ({"source": "/no/such/folder"}, "source", "does not exist"),
        ({"pattern": "*.jpg"}, "pattern", "no images called '*.jpg'"),
        ({"output": ""}, "output", "Choose a folder for the labels"),
        ({"output": "IN/0.tif"}, "output", "not a folder"),
        ({"output": "IN/below", "subfolders": True}, "output", "lies inside the input"),
        ({"precision": "f16"}, "precision", "f16 is for graphics cards"),
        ({"pixel_size": 4600.0}, "pixel_size", "check the unit"),
    ],
)
def test_a_choice_that_cannot_work_is_marked(
    widget: Any, qtbot: Any, folder: Path, choices: dict[str, Any], field: str, reason: str
) -> None:
    choose(qtbot, widget, source=str(folder))
    assert widget.run_button.enabled, widget.problems()
    choose(qtbot, widget, **{k: v.replace("IN", str(folder)) if isinstance(v, str) else v for k, v in choices.items()})
    assert widget.marked(field)
    assert reason in widget.problem.value
    assert not widget.run_button.enabled
    assert reason in widget._fields[field][2].tooltip


def test_outputs_that_cannot_be_written_are_marked_each_at_its_field(
    widget: Any, qtbot: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_drososeg.batch import overlays
    from napari_drososeg.io import atomic

    def wrong(field: str, reason: str) -> None:
        assert [name for name in widget.fields if widget.marked(name)] == [field]
        assert reason in widget.problem.value
        assert reason in getattr(widget, field).tooltip
        assert not widget.run_button.enabled

    choose(qtbot, widget, source=str(folder), overlays=True, probabilities=True)
    assert widget.run_button.enabled, widget.problems()
    # a folder that can be written to in one that cannot: the labels could go there, what lies beside them could not
    output = folder.with_name("in-labels")
    output.mkdir()
    write = atomic.tempfile.TemporaryFile

    def refusing(dir: Path) -> Any:  # noqa: A002
        if dir == folder.parent:
            raise PermissionError(13, "Permission denied")
        return write(dir=dir)

    monkeypatch.setattr(atomic.tempfile, "TemporaryFile", refusing)
    choose(qtbot, widget, overlays=False, probabilities=False)
    wrong("areas", f"Cannot write to '{folder.parent}'; untick this, or choose another output folder.")
    choose(qtbot, widget, areas=False)
    assert widget.run_button.enabled
    choose(qtbot, widget, probabilities=True)
    wrong("probabilities", "Cannot write to")
    monkeypatch.undo()
    choose(qtbot, widget, probabilities=False, overlays=True)
    assert widget.run_button.enabled

    monkeypatch.setattr(overlays, "MAX_PIXELS", 60 * 40)
    choose(qtbot, widget, overlays=False)
    assert widget.run_button.enabled
    choose(qtbot, widget, overlays=True)
    wrong("overlays", "up to 0 megapixels")
    tifffile.imwrite(folder / "small.tif", np.zeros((32, 32), np.uint8))
    choose(qtbot, widget, pattern="?.tif")
    wrong("overlays", "up to 0 megapixels")
    choose(qtbot, widget, pattern="*")  # one of them can be drawn: the others are for the table to tell
    assert widget.run_button.enabled

    choose(qtbot, widget, overlays=False, existing=True)
    assert widget.run_button.enabled
    (output / "0.tif").mkdir()
    choose(qtbot, widget, pattern="0*")
    wrong("output", "is a folder, and tiff labels are a file")
    (folder.parent / "notes.txt").touch()
    choose(qtbot, widget, output=str(folder.parent / "notes.txt" / "labels"))
    wrong("output", "notes.txt' is a file and cannot contain a folder")


def test_what_is_left_of_a_run_is_not_taken_for_all_of_it(widget: Any, qtbot: Any, done: BatchJob) -> None:
    (Path(done.source) / "cut.tif").write_bytes((Path(done.source) / "0.tif").read_bytes()[:900])
    choose(qtbot, widget, source=done.source)
    assert "4 files, 3 done" in widget.summary.value
    assert widget.run_button.enabled, widget.problems()  # it may be mended meanwhile


def test_a_single_file_that_cannot_be_done_is_marked(widget: Any, qtbot: Any, folder: Path) -> None:
    (folder / "cut.tif").write_bytes((folder / "0.tif").read_bytes()[:900])
    choose(qtbot, widget, source=str(folder / "cut.tif"))
    assert widget.marked("source")
    assert not widget.run_button.enabled
    choose(qtbot, widget, source=str(folder))  # others can be done: the table tells
    assert widget.run_button.enabled
    micrometres = {"imagej": True, "metadata": {"unit": "um"}, "resolution": (1, 1)}
    tifffile.imwrite(folder / "wide.tif", np.ones((9, 9), np.uint8), **micrometres)
    choose(qtbot, widget, source=str(folder / "wide.tif"))
    assert widget.marked("pixel_size")
    assert "by more than a factor of 16" in widget.problem.value
    assert "⚠" in widget.collapsible.text()  # the field is in the closed part
    choose(qtbot, widget, pixel_size=4.6)
    assert widget.run_button.enabled


def test_a_name_taken_by_a_strangers_table_is_marked(widget: Any, qtbot: Any, folder: Path) -> None:
    folder.with_name("in-labels-areas.csv").write_text("my,own,table\n")
    choose(qtbot, widget, source=str(folder))
    assert widget.marked("areas")
    choose(qtbot, widget, areas=False)
    assert widget.run_button.enabled


def test_other_settings_than_before_are_marked(widget: Any, qtbot: Any, done: BatchJob) -> None:
    choose(qtbot, widget, source=done.source)
    assert "3 done" in widget.summary.value
    assert widget.run_button.enabled
    choose(qtbot, widget, halo="exact")
    assert widget.marked("existing")
    assert "halo default, now exact" in widget.problem.value
    assert "--" not in widget.problem.value
    choose(qtbot, widget, halo="default", orientations=4)
    assert widget.marked("existing")
    assert "average 1, now 4" in widget.problem.value
    assert "--orientations 4" in widget.job().command()
    assert BatchJob.from_json(widget.job().to_json()).predict.orientations == 4
    choose(qtbot, widget, existing=True)
    assert not widget.marked("existing")
    assert widget.run_button.enabled


def test_replacing_is_asked_about(widget: Any, qtbot: Any, done: BatchJob) -> None:
    choose(qtbot, widget, source=done.source, existing=True)
    widget.run_or_cancel()
    assert "replaces 3 of the existing outputs" in widget._question.text()
    widget._question.button(QMessageBox.StandardButton.No).click()
    assert not widget.runner.busy
    assert widget._question is None


# ---------------------------------------------------------------- what is known before, and remembered


def test_the_record_is_shown_before_a_run(done: BatchJob) -> None:
    outlook = look_at(done, find_card("tiny"))
    assert [row.state for row in outlook.rows] == ["done"] * 3
    assert [f["kind"] for f in outlook.rows[2].findings] == ["missing"]
    text = record_text(Path(done.output) / ".drososeg.jsonl")
    assert "network tiny" in text
    assert "2.tif: section 0 missing" in text
    assert text.count("done in") == 3


def test_choices_are_remembered(widget: Any, qtbot: Any, folder: Path) -> None:
    from napari_drososeg._widgets.batch.widget import BatchWidget

    choose(
        qtbot,
        widget,
        source=str(folder),
        pattern="0*",
        form="png",
        areas=False,
        subfolders=True,
        pixel_size=5.0,
        overlays=True,
        orientations=8,
        existing=True,
    )
    again = BatchWidget(widget.viewer)
    qtbot.addWidget(again)
    assert again.network.value == "tiny"
    assert (again.source.value, again.pattern.value, again.form.value) == (str(folder), "0*", "png")
    assert not again.areas.value
    assert again.overlays.value
    assert again.subfolders.value
    assert again.orientations.value == 8
    assert again.pixel_size.value == 0  # it belongs to the images
    assert not again.existing.value  # what is done is not made again unasked
    choose(qtbot, again)
    assert again.summary.value.startswith("1 file,")
    again.network.value = "unet"
    assert preferences.load("batch")["network"] == "unet"


def test_the_output_follows_until_it_is_chosen(widget: Any, qtbot: Any, tmp_path: Path) -> None:
    widget.source.value = str(tmp_path / "one")
    widget.source.value = str(tmp_path / "two.ome.zarr")
    assert widget.output.value == str(tmp_path / "two-labels")
    widget.output.value = "/elsewhere"
    widget.source.value = str(tmp_path / "three")
    assert widget.output.value == "/elsewhere"


# ---------------------------------------------------------------- the job


def test_done_labels_are_only_drawn_when_overlays_are_asked_for(widget: Any, qtbot: Any, done: BatchJob) -> None:
    choose(qtbot, widget, source=done.source)
    assert "3 done" in widget.summary.value
    choose(qtbot, widget, overlays=True)
    assert widget.run_button.enabled
    assert {row.note for row in widget.outlook.rows} == {UNDRAWN}
    assert not widget.outlook.pixels
    before = {p: p.stat().st_mtime_ns for p in Path(done.output).glob("*.tif")}
    widget.run_button.native.click()
    qtbot.waitUntil(lambda: not widget.runner.busy, timeout=120_000)
    choose(qtbot, widget)
    assert sorted(p.name for p in Path(f"{done.output}-overlays").iterdir()) == ["0.png", "1.png", "2.png"]
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert {row.state for row in widget.table.files.rows} == {"done"}
    assert "3 done" in widget.summary.value
    record = record_text(Path(done.output) / ".drososeg.jsonl").splitlines()
    drawn = [line for line in record if "overlays drawn" in line]
    assert len(drawn) == 3
    assert drawn[0].endswith(f"0.tif: overlays drawn, {done.output}-overlays/0.png")


def test_a_strangers_picture_is_marked(widget: Any, qtbot: Any, folder: Path) -> None:
    place = folder.with_name("in-labels-overlays")
    place.mkdir()
    (place / "1.png").write_bytes(b"mine")
    choose(qtbot, widget, source=str(folder), overlays=True)
    assert not widget.run_button.enabled
    assert "1.png' exists and is not in the record" in widget.problem.value
    choose(qtbot, widget, existing=True)
    assert widget.marked("overlays")
    assert not widget.marked("areas")
    assert "1.png' exists and does not contain overlays written by this program" in widget.problem.value
    assert "--" not in widget.problem.value
    choose(qtbot, widget, overlays=False)
    assert widget.run_button.enabled


def test_what_is_written_besides_lies_beside_the_labels(job: BatchJob, folder: Path) -> None:
    every = replace(job, overlays=True, probabilities=True)
    config = every.config()
    assert config.overlays == folder.with_name("in-labels-overlays")
    assert config.probabilities == folder.with_name("in-labels-probabilities")
    config.check(every.plan())
    words = shlex.split(every.command())
    assert words[words.index("--overlays") + 1] == str(config.overlays)
    assert words[words.index("--probabilities") + 1] == str(config.probabilities)
    one = replace(every, one_stack=True)
    assert one.config().probabilities == folder.with_name("in-labels") / "in-probabilities.zarr"
    assert one.config().overlays == folder.with_name("in-labels") / "in-overlays"
    one.config().check(one.plan())


def test_the_job_survives_being_sent(job: BatchJob) -> None:
    assert BatchJob.from_json(job.to_json()) == job


def test_a_folder_can_be_one_stack(job: BatchJob, folder: Path) -> None:
    from dataclasses import replace

    one = replace(job, one_stack=True, form="ome-zarr", pattern="*.tif", probabilities=True)
    plan = one.plan()
    assert [item.target for item in plan.items] == [folder.with_name("in-labels") / "in.ome.zarr"]
    assert plan.folder is None
    assert one.areas_path == folder.with_name("in-labels") / "in-areas.csv"
    assert one.probabilities_path == folder.with_name("in-labels") / "in-probabilities.zarr"
    assert "--pattern" not in shlex.split(one.command())
    assert look_at(one, find_card("tiny")).problems == {}


@pytest.mark.parametrize(
    ("text", "path"),
    [("  /a b/c ", "/a b/c"), ("file:///a%20b/%E2%98%83", "/a b/☃"), ('"/a b/c"', "/a b/c"), ("", ""), ("   ", "")],
)
def test_paths_are_taken_as_typed_or_dropped(text: str, path: str) -> None:
    assert clean_path(text) == (str(Path(path).absolute()) if path else "")


def test_messages_speak_of_fields() -> None:
    text = in_words("'x' exists and is not in the record of this output; move it away or use --overwrite.")
    assert text.endswith("move it away or use 'redo all'.")


# ---------------------------------------------------------------- the table


def test_ten_thousand_files(qtbot: Any) -> None:
    table = FileTable()
    qtbot.addWidget(table)
    table.resize(320, 300)
    table.show()
    rows = [FileRow(f"/in/{z // 100}/{z}\n.tif", f"/out/{z}.tif") for z in range(10_000)]
    started = time.monotonic()
    table.files.show_rows(rows)
    for z in range(0, 10_000, 10):
        rows[z].state = "done"
        table.files.touch(rows[z])
        table.files.flush()
    rows[5000].state, rows[5000].note = "failed", "/in/50/5000\n.tif is empty"
    table.files.touch(rows[5000])
    table.files.flush()
    table.sortByColumn(1, Qt.SortOrder.AscendingOrder)
    QApplication.processEvents()
    assert time.monotonic() - started < 5  # 0.2 s on a quiet machine
    assert table.files.rowCount() == 10_000
    first = [table.files.index(0, c).data() for c in range(4)]
    assert first == ["50/5000�.tif", "failed", "", "it is empty"]
    assert table.files.row_of("/in/50/5000\n.tif") is rows[5000]


def test_keys_copy_and_open(qtbot: Any) -> None:
    table = FileTable()
    qtbot.addWidget(table)
    table.files.show_rows([FileRow("/in/a.tif", "/out/a.tif", "failed", note="it is empty")])
    table.selectRow(0)
    with qtbot.waitSignal(table.opened) as caught:
        qtbot.keyClick(table, Qt.Key.Key_Return)
    assert caught.args[0].source == "/in/a.tif"
    qtbot.keyClick(table, Qt.Key.Key_C, Qt.KeyboardModifier.ControlModifier)
    assert QApplication.clipboard().text() == "/in/a.tif\tfailed\t\tit is empty"


def test_an_opened_file_is_seen(make_napari_viewer: Any, folder: Path) -> None:
    viewer = make_napari_viewer()
    viewer.add_image(np.zeros((5, 64, 48), np.uint8), name="taller")
    viewer.dims.set_point(0, 3)  # where a file of one section has nothing to show
    row = FileRow(str(folder / "0.tif"), "", "failed")
    show_result(viewer, row, "Tiny U-Net")
    assert viewer.dims.point[0] == 0
    viewer.layers["0"].visible = False
    show_result(viewer, row, "Tiny U-Net")  # open already
    assert len(viewer.layers) == 2
    assert viewer.layers["0"].visible
