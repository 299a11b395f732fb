"""The Evaluate widget in a real viewer: tables, error map, wrong choices, cancelling."""

from __future__ import annotations

import csv
import gc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.layers import Labels
from napari.utils.notifications import NotificationSeverity, notification_manager
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication

from napari_drososeg._widgets.evaluate.checks import KnownValues
from napari_drososeg.classes import DROSOPHILA_CLASSES, ClassTable, SegmentationClass
from napari_drososeg.metrics import Scores, confusion_matrix

SPACE = {"scale": (50, 4.6, 4.6), "translate": (0, 10, 20), "units": ("nm", "nm", "nm")}


def click(qtbot: Any, button: Any) -> None:
    qtbot.mouseClick(button.native, Qt.MouseButton.LeftButton)


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    """Labels and truth of five sections, different in about a quarter of the pixels."""
    rng = np.random.default_rng(5)
    truth = rng.integers(0, 4, (5, 40, 60), dtype=np.uint8)
    other = rng.integers(0, 4, truth.shape, dtype=np.uint8)
    return np.where(rng.random(truth.shape) < 0.4, other, truth), truth


@pytest.fixture
def open_evaluate(make_napari_viewer: Any, qtbot: Any) -> Callable[..., Any]:
    """Give a viewer with labels layers and the Evaluate widget docked."""

    def build(labels: Any = None, truth: Any = None, **arguments: Any) -> Any:
        from napari_drososeg._widgets.evaluate.widget import EvaluateWidget

        viewer = make_napari_viewer(show=True)
        for name, data in (("said", labels), ("right", truth)):
            if data is not None:
                viewer.add_labels(data, name=name, **arguments)
        widget = EvaluateWidget(viewer)
        viewer.window.add_dock_widget(widget, name="Evaluate", area="right")
        qtbot.waitUntil(widget.isVisible)
        return widget

    return build


@pytest.fixture
def done(qtbot: Any) -> Callable[[Any], None]:
    """Wait until a widget's comparison has ended."""

    def wait(widget: Any) -> None:
        qtbot.waitUntil(lambda: not widget.comparer.busy, timeout=30_000)

    return wait


@pytest.fixture
def said() -> Iterator[list[Any]]:
    """Notifications that came during the test."""
    heard: list[Any] = []
    notification_manager.notification_ready.connect(heard.append)
    yield heard
    notification_manager.notification_ready.disconnect(heard.append)


def scores(labels: np.ndarray, truth: np.ndarray) -> Scores:
    return Scores.from_confusion(confusion_matrix(truth, labels, 3))


def cells(found: Scores) -> list[list[str]]:
    rows = [*zip(found.iou, found.f1, found.precision, found.recall, strict=True)]
    rows.append((found.mean_iou, found.mean_f1, float(np.mean(found.precision)), found.mean_pixel_accuracy))
    return [[f"{v:.3f}" for v in row] for row in rows]


