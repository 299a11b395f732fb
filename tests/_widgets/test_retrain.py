"""The Annotate and retrain widget in a real viewer, with real tiny trainings in real processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tifffile
from napari.layers import Labels, Shapes
from napari.utils.notifications import notification_manager
from qtpy.QtCore import QPoint, Qt
from qtpy.QtGui import QCloseEvent
from qtpy.QtWidgets import QApplication

from napari_drososeg._widgets.controls import grey_values, pixel_size
from napari_drososeg._widgets.controls.grey_values import GreyValues
from napari_drososeg._widgets.retrain.overview import LOCKED, TRAINS
from napari_drososeg._widgets.retrain.regions import RECTANGLE
from napari_drososeg._widgets.retrain.reviewing import own_classes
from napari_drososeg._widgets.retrain.training_run import Stage
from napari_drososeg._widgets.retrain.training_state import TrainingState
from napari_drososeg.workspace import START, open_workspace
from napari_drososeg.workspace.recipes import RetrainSettings
from napari_drososeg.workspace.suggest import Suggestion

LONG = 600_000
"""Milliseconds: a training may wait for a busy machine."""

pytestmark = pytest.mark.timeout(1800)


def click(qtbot: Any, button: Any) -> None:
    qtbot.mouseClick(button.native, Qt.MouseButton.LeftButton)


@pytest.fixture
def file(tmp_path: Path, stack: np.ndarray) -> Path:
    tifffile.imwrite(tmp_path / "em.tif", stack, photometric="minisblack")
    return tmp_path / "em.tif"


def begin(widget: Any, qtbot: Any) -> Labels:
    """Segment the section on screen."""
    click(qtbot, widget.segment_button)
    qtbot.waitUntil(lambda: not widget.repainter.busy, timeout=LONG)
    layer = widget.target.layer
    layer.brush_size = 7
    return layer


def paint(widget: Any, qtbot: Any, *spots: tuple[int, int, int, int]) -> None:
    """Paint discs (section, row, column, class), and wait until they count."""

    def counted() -> int:
        overview = widget.annotation.overview
        return int(overview.trains.sum()) if overview is not None else 0

    before = counted()
    for z, y, x, value in spots:
        widget.target.layer.paint((z, y, x), value)
    qtbot.waitUntil(lambda: counted() > before, timeout=60_000)
    widget.annotation.flush()
    widget.update_state()
    assert widget.run_button.enabled


def differs(layer: Labels, value: int) -> tuple[int, int, int]:
    """A place in the middle section that shows another class, in the part of the section that is this class's own."""
    ys = slice(25 * value - 15, 25 * value + 5)
    y, x = np.argwhere(np.asarray(layer.data[1])[ys, 10:40] != value)[0]
    return 1, int(y) + ys.start, int(x) + 10


def retrain(widget: Any, qtbot: Any) -> None:
    """Train a round, take it whatever it is worth, and wait until it is shown."""
    click(qtbot, widget.run_button)
    assert widget.run_button.text == "Stop"
    done(widget, qtbot)
    if widget.question.visible:
        click(qtbot, widget.take_button)
    qtbot.waitUntil(lambda: not widget.repainter.busy, timeout=LONG)


def done(widget: Any, qtbot: Any) -> None:
    qtbot.waitUntil(lambda: not widget.training.busy, timeout=LONG)
    assert widget.run_button.text == "Retrain"


def expected(widget: Any, checkpoint: Path) -> np.ndarray:
    """What the layer should show: the network's labels, under what was painted or reviewed."""
    from napari_drososeg.inference import PredictConfig, predict
    from napari_drososeg.io import as_stack

    data = widget.annotation.stack
    config = PredictConfig(device="cpu", engine="torch", precision="f32", pixel_size=widget.pixel_size)
    labels = predict(as_stack(np.asarray(data.data)), checkpoint, config)
    known = np.stack([widget.annotation.workspace.labels(z) for z in range(data.n_sections)])
    return np.where(known, known, labels)


