"""Tests of copying a labels layer that is not ours."""

import threading
from typing import Any

import numpy as np
from napari.utils.notifications import notification_manager


class Slow:
    """Labels whose second section is read only once `gate` is open, as from a slow disk."""

    def __init__(self, labels: np.ndarray) -> None:
        self.labels, self.shape, self.dtype, self.ndim = labels, labels.shape, labels.dtype, labels.ndim
        self.gate, self.threads = threading.Event(), set[int]()

    def __getitem__(self, at: Any) -> np.ndarray:
        first = at[0] if isinstance(at, tuple) else at
        if first == 1 and threading.current_thread() is not threading.main_thread():
            assert self.gate.wait(20)
        self.threads.add(threading.get_ident())
        return self.labels[at]


def begin(widget: Any, data: Any) -> Any:
    """Copy labels by hand as to be corrected; returns their layer."""
    foreign = widget.viewer.add_labels(np.zeros(data.shape, np.uint8), name="by hand")
    widget.labels.value = foreign
    foreign._data = data  # napari itself would read it all
    widget.copy_labels(right=False)
    return foreign


def test_the_viewer_goes_on_meanwhile_and_a_cancelled_one_keeps_what_is_there(
    open_retrain: Any, qtbot: Any, stack: np.ndarray
) -> None:
    widget = open_retrain(data=stack)
    slow = Slow(np.full(stack.shape, 2, np.uint8))
    foreign = begin(widget, slow)
    copier, target = widget.copier, widget.target
    qtbot.waitUntil(lambda: bool((target.layer.data[0] == 2).all()), timeout=20_000)
    assert copier.busy
    assert threading.get_ident() not in slow.threads
    assert not target.layer.data[1].any()
    assert not widget.run_button.enabled
    assert widget.copy_labels(right=True) is None  # one at a time
    copier.cancel()
    slow.gate.set()
    qtbot.waitUntil(lambda: not copier.busy, timeout=20_000)
    assert copier.message == f"Cancelled: {100 // stack.shape[0]} % of by hand were copied."
    qtbot.waitUntil(lambda: copier.message in widget.status.value, timeout=5000)
    assert foreign.visible


def test_what_cannot_be_read_fails_once_and_says_so(open_retrain: Any, qtbot: Any, stack: np.ndarray) -> None:
    class Broken(Slow):
        def __getitem__(self, at: Any) -> np.ndarray:
            raise OSError("the disk has gone")

    widget = open_retrain(data=stack)
    before = len(notification_manager.records)
    begin(widget, Broken(np.zeros(stack.shape, np.uint8)))
    qtbot.waitUntil(lambda: not widget.copier.busy, timeout=20_000)
    assert widget.copier.message == "Failed: the disk has gone"
    assert [r.message for r in notification_manager.records[before:]] == ["the disk has gone"]


def test_it_stops_when_our_layer_is_removed(open_retrain: Any, qtbot: Any, stack: np.ndarray) -> None:
    widget = open_retrain(data=stack)
    slow = Slow(np.full(stack.shape, 2, np.uint8))
    begin(widget, slow)
    target = widget.target
    qtbot.waitUntil(lambda: bool((target.layer.data[0] == 2).all()), timeout=20_000)
    widget.viewer.layers.remove(target.layer)
    slow.gate.set()
    qtbot.waitUntil(lambda: not widget.copier.busy, timeout=20_000)
    assert widget.copier.message.startswith("Stopped: ")


def test_what_is_painted_meanwhile_stays(open_retrain: Any, qtbot: Any, stack: np.ndarray) -> None:
    widget = open_retrain(data=stack)
    slow = Slow(np.full(stack.shape, 2, np.uint8))
    foreign = widget.viewer.add_labels(np.zeros(stack.shape, np.uint8), name="by hand")
    widget.labels.value = foreign
    foreign._data = slow
    widget.copy_labels(right=True)
    layer = widget.target.layer
    qtbot.waitUntil(lambda: bool((layer.data[0] == 2).all()), timeout=20_000)
    layer.brush_size = 9
    layer.paint((1, 40, 40), 3)
    painted = np.asarray(layer.data[1]) == 3
    slow.gate.set()
    qtbot.waitUntil(lambda: not widget.copier.busy, timeout=20_000)
    np.testing.assert_array_equal(layer.data[1], np.where(painted, 3, 2))
    layer.undo()  # must not bring back what was there before the copy
    widget.annotation.flush()
    np.testing.assert_array_equal(layer.data[1], np.where(painted, 3, 2))
    np.testing.assert_array_equal(widget.annotation.workspace.labels(1), np.where(painted, 3, 2))