def test_the_numbers_are_those_of_the_library(
    open_evaluate: Any, qtbot: Any, done: Any, pair: Any, tmp_path: Path
) -> None:
    labels, truth = pair
    widget = open_evaluate(labels, truth, **SPACE)
    assert (widget.labels.value.name, widget.truth.value.name) == ("said", "right")
    assert not widget.results.isVisible()
    click(qtbot, widget.run_button)
    assert widget.run_button.text == "Cancel"
    assert not widget.choice.enabled
    done(widget)
    assert widget.run_button.text == "Evaluate"
    assert widget.results.isVisible()
    assert "Done" in widget.status.value
    assert widget.heading.value == "said against right, 5 sections"

    pooled = scores(labels, truth)
    assert widget.table.texts() == cells(pooled)
    for value in (pooled.mean_iou, pooled.pixel_accuracy, pooled.mean_pixel_accuracy):
        assert f"{value:.3f}" in widget.accuracies.value
    widget.averaged.value = True
    averaged = Scores.mean_of(scores(a, b) for a, b in zip(labels, truth, strict=True))
    assert widget.table.texts() == cells(averaged)

    matrix = confusion_matrix(truth, labels, 3)
    assert widget.confusion.texts()[1][0] == f"{100 * matrix[1, 0] / matrix[1].sum():.1f}"
    widget.in_pixels.value = True
    assert widget.confusion.texts() == [[f"{v:,}" for v in row] for row in matrix]

    click(qtbot, widget.copy_button)
    copied = [line.split("\t") for line in QApplication.clipboard().text().splitlines()]
    assert copied[0][1:] == ["IoU", "F1", "prec.", "recall"]
    assert copied[2] == ["cell membrane", *cells(averaged)[1]]
    assert ["3 mitochondria", *(f"{v:,}" for v in matrix[2])] in copied
    widget.save_to(tmp_path / "scores.csv")
    with (tmp_path / "scores.csv").open(newline="", encoding="utf-8") as file:
        rows = {(r["truth_section"], r["class"]): r for r in csv.DictReader(file)}
    assert float(rows["pooled", "mean of classes"]["iou"]) == pytest.approx(pooled.mean_iou, abs=1e-6)
    assert float(rows["3", "mitochondria"]["f1"]) == pytest.approx(scores(labels[3], truth[3]).f1[2], abs=1e-6)

    widget.truth.value = widget.labels.value
    assert "same layer" in widget.problem.value
    assert not widget.status.visible  # "Done" would be said of what is chosen now
    assert widget.heading.value == "said against right, 5 sections"


def test_the_error_map_is_drawn_in_place(open_evaluate: Any, qtbot: Any, done: Any, pair: Any) -> None:
    labels, truth = pair
    widget = open_evaluate(labels, truth, **SPACE)
    viewer = widget.viewer
    active = viewer.layers.selection.active
    click(qtbot, widget.run_button)
    done(widget)
    assert [layer.name for layer in viewer.layers] == ["said", "right", "said errors"]
    layer = viewer.layers["said errors"]
    wrong = (truth != 0) & (labels != truth)
    np.testing.assert_array_equal(layer.data, wrong)
    assert layer.data.dtype == np.uint8
    np.testing.assert_allclose(layer.colormap.color_dict[1], (240 / 255, 228 / 255, 66 / 255, 1), atol=1e-6)
    assert layer.colormap.color_dict[0][3] == 0
    np.testing.assert_allclose(layer.scale, SPACE["scale"])
    np.testing.assert_allclose(layer.translate, SPACE["translate"])
    assert layer.units == viewer.layers["said"].units
    assert viewer.layers.selection.active is active
    assert layer not in widget.labels.choices

    viewer.layers["said"].data[2, :20] = truth[2, :20]
    viewer.layers["said"].translate = (0, 1, 2)
    viewer.dims.set_point(0, 2 * 50)
    widget.in_view.value = True
    click(qtbot, widget.run_button)
    done(widget)
    assert len(viewer.layers) == 3
    assert viewer.layers["said errors"] is layer
    np.testing.assert_array_equal(layer.data[2], (truth[2] != 0) & (viewer.layers["said"].data[2] != truth[2]))
    assert not layer.data[[0, 1, 3, 4]].any()  # as the table, it is of this section alone
    np.testing.assert_allclose(layer.translate, (0, 1, 2))
    assert widget.table.texts() == cells(scores(viewer.layers["said"].data[2], truth[2]))
    assert widget.heading.value.endswith("1 of 5 sections")

    widget.error_map.value = False
    viewer.layers.remove(layer)
    click(qtbot, widget.run_button)
    done(widget)
    assert len(viewer.layers) == 2