def almost_equal(found: Any, wanted: np.ndarray) -> None:
    """Equal but for pixels on the brink: the process may compute in another precision."""
    assert np.count_nonzero(np.asarray(found) != wanted) <= 0.02 * wanted.size


def test_the_whole_loop(open_retrain: Any, qtbot: Any, file: Path) -> None:
    widget = open_retrain(file)
    assert widget.begin.visible
    layer = begin(widget, qtbot)
    assert layer.name == "em [Tiny U-Net]"
    assert "Nothing is annotated" in widget.problem.value
    assert not widget.run_button.enabled
    widget.rate.value = 0.003  # so that something changes in so few steps
    spots = {value: differs(layer, value) for value in (1, 2, 3)}
    paint(widget, qtbot, (*spots[1], 1), (*spots[2], 2))
    assert "mitochondria" in widget.missing.value
    assert "No region is locked" in widget.missing.value
    paint(widget, qtbot, (*spots[3], 3))
    assert "mitochondria" not in widget.missing.value
    workspace = widget.annotation.workspace
    round_one = workspace.training_labels(1).copy()

    # round 1, with a stroke while it trains
    click(qtbot, widget.run_button)
    assert not widget.choice.enabled
    qtbot.waitUntil(lambda: bool(widget.training.state.losses), timeout=LONG)
    late = int(layer.data[1, 85, 70]) % 3 + 1
    layer.paint((1, 85, 70), late)
    done(widget, qtbot)
    if widget.question.visible:
        click(qtbot, widget.take_button)
    qtbot.waitUntil(lambda: not widget.repainter.busy, timeout=LONG)
    assert widget.choice.enabled
    assert layer.data[1, 85, 70] == late
    rounds = workspace.rounds.all()
    assert len(rounds) == 1
    assert sum(rounds[0].annotated_pixels.values()) == np.count_nonzero(round_one)
    assert workspace.rounds.in_use == 1
    assert widget.target.layer is layer
    assert layer.name == "em [Tiny U-Net, round 1]"
    assert "Round 1" in widget.status.value
    losses, _ = widget.plot.points
    assert len(losses) == 4
    assert widget.start.value == ""
    almost_equal(layer.data[1], expected(widget, workspace.rounds.checkpoint(1))[1])
    assert (np.asarray(layer.data[1])[round_one > 0] == round_one[round_one > 0]).all()

    # a locked region is what the network says itself, and the opposite is painted elsewhere: worse, so it asks
    widget.go_to(0)
    widget.segment_button.native.click()  # the round in use, into the same layer
    qtbot.waitUntil(lambda: not widget.repainter.busy, timeout=LONG)
    assert widget.target.layer is layer
    widget.review(0, [(4.5, 4.5), (4.5, 70.5), (60.5, 70.5), (60.5, 4.5)], locked=True)
    assert widget.annotation.overview.locked.sum() == 56 * 66
    assert "locked for validation" in widget.missing.value
    widget.go_to(2)
    layer.brush_size = 300
    paint(widget, qtbot, (2, 48, 40, int(np.bincount(layer.data[0].ravel()).argmax()) % 3 + 1))
    widget.steps.value, widget.rate.value = 16, 0.05
    widget.go_to(0)
    before = np.array(layer.data)
    click(qtbot, widget.run_button)
    done(widget, qtbot)
    assert widget.question.visible
    assert "Worse on the locked regions" in widget.status.value
    assert workspace.rounds.in_use == 1
    np.testing.assert_array_equal(layer.data, before)
    _, scores = widget.plot.points
    assert max(map(len, scores)) > 0
    click(qtbot, widget.take_button)
    qtbot.waitUntil(lambda: not widget.repainter.busy, timeout=LONG)
    assert workspace.rounds.in_use == 2
    assert layer.name == "em [Tiny U-Net, round 2]"
    for z in (0, 1):  # what is on screen, and what was segmented before
        almost_equal(layer.data[z], expected(widget, workspace.rounds.checkpoint(2))[z])

    # what was painted before round 1 trains in round 3 as well
    widget.steps.value = 4
    retrain(widget, qtbot)
    rounds = workspace.rounds.all()
    assert [r.number for r in rounds] == [1, 2, 3]
    assert (workspace.training_labels(1)[round_one > 0] == round_one[round_one > 0]).all()
    assert all(rounds[2].annotated_pixels[name] >= n for name, n in rounds[0].annotated_pixels.items())
    assert sum(rounds[2].annotated_pixels.values()) > np.count_nonzero(round_one)

    # compare, roll back, save
    widget.rounds.select(1, 2)
    assert widget.compare_button.enabled
    click(qtbot, widget.compare_button)
    qtbot.waitUntil(lambda: not widget.comparer.busy, timeout=LONG)
    difference = widget.comparer.layer.data[0]
    one, two = (expected_labels(widget, n) for n in (1, 2))
    almost_equal(difference, np.where(one == two, 0, two))
    widget.rounds.select(1)
    assert widget.use_button.text == "Roll back"
    click(qtbot, widget.use_button)
    qtbot.waitUntil(lambda: not widget.repainter.busy, timeout=LONG)
    assert workspace.rounds.in_use == 1
    almost_equal(layer.data[0], expected(widget, workspace.rounds.checkpoint(1))[0])
    widget.rounds.select(START)
    click(qtbot, widget.use_button)
    qtbot.waitUntil(lambda: not widget.repainter.busy, timeout=LONG)
    assert workspace.rounds.in_use == START
    assert layer.name == "em [Tiny U-Net]"

    from napari_drososeg._widgets.segment.widget import SegmentWidget
    from napari_drososeg.checkpoint import load_model

    segment = SegmentWidget(widget.viewer)
    widget.viewer.window.add_dock_widget(segment, name="Segment stack")
    widget.save_network(2, "My fine network")
    card = next(c for c in segment.cards if c.name == "my-fine-network")
    spec, _model = load_model(card.path)
    assert spec.title == "My fine network"
    click(qtbot, widget.next_button)
    qtbot.waitUntil(lambda: not widget.finder.busy, timeout=LONG)
    assert "the network is uncertain here" in widget.outcome


def expected_labels(widget: Any, number: int) -> np.ndarray:
    """What a round's network says of the first section, whatever was painted."""
    from napari_drososeg.inference import PredictConfig, predict
    from napari_drososeg.io import as_stack

    config = PredictConfig(device="cpu", engine="torch", precision="f32", pixel_size=widget.pixel_size)
    checkpoint = widget.annotation.workspace.rounds.checkpoint(number)
    return predict(as_stack(np.asarray(widget.annotation.stack.data)[:1]), checkpoint, config)[0]


def test_stop_keeps_the_best_so_far_and_a_failure_is_said(open_retrain: Any, qtbot: Any, stack: np.ndarray) -> None:
    widget = open_retrain(data=stack)  # in no file: the process reads a copy
    layer = begin(widget, qtbot)
    paint(widget, qtbot, *((*differs(layer, v), v) for v in (1, 2, 3)))
    widget.steps.value = 100_000
    widget.retrain_or_stop()  # as the key does
    qtbot.waitUntil(lambda: widget.training.state.step > 0, timeout=LONG)
    click(qtbot, widget.run_button)
    assert widget.training.stage is Stage.STOPPING
    assert widget.run_button.text == "Stopping"
    done(widget, qtbot)
    round_one = widget.annotation.workspace.rounds.find(1)
    assert round_one.stopped
    assert widget.annotation.workspace.copy.sections == [1]
    widget.leave_button.native.click()

    (widget.annotation.folder / "workspace.json").unlink()
    heard: list[Any] = []
    notification_manager.notification_ready.connect(heard.append)
    click(qtbot, widget.run_button)
    done(widget, qtbot)
    notification_manager.notification_ready.disconnect(heard.append)
    assert "There is no workspace" in widget.status.value
    assert any("There is no workspace" in n.message for n in heard)
    assert widget.run_button.enabled
    assert layer in widget.viewer.layers