def test_only_what_was_segmented_is_judged(open_evaluate: Any, qtbot: Any, done: Any, pair: Any) -> None:
    from napari_drososeg._widgets.layers.targets import Targets

    labels, truth = np.maximum(pair[0], 1), pair[1]
    widget = open_evaluate(truth=truth)
    viewer = widget.viewer
    image = viewer.add_image(np.zeros_like(truth), name="em")
    target = Targets(viewer).add(image, "tiny", "tiny", DROSOPHILA_CLASSES)
    for z in (1, 3):
        target.write(z, (slice(0, 40), slice(0, 60)), labels[z])
    widget.labels.value, widget.truth.value = target.layer, viewer.layers["right"]
    assert widget.coverage.value == "Only sections segmented completely are evaluated: 2 of 5."
    click(qtbot, widget.run_button)
    done(widget)
    assert widget.heading.value == "em [tiny] against right, 2 of 5 sections"
    assert widget.table.texts() == cells(scores(labels[[1, 3]], truth[[1, 3]]))
    target.write(2, (slice(0, 20), slice(0, 60)), np.ones((20, 60), np.uint8))  # half a section
    click(qtbot, widget.run_button)
    done(widget)
    assert widget.heading.value == "em [tiny] against right, 2 of 5 sections"
    widget.in_view.value = True
    for z, said in (
        (1, ""),
        (2, "Section 2 is partly segmented (50 %): the rest"),
        (4, "Section 4 is not segmented yet"),
    ):
        viewer.dims.set_point(0, z)
        widget.update_state()
        assert widget.coverage.value.startswith(said)
        assert widget.coverage.visible == bool(said)
    viewer.dims.set_point(0, 2)
    click(qtbot, widget.run_button)
    done(widget)
    iou = scores(np.asarray(target.layer.data[2]), truth[2]).iou
    assert [row[0] for row in widget.table.texts()[:3]] == [f"{v:.3f}" for v in iou]  # wrong, as is said


def test_a_section_that_is_only_begun_is_said(open_evaluate: Any, pair: Any) -> None:
    from napari_drososeg._widgets.layers.targets import Targets

    widget = open_evaluate(truth=pair[1])
    viewer = widget.viewer
    image = viewer.add_image(np.zeros_like(pair[1]), name="em")
    target = Targets(viewer).add(image, "tiny", "tiny", DROSOPHILA_CLASSES)
    widget.labels.value, widget.truth.value = target.layer, viewer.layers["right"]
    assert not widget.coverage.visible
    target.write(3, (slice(0, 10), slice(0, 60)), np.ones((10, 60), np.uint8))
    widget.update_state()
    assert widget.coverage.value == "Section 3 is partly segmented (25 %): the rest counts as wrong."
    for z in range(5):
        target.write(z, (slice(0, 40), slice(0, 60)), np.ones((40, 60), np.uint8))
    widget.update_state()
    assert not widget.coverage.visible  # all of it is there
    widget.labels.value, widget.truth.value = viewer.layers["right"], target.layer
    assert not widget.coverage.visible  # they are not a result


def test_what_an_earlier_network_left_is_not_taken_for_that_of_the_last() -> None:
    from napari.components import ViewerModel

    from napari_drososeg._widgets.evaluate.checks import sections_of
    from napari_drososeg._widgets.layers.targets import Targets

    viewer = ViewerModel()
    image = viewer.add_image(np.zeros((5, 8, 8), np.uint8), name="em")
    target = Targets(viewer).add(image, "round-1", "round 1", DROSOPHILA_CLASSES)
    for z in range(4):
        target.write(z, (slice(0, 8), slice(0, 8)), np.ones((8, 8), np.uint8))
    target.done_key = ("round 2",)
    assert sections_of(target, 5, 2)[1].startswith("Section 2 is wholly or partly from an earlier run")
    chosen, said = sections_of(target, 5, None)
    assert chosen == (0, 1, 2, 3)
    assert said.startswith("4 sections are wholly or partly from an earlier run")
    target.done.add(2, (0, 8, 0, 8))
    assert sections_of(target, 5, 2) == ((2,), "")
    chosen, said = sections_of(target, 5, None)
    assert chosen == (2,)
    assert said == "Only sections segmented completely with the last network and settings are evaluated: 1 of 5."