def test_a_prediction_that_fails_is_said_and_of_its_image_only(
    open_retrain: Any, qtbot: Any, stack: np.ndarray
) -> None:
    data = stack.astype(np.float32)
    data[:, 0, 0] = np.nan
    widget = open_retrain(data=data)
    click(qtbot, widget.segment_button)
    widget.show_run()
    assert widget.status.value == "Predicting …"  # there is no new network yet
    qtbot.waitUntil(lambda: not widget.repainter.busy, timeout=LONG)
    qtbot.waitUntil(lambda: "Failed: Section 1" in widget.status.value, timeout=LONG)
    widget.image.value = widget.viewer.add_image(stack, name="other")
    assert widget.status.value == ""


def test_places_are_of_their_image_only(open_retrain: Any, stack: np.ndarray) -> None:
    widget = open_retrain(data=stack)
    widget.finder.places = [Suggestion(2, slice(0, 10), slice(0, 10), 0.5)]
    widget.image.value = widget.viewer.add_image(stack[:1], name="other")
    assert widget.finder.places == []


def test_a_locked_section_is_not_called_reviewed(open_retrain: Any, file: Path) -> None:
    widget = open_retrain(file)
    target = widget.new_labels()
    widget.go_to(0)
    target.layer.paint((0, 50, 50), 1)
    widget.review(0, locked=True)
    widget.update_state()
    assert widget.reviewed.value
    assert widget.reviewed.text == "Section locked"
    region = widget.annotation.whole_region(0)
    widget.annotation.lock(region, False)
    widget.update_state()
    assert widget.reviewed.text == "Section reviewed"


def test_a_region_is_drawn_on_the_image_that_it_is_for(open_retrain: Any, stack: np.ndarray) -> None:
    widget = open_retrain(data=stack)
    widget.draw(RECTANGLE, locked=False)
    assert widget.drawer.drawing
    widget.image.value = widget.viewer.add_image(stack[:1], name="other")
    assert not widget.drawer.drawing
    assert widget.region_button.text == "Region"
    assert not [layer for layer in widget.viewer.layers if isinstance(layer, Shapes)]


def test_the_curve_is_of_the_classes_that_were_trained(open_retrain: Any, stack: np.ndarray) -> None:
    widget = open_retrain(data=stack)
    widget._trained = widget.annotation, None, RetrainSettings(), "tiny"
    widget._trained_classes = widget.annotation.classes
    widget.training.state = TrainingState(losses=[(1, 0.5)], scores=[(1, 0.5, [0.5, 0.25, None])])
    widget.image.value = widget.viewer.add_image(stack[:1], name="other")
    widget.new_labels(own_classes("one, two, three, four"))
    widget.update_state()
    _, scores = widget.plot.points
    assert scores == [[0.5], [0.25], []]


def test_the_pixel_size_is_asked_where_the_image_does_not_say_it(
    open_retrain: Any, qtbot: Any, stack: np.ndarray
) -> None:
    from napari_drososeg._widgets.segment.widget import SegmentWidget

    widget = open_retrain(data=stack)
    image = widget.image.value
    assert widget.nm_row.visible
    assert (widget.nm.native.text(), widget.settings().pixel_size) == ("unknown", None)
    segment = SegmentWidget(widget.viewer)
    widget.viewer.window.add_dock_widget(segment, area="right")
    widget.nm.value = 9.2
    assert widget.settings().pixel_size == 9.2
    assert segment.pixel_size.value == pytest.approx(9.2)
    qtbot.waitUntil(lambda: not segment.marked("pixel_size"), timeout=5000)  # asked once, wherever
    segment.pixel_size.value = 5.0
    qtbot.waitUntil(lambda: widget.nm.value == pytest.approx(5.0), timeout=5000)
    for field in (widget.nm, segment.pixel_size):
        field.native.lineEdit().selectAll()
        qtbot.keyClicks(field.native.lineEdit(), "12.5" if field is widget.nm else "6.25")  # each key is an answer
        qtbot.wait(300)
        assert widget.nm.value == segment.pixel_size.value == (12.5 if field is widget.nm else 6.25)
    widget.nm.value = 4600
    assert widget.marked("pixel_size")
    assert "nanometres" in widget.problem.value
    widget.nm.value = 0
    assert not widget.marked("pixel_size")
    assert widget.settings().pixel_size is None
    image.scale, image.units = (0.05, 0.0092, 0.0092), ("um", "um", "um")
    qtbot.waitUntil(lambda: widget.nm.value == pytest.approx(9.2), timeout=5000)
    assert widget.settings().pixel_size == pytest.approx(9.2)
    widget.nm.value = 12.0  # the file is wrong
    qtbot.wait(300)
    assert widget.nm.value == segment.pixel_size.value == 12.0
    assert widget.settings().pixel_size == segment.job().config.pixel_size == 12.0
    widget.nm.value = 0
    qtbot.waitUntil(lambda: widget.nm.value == pytest.approx(9.2), timeout=5000)


def test_what_was_said_of_the_pixel_size_is_known_the_next_day(open_retrain: Any, qtbot: Any, tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "em.tif",
        np.zeros((2, 40, 40), np.uint8) + 7,
        imagej=True,
        resolution=(1, 1),
        metadata={"spacing": 1, "unit": "um", "axes": "ZYX"},
    )
    widget = open_retrain(tmp_path / "em.tif")
    assert widget.nm.value == 1000  # which is not so
    widget.nm.value = 8.0
    workspace = widget.annotation.open()
    pixel_size.keep(widget.image.value, workspace)
    assert workspace.pixel_size == 8.0
    widget.viewer.close()
    again = open_retrain(tmp_path / "em.tif")
    assert again.nm.value == 8.0
    assert again.settings().pixel_size == 8.0
    again.nm.value = 0
    qtbot.waitUntil(lambda: again.nm.value == 1000, timeout=5000)
    pixel_size.keep(again.image.value, again.annotation.open())
    assert again.annotation.workspace.pixel_size == 1000


def test_grey_values_are_taken_as_the_user_said(
    open_retrain: Any, qtbot: Any, tmp_path: Path, stack: np.ndarray, balanced_network: Path
) -> None:
    from napari_drososeg.inference import PredictConfig, predict
    from napari_drososeg.io import as_stack

    data = 255.0 - stack[:1].astype(np.float32)
    data[0, :8] = np.nan
    tifffile.imwrite(tmp_path / "em.tif", data, photometric="minisblack")
    widget = open_retrain(tmp_path / "em.tif")
    widget.grey.invert.value = True
    click(qtbot, widget.segment_button)
    qtbot.waitUntil(lambda: "NaN" in widget.status.value, timeout=LONG)  # refused
    widget.grey.fill.value, widget.grey.fill_value.value = True, 90.0
    assert (widget.settings().invert, widget.settings().fill_nan) == (True, 90.0)
    widget.segment_section()  # as the entry of *New* does
    qtbot.waitUntil(lambda: not widget.repainter.busy, timeout=LONG)
    config = PredictConfig("cpu", "torch", "f32", invert=True, fill_nan=90.0)
    wanted = predict(as_stack(data), balanced_network, config)
    almost_equal(widget.target.layer.data, wanted)
    workspace = widget.annotation.open()
    grey_values.keep(widget.grey_values, workspace)
    widget.viewer.close()

    again = open_retrain(tmp_path / "em.tif")  # the next day
    assert again.grey.value == GreyValues(invert=True, fill_nan=90.0)
    assert again.grey.fill_value.enabled
    other = again.viewer.add_image(stack, name="other")
    again.image.value = other
    assert again.grey.value == GreyValues()