@pytest.mark.parametrize("kind", ["dask", "zarr", "2d", "multiscale"])
def test_kinds_of_layers(
    kind: str, open_evaluate: Any, qtbot: Any, done: Any, pair: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_drososeg._widgets.work import store
    from napari_drososeg.evaluation import truth as reading

    labels, truth = pair
    monkeypatch.setattr(reading, "STRIP_PIXELS", 7 * 60)
    monkeypatch.setattr(store, "IN_MEMORY_BYTES", 1000)
    given: Any = labels
    arguments: dict[str, Any] = {}
    if kind == "dask":
        import dask.array as da

        given = da.from_array(labels, chunks=(1, 20, 20))
    elif kind == "zarr":
        import zarr

        given = zarr.create_array(tmp_path / "a.zarr", shape=labels.shape, chunks=(1, 20, 20), dtype=np.uint8)
        given[:] = labels
    elif kind == "2d":
        labels, truth = labels[0], truth[0]
        given = labels
    else:
        given, arguments = [labels, labels[:, ::2, ::2]], {"multiscale": True}
    widget = open_evaluate(given, None, **arguments)
    widget.viewer.add_labels(truth, name="right")
    assert widget.truth.value is widget.viewer.layers["right"]
    click(qtbot, widget.run_button)
    done(widget)
    layer = widget.viewer.layers["said errors"]
    np.testing.assert_array_equal(np.asarray(layer.data), (truth != 0) & (labels != truth))
    assert widget.table.texts() == cells(scores(labels, truth))


def test_what_cannot_work_is_marked_with_its_reason(open_evaluate: Any, qtbot: Any, pair: Any) -> None:
    labels, truth = pair
    widget = open_evaluate(labels, truth)
    layers = widget.viewer.layers
    assert widget.run_button.enabled

    def wrong(field: str, *words: str) -> None:
        widget.update_state()
        assert widget.marked(field), widget.problem.value
        assert not widget.run_button.enabled
        assert widget.problem.visible
        for word in words:
            assert word in widget.problem.value
            assert word in getattr(widget, field).tooltip

    widget.truth.value = layers["said"]
    wrong("truth", "same layer")
    widget.truth.value = widget.viewer.add_labels(truth[:3], name="short")
    wrong("truth", "'short' is 3 × 40 × 60 and 'said' 5 × 40 × 60")
    widget.viewer.add_image(truth, name="picture")
    widget.truth.value = layers["picture"]
    wrong("truth", "'picture' is an image layer", "Convert to Labels")
    widget.truth.value = widget.viewer.add_labels(np.zeros_like(truth), name="blank")
    wrong("truth", "has no labels", "'blank'")
    blank = layers["blank"]
    blank.data[2, 0, 0] = 1
    blank.refresh()
    blank.events.set_data()
    qtbot.waitUntil(lambda: widget.run_button.enabled, timeout=3000)
    widget.in_view.value = True
    widget.viewer.dims.set_point(0, 1)
    qtbot.waitUntil(lambda: widget.marked("truth"), timeout=3000)
    wrong("truth", "'blank' has no labels in the compared area")
    widget.viewer.dims.set_point(0, 2)
    qtbot.waitUntil(lambda: widget.run_button.enabled, timeout=3000)

    widget.truth.value = layers["right"]
    layers["said"].brush_size = 3
    layers["said"].paint((2, 10, 10), 7)
    qtbot.waitUntil(lambda: widget.marked("labels"), timeout=3000)
    wrong("labels", "'said' contains the label 7", "3 mitochondria")
    layers["said"].undo()
    qtbot.waitUntil(lambda: widget.run_button.enabled, timeout=3000)

    two = ClassTable((SegmentationClass(1, "in", "#000000"), SegmentationClass(2, "out", "#ffffff")))
    layers["said"].metadata["drososeg"] = {"classes": two.to_list()}
    wrong("labels", "contains the label 3", "2 out")
    layers["right"].metadata["drososeg"] = {"classes": DROSOPHILA_CLASSES.to_list()}
    wrong("truth", "classes of the layers differ")
    widget.viewer.add_labels(np.zeros((2, 5, 40, 60), np.uint8), name="movie")
    widget.labels.value = layers["movie"]
    wrong("labels", "4 axes")


def test_nothing_open_says_what_to_do(
    open_evaluate: Any, qtbot: Any, vnc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DROSOSEG_DATA", str(vnc))
    widget = open_evaluate()
    assert widget.empty.visible
    assert not widget.run_button.enabled
    assert "no labels layer" in widget.problem.value
    click(qtbot, widget.sample_button)
    qtbot.waitUntil(lambda: len(widget.viewer.layers) == 2, timeout=30_000)
    assert widget.labels.value is widget.viewer.layers[1]
    assert widget.empty.visible  # one labels layer is not enough
    qtbot.waitUntil(lambda: widget.sample_button.enabled, timeout=5000)


def test_what_a_network_made_is_proposed_to_be_judged(open_evaluate: Any, pair: Any) -> None:
    widget = open_evaluate()
    viewer = widget.viewer
    true = viewer.add_labels(pair[1], name="true")
    assert (widget.labels.value, widget.truth.value) == (true, true)
    ours = viewer.add_labels(pair[0], name="ours", metadata={"drososeg": {"network": "unet"}})
    assert (widget.labels.value, widget.truth.value) == (ours, true)
    widget.labels.value, widget.truth.value = true, ours
    other = viewer.add_labels(pair[0], name="other", metadata={"drososeg": {"network": "fpn"}})
    true.name = "renamed"
    assert (widget.labels.value, widget.truth.value) == (true, ours)  # what the user chose stays
    viewer.layers.remove(ours)
    assert (widget.labels.value, widget.truth.value) == (true, other)


class Slow:
    """Labels on a slow disk; broken on demand."""

    def __init__(self, data: np.ndarray, qtbot: Any) -> None:
        self._data, self.shape, self.dtype, self.ndim = data, data.shape, data.dtype, data.ndim
        self.seconds, self.broken = 0.0, False

    def __getitem__(self, index: Any) -> np.ndarray:
        import threading
        import time

        if threading.current_thread() is not threading.main_thread():
            time.sleep(self.seconds)
            if self.broken:
                raise OSError("the disk has gone")
        return self._data[index]

    def __array__(self, *_args: Any, **_kwargs: Any) -> np.ndarray:
        return self._data


def test_cancel_keeps_the_sections_that_are_done(open_evaluate: Any, qtbot: Any, done: Any, pair: Any) -> None:
    labels, truth = np.repeat(pair[0], 20, axis=0), np.repeat(pair[1], 20, axis=0)
    slow = Slow(labels, qtbot)
    slow.seconds = 0.05
    widget = open_evaluate(slow, truth, multiscale=False)
    click(qtbot, widget.run_button)
    qtbot.waitUntil(lambda: widget.comparer.fraction > 0.02, timeout=20_000)
    click(qtbot, widget.run_button)
    assert widget.run_button.text == "Cancelling"
    done(widget)
    assert "Cancelled after" in widget.status.value
    n = len(widget.comparer.result.sections)
    assert 0 < n < 100
    assert widget.table.texts() == cells(scores(labels[:n], truth[:n]))
    assert widget.run_button.text == "Evaluate"
    assert widget.run_button.enabled


def test_a_failure_is_said_once(open_evaluate: Any, qtbot: Any, done: Any, pair: Any, said: list[Any]) -> None:
    labels, truth = pair
    slow = Slow(labels, qtbot)
    widget = open_evaluate(slow, truth, multiscale=False)
    slow.broken = True
    click(qtbot, widget.run_button)
    done(widget)
    assert len([n for n in said if n.severity >= NotificationSeverity.WARNING]) == 1
    assert widget.status.value == "Failed: the disk has gone"
    assert widget.run_button.enabled
    assert not widget.results.isVisible()
    assert len(widget.viewer.layers) == 2
    slow.broken = False
    click(qtbot, widget.run_button)
    done(widget)
    assert widget.results.isVisible()
    said.clear()
    labels[3, 5, 5] = 9  # on a disk it is seen only when it is read
    click(qtbot, widget.run_button)
    done(widget)
    assert "Section 3: Value 9 in the labels" in said[0].message


def test_layers_that_go_while_it_works(open_evaluate: Any, qtbot: Any, done: Any, pair: Any, said: list[Any]) -> None:
    from superqt.utils._qthreading import WorkerBase

    labels, truth = np.repeat(pair[0], 20, axis=0), np.repeat(pair[1], 20, axis=0)
    slow = Slow(labels, qtbot)
    slow.seconds = 0.02
    widget = open_evaluate(slow, truth, multiscale=False)
    click(qtbot, widget.run_button)
    qtbot.waitUntil(lambda: "said errors" in widget.viewer.layers, timeout=20_000)
    widget.viewer.layers.remove("said errors")
    widget.viewer.layers["said"].name = "renamed"
    done(widget)
    assert widget.table.texts() == cells(scores(labels, truth))
    assert "said errors" not in widget.viewer.layers
    assert not [n for n in said if n.severity >= NotificationSeverity.WARNING]
    click(qtbot, widget.run_button)
    widget.viewer.window.remove_dock_widget(widget)
    assert not widget.comparer.busy
    qtbot.waitUntil(lambda: not WorkerBase._worker_set, timeout=20_000)
    widget.viewer.layers["right"].name = "the closed widget must not mind"


def test_choices_persist(open_evaluate: Any, make_napari_viewer: Any, pair: Any) -> None:
    widget = open_evaluate(*pair)
    widget.in_view.value, widget.averaged.value, widget.error_map.value = True, True, False
    widget.viewer.close()
    again = open_evaluate(*pair)
    assert (again.in_view.value, again.averaged.value, again.error_map.value) == (True, True, False)


def test_both_themes_at_320_px(open_evaluate: Any, qtbot: Any, done: Any, pair: Any) -> None:
    widget = open_evaluate(*pair)
    widget.viewer.layers["said"].name = "labels with a name that is much longer than the widget is wide"
    click(qtbot, widget.run_button)
    done(widget)
    for theme in ("dark", "light"):
        widget.viewer.theme = theme
        widget.resize(320, 700)
        qtbot.wait(50)
        assert widget.widget().minimumSizeHint().width() <= 320
        assert not widget.styleSheet()
        assert not widget.widget().styleSheet()
    for name in ("labels", "truth", "in_view", "error_map", "run_button", "averaged", "in_pixels", "copy_button",
                 "save_button", "sample_button", "progress"):  # fmt: skip
        assert len(getattr(widget, name).tooltip) > 20, name
    assert all(len(widget.table.horizontalHeaderItem(c).toolTip()) > 20 for c in range(4))


def test_the_manifest_opens_the_widget(make_napari_viewer: Any, pair: Any) -> None:
    viewer = make_napari_viewer()
    viewer.add_labels(pair[0], name="said")
    _, widget = viewer.window.add_plugin_dock_widget("napari-drososeg", "Evaluate")
    assert widget.labels.value is viewer.layers["said"]
    viewer.layers["said"].name = "renamed"
    assert widget.labels.current_choice == "renamed"
    viewer.layers.clear()
    assert widget.labels.value is None


def test_a_step_through_the_sections_looks_at_no_section_again() -> None:
    layer = Labels(np.ones((3, 8, 8), np.int32))
    values = KnownValues()
    assert values.of(layer, (0, 1, 2)) == (1, 1)
    layer.data[0, 0, 0], layer.data[2, 0, 0] = 9, 7
    assert values.of(layer, (0, 1, 2)) == (1, 1)  # nobody said so
    values.forget(layer, 2)
    assert values.of(layer, (0, 1, 2)) == (1, 7)
    values.forget(layer)
    assert values.of(layer, (0, 1, 2)) == (1, 9)


def test_layers_of_four_axes_can_be_stepped_through(open_evaluate: Any, qtbot: Any, pair: Any) -> None:
    widget = open_evaluate(*pair)
    movie = widget.viewer.add_labels(np.zeros((2, 5, 40, 60), np.uint8), name="movie")
    widget.viewer.dims.set_point(0, 1)
    movie.paint((1, 2, 20, 20), 3)
    qtbot.wait(300)
    assert widget.labels.value is not None


def test_what_was_compared_is_let_go_with_its_layers(open_evaluate: Any, qtbot: Any, done: Any, pair: Any) -> None:
    widget = open_evaluate(*pair)
    click(qtbot, widget.run_button)
    done(widget)
    there = [weakref.ref(layer) for layer in widget.viewer.layers]
    assert len(there) == 3
    widget.viewer.layers.clear()

    def gone() -> bool:
        gc.collect()
        return not any(layer() for layer in there)

    qtbot.waitUntil(gone, timeout=10_000)