def test_labels_that_were_segmented_inverted_are_retrained_so(open_retrain: Any, qtbot: Any, stack: np.ndarray) -> None:
    from napari_drososeg._widgets.segment.widget import SegmentWidget

    widget = open_retrain(data=255 - stack)
    segment = SegmentWidget(widget.viewer)
    widget.viewer.window.add_dock_widget(segment, area="right")
    segment.network.value, segment.invert.value, segment.scope.value = "tiny", True, "section"
    segment.pixel_size.value = 4.6
    qtbot.waitUntil(lambda: segment.run_button.enabled, timeout=LONG)
    click(qtbot, segment.run_button)
    qtbot.waitUntil(lambda: not segment.runner.busy, timeout=LONG)
    qtbot.waitUntil(lambda: widget.grey.value == GreyValues(invert=True), timeout=5000)
    assert widget.settings().invert


def test_labels_from_elsewhere_stay_chosen(open_retrain: Any, qtbot: Any, stack: np.ndarray) -> None:
    widget = open_retrain(data=stack)
    ours = widget.new_labels()
    foreign = widget.viewer.add_labels(np.ones(stack.shape, np.uint8), name="by hand")
    assert widget.labels.value is ours.layer
    widget.labels.value = foreign
    foreign.name = "by somebody's hand"  # after which the layers are read anew
    assert widget.labels.value is foreign
    assert widget.foreign.visible
    widget.copy_labels(right=False)
    assert widget.target is not None
    qtbot.waitUntil(lambda: not widget.copier.busy, timeout=5000)


def test_what_came_of_another_image_names_it(open_retrain: Any, stack: np.ndarray) -> None:
    widget = open_retrain(data=stack)
    annotation = widget.annotation
    widget.image.value = widget.viewer.add_image(stack, name="other")
    widget.ask(annotation, None, 1)
    assert widget.question_text.value.startswith("em: Round 1 seems worse")
    widget.comparer.image, widget.comparer.message = annotation.image, "Round 0 and 1 differ."
    widget.comparer.changed.emit()
    assert widget.outcome == "em: Round 0 and 1 differ."


def ended(process: psutil.Process) -> bool:
    """Return whether a process ended; it may do so between two looks at it."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_closing_while_it_trains_keeps_what_was_learnt(open_retrain: Any, qtbot: Any, file: Path) -> None:
    widget = open_retrain(file)
    layer = begin(widget, qtbot)
    paint(widget, qtbot, *((*differs(layer, v), v) for v in (1, 2, 3)))
    widget.steps.value = 100_000
    click(qtbot, widget.run_button)
    qtbot.waitUntil(lambda: widget.training.state.step > 0, timeout=LONG)
    process = psutil.Process(widget.training.pid)
    late = int(layer.data[1, 85, 70]) % 3 + 1
    layer.paint((1, 85, 70), late)  # not looked at yet
    folder = widget.annotation.folder
    QApplication.sendEvent(widget.viewer.window._qt_window, QCloseEvent())  # as closing the window does
    assert widget._closed
    qtbot.waitUntil(lambda: ended(process), timeout=LONG)
    with open_workspace(folder) as workspace:
        assert workspace.labels(1)[85, 70] == late
        assert workspace.rounds.find(1).stopped


def test_painting_while_tiles_come_in(open_retrain: Any, qtbot: Any, many_sections: Any, tmp_path: Path) -> None:
    from napari_drososeg._widgets.segment.widget import SegmentWidget
    from napari_drososeg._widgets.work.job import Scope

    tifffile.imwrite(tmp_path / "em.tif", many_sections(30, 96, 96), photometric="minisblack")
    widget = open_retrain(tmp_path / "em.tif")
    segment = SegmentWidget(widget.viewer)
    widget.viewer.window.add_dock_widget(segment, name="Segment stack", area="left")
    segment.network.value, segment.scope.value = "tiny", Scope.STACK
    segment.device.value, segment.engine.value, segment.precision.value = "cpu", "torch", "f32"
    click(qtbot, segment.run_button)
    qtbot.waitUntil(lambda: bool(segment.runner.fraction), timeout=LONG)
    layer = widget.targets.of_image(widget._image)[0].layer
    assert widget.labels.value is layer
    layer.brush_size = 5
    spots = [(z, 20 + z, 40) for z in range(0, 30, 3)]
    for z, y, x in spots:
        layer.paint((z, y, x), 3)
        qtbot.wait(40)
    qtbot.waitUntil(lambda: not segment.runner.busy, timeout=LONG)
    widget.annotation.flush()
    known = np.stack([widget.annotation.workspace.labels(z) for z in range(30)])
    for z, y, x in spots:
        assert known[z, y, x] in (0, 3)  # 0 where the network had said so already
        assert layer.data[z, y, x] == 3
    np.testing.assert_array_equal(np.asarray(layer.data)[known > 0], known[known > 0])
    almost_equal(layer.data, expected(widget, Path(segment.card.path)))


def test_reviewed_regions_keys_and_strip(open_retrain: Any, qtbot: Any, file: Path) -> None:
    widget = open_retrain(file)
    layer = begin(widget, qtbot)
    viewer, overview = widget.viewer, lambda: widget.annotation.overview
    assert not widget.annotation.folder.exists()
    press(viewer, "Shift-R")
    assert widget.reviewed.value
    assert overview().trains.sum() == 96 * 80
    assert "reviewed" in overview().sections[1].words
    press(viewer, "Shift-R")
    assert not widget.reviewed.value
    assert not overview().sections
    # a rectangle, drawn
    menu = {a.text(): a for a in widget.region_menu().actions()}
    menu["Draw a rectangle to lock for validation"].trigger()
    assert widget.region_button.text == "Cancel"
    shapes = next(la for la in viewer.layers if isinstance(la, Shapes))
    assert shapes.mode == "add_rectangle"
    shapes.add_rectangles([[(1, 9.5, 9.5), (1, 9.5, 29.5), (1, 19.5, 29.5), (1, 19.5, 9.5)]])
    qtbot.waitUntil(lambda: shapes not in viewer.layers)
    assert overview().locked.sum() == 10 * 20
    assert not overview().trains.any()
    assert viewer.layers.selection.active is layer
    outline = next(la for la in viewer.layers if "training area" in la.name)
    qtbot.waitUntil(lambda: bool(np.asarray(outline.data[1]).any()), timeout=5000)
    np.testing.assert_array_equal(np.argwhere(outline.data == LOCKED).min(axis=0), (1, 10, 10))
    region = next(a.menu() for a in widget.region_menu().actions() if a.menu() is not None)
    assert "locked" in region.title()
    region.actions()[0].trigger()  # let it train
    assert overview().trains.sum() == 200
    assert (np.asarray(outline.data[1]) == TRAINS).sum() == 200
    region.actions()[1].trigger()  # back to the network
    assert not overview().sections
    # nothing that a user could draw on counts as labels
    assert list(widget.labels.choices) == [layer]
    # the strip goes to a section
    qtbot.mouseClick(widget.strip, Qt.MouseButton.LeftButton, pos=QPoint(widget.strip.width() - 3, 8))
    assert widget.annotation.section == 2
    layer.selected_label = 1
    viewer.layers.selection.active = layer
    for key, value in (("Shift-W", 2), ("Shift-E", 3), ("Shift-Q", 1)):
        press(layer, key)
        assert layer.selected_label == value
    widget.stop()
    assert "Shift-R" not in {str(key) for key in viewer.keymap}


def press(owner: Any, key: str) -> None:
    """Call what a key is bound to."""
    from app_model.types import KeyBinding

    found = owner.keymap[KeyBinding.from_str(key)]
    (found if hasattr(found, "__self__") else lambda o=owner: found(o))()


def test_labels_from_elsewhere_and_own_classes(open_retrain: Any, qtbot: Any, file: Path) -> None:
    widget = open_retrain(file)
    assert widget.begin.visible
    theirs = np.zeros((3, 96, 80), np.int32)
    theirs[0, 10:20, 10:20], theirs[0, 30:40], theirs[2, 5, 5] = 2, 9, 1
    foreign = widget.viewer.add_labels(theirs, name="theirs")
    assert widget.foreign.visible
    assert "Copy these labels" in widget.problem.value
    click(qtbot, widget.right_button)
    assert "being copied" in widget.problems()["labels"]
    qtbot.waitUntil(lambda: not widget.copier.busy, timeout=20_000)
    assert notification_manager.records[-1].message.startswith("800 pixels have a label that is not a class (1 cyto")
    target = widget.target
    qtbot.waitUntil(lambda: widget.run_button.enabled, timeout=20_000)
    assert not foreign.visible
    np.testing.assert_array_equal(foreign.data, theirs)
    np.testing.assert_array_equal(target.layer.data, np.where(theirs == 9, 0, theirs))
    assert widget.annotation.overview.trains[1:4].tolist() == [1, 100, 0]
    widget.labels.value = foreign
    click(qtbot, widget.wrong_button)
    qtbot.waitUntil(lambda: not widget.copier.busy, timeout=20_000)
    assert widget.target is not target
    widget.annotation.flush()
    assert widget.annotation.overview.trains[1:4].tolist() == [1, 100, 0]  # a prediction is no annotation
    # classes of one's own need another folder
    from napari_drososeg._widgets.retrain.reviewing import own_classes

    other = widget.new_labels(own_classes("nucleus, vesicle"))
    assert widget.target is other
    assert "different classes" in widget.problem.value
    widget.use_folder(file.with_name("second"))
    widget.annotation.use_classes(other.classes)
    widget.update_state()
    other.layer.paint((0, 50, 50), 2)
    qtbot.waitUntil(lambda: widget.annotation.workspace is not None, timeout=20_000)
    assert widget.annotation.classes.names == ("nucleus", "vesicle")
    widget.start.value = "tiny"
    widget.update_state()
    assert "knows other classes (cytoplasm, cell membrane, mitochondria)" in widget.start_text.value
    assert widget.start_text.visible
    qtbot.waitUntil(lambda: widget.run_button.enabled, timeout=20_000)
    widget.start.value = "scratch"
    qtbot.waitUntil(lambda: not widget.start_text.visible, timeout=20_000)
    assert widget.run_button.enabled
    click(qtbot, widget.copy_button)
    text = QApplication.clipboard().text()
    assert text.startswith("drososeg fine-tune --workspace ")
    assert "--from scratch" in text
    assert "--steps 4" in text


def test_the_default_network_is_marked_as_in_the_segment_widget(
    open_retrain: Any, open_widget: Any, stack: np.ndarray
) -> None:
    widget = open_retrain(data=stack)
    names = [widget.start.native.itemText(i) for i in range(widget.start.native.count())]
    segment = open_widget(viewer=widget.viewer)
    assert names[:-1] == [segment.network.native.itemText(i) for i in range(segment.network.native.count())]
    assert "U-Net (default)" in names


def test_choices_persist(open_retrain: Any, make_napari_viewer: Any, qtbot: Any, file: Path) -> None:
    widget = open_retrain(file)
    widget.effort.value, widget.loss.value, widget.outline.value = "thorough", "dice", False
    from napari_drososeg._widgets.retrain.widget import RetrainWidget

    again = RetrainWidget(make_napari_viewer())
    qtbot.addWidget(again)
    assert (again.effort.value, again.loss.value, again.outline.value) == ("thorough", "dice", False)
    assert not again.empty.native.isHidden()
    assert "Open an image" in again.problem.value
    again.stop()
