from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from napari_drososeg.workspace import Workspace
from napari_drososeg.workspace.annotation import merge

HEIGHT, WIDTH, CLASSES = 7, 9, 3
EVERYTHING = (slice(0, HEIGHT), slice(0, WIDTH))


def same(found: Any, expected: list[list[int]]) -> bool:
    return np.asarray(found).tolist() == expected


class MemoryLabels:
    """The part of `ChunkedLabels` that a tracker uses, in memory and with tiny chunks: hypothesis runs it thousands of
    times."""

    chunk = (4, 4)

    def __init__(self) -> None:
        self.data = np.zeros((1, HEIGHT, WIDTH), np.uint8)

    def read(self, z: int, ys: slice, xs: slice) -> np.ndarray:
        return self.data[z, ys, xs].copy()

    def write(self, z: int, ys: slice, xs: slice, values: np.ndarray) -> None:
        self.data[z, ys, xs] = values

    def box(self, key: tuple[int, int, int]) -> tuple[slice, slice]:
        _, row, column = key
        return slice(4 * row, min(HEIGHT, 4 * row + 4)), slice(4 * column, min(WIDTH, 4 * column + 4))

    def keys_of(self, z: int, ys: slice, xs: slice) -> Any:
        from napari_drososeg.workspace.chunks import ChunkedLabels

        self.shape = self.data.shape
        return ChunkedLabels.keys_of(self, z, ys, xs)  # type: ignore[arg-type]


class Plain:
    """The rule in its plainest form: one pixel at a time, everything remembered."""

    def __init__(self) -> None:
        self.annotation = [[0] * WIDTH for _ in range(HEIGHT)]
        self.reviewed = [[0] * WIDTH for _ in range(HEIGHT)]

    def layer(self) -> PlainLayer:
        return PlainLayer(self)


class PlainLayer:
    def __init__(self, image: Plain) -> None:
        self.image = image
        self.before: dict[tuple[int, int], tuple[int, int]] = {}  # of pixels that differed at the last look

    def look(self, shown: list[list[int]], written: list[list[int]], box: tuple[slice, slice]) -> None:
        for y in range(box[0].start, box[0].stop):
            for x in range(box[1].start, box[1].stop):
                base = self.before.pop((y, x), (self.image.annotation[y][x], self.image.reviewed[y][x]))
                value = shown[y][x]
                if value == written[y][x] or value > CLASSES:
                    self.image.annotation[y][x], self.image.reviewed[y][x] = base
                else:
                    self.before[y, x] = base
                    self.image.annotation[y][x] = value
                    self.image.reviewed[y][x] = base[1] if value else 0

    def settle(self, box: tuple[slice, slice]) -> None:
        for y in range(box[0].start, box[0].stop):
            for x in range(box[1].start, box[1].stop):
                self.before.pop((y, x), None)


boxes = st.tuples(
    st.integers(0, HEIGHT - 1), st.integers(0, WIDTH - 1), st.integers(1, HEIGHT), st.integers(1, WIDTH)
).map(lambda b: (slice(b[0], min(HEIGHT, b[0] + b[2])), slice(b[1], min(WIDTH, b[1] + b[3]))))


class PaintingTwoLayers(RuleBasedStateMachine):
    """Two networks' layers of one image: painted, undone, erased, predicted, reviewed, looked at in any order."""

    @initialize()
    def start(self) -> None:
        from napari_drososeg.workspace.annotation import Tracker

        self.annotation, self.reviewed = MemoryLabels(), MemoryLabels()
        self.plain = Plain()
        self.shown = [np.zeros((HEIGHT, WIDTH), np.uint8) for _ in range(2)]
        self.written = [s.copy() for s in self.shown]
        self.trackers = [Tracker(self.annotation, self.reviewed, CLASSES) for _ in range(2)]  # type: ignore[arg-type]
        self.layers = [self.plain.layer() for _ in range(2)]
        self.history: list[tuple[int, np.ndarray]] = []

    @rule(which=st.integers(0, 1), box=boxes, value=st.sampled_from([0, 1, 2, 3, 4, 77]))
    def paint(self, which: int, box: tuple[slice, slice], value: int) -> None:
        self.history.append((which, self.shown[which].copy()))
        self.shown[which][box] = value

    @rule()
    def undo(self) -> None:
        if self.history:
            which, before = self.history.pop()
            self.shown[which] = before

    @rule(which=st.integers(0, 1), box=boxes)
    def tick(self, which: int, box: tuple[slice, slice]) -> None:
        shown, written = self.shown[which], self.written[which]
        self.trackers[which].absorb(0, *box, shown[box], written[box])
        self.layers[which].look(shown.tolist(), written.tolist(), box)

    @rule(which=st.integers(0, 1), box=boxes, seed=st.integers(0, 99))
    def predict(self, which: int, box: tuple[slice, slice], seed: int) -> None:
        """A program write: look, merge, write, forget what is older."""
        self.tick(which, box)
        prediction = np.random.default_rng(seed).integers(1, CLASSES + 1, (HEIGHT, WIDTH)).astype(np.uint8)
        new = merge(prediction[box], self.reviewed.read(0, *box), self.annotation.read(0, *box))
        self.shown[which][box] = self.written[which][box] = new
        self.trackers[which].settle(0, *box)
        self.layers[which].settle(box)
        self.history.clear()

    @invariant()
    def agree(self) -> None:
        if hasattr(self, "plain"):
            assert same(self.annotation.data[0], self.plain.annotation)
            assert same(self.reviewed.data[0], self.plain.reviewed)


PaintingTwoLayers.TestCase.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
TestTheRule = PaintingTwoLayers.TestCase


class Layer:
    """A labels layer as the viewer keeps it."""

    def __init__(self, workspace: Workspace, prediction: int) -> None:
        self.workspace, self.tracker = workspace, workspace.tracker()
        _, height, width = workspace.image.shape
        self.box = slice(0, height), slice(0, width)
        self.shown = np.zeros((height, width), np.uint8)
        self.written = self.shown.copy()
        self.predict(prediction)

    def tick(self) -> Any:
        return self.tracker.absorb(1, *self.box, self.shown, self.written)

    def predict(self, value: int) -> None:
        self.tick()
        new = self.workspace.merge(1, *self.box, np.full_like(self.shown, value))
        self.shown, self.written = new.copy(), new
        self.tracker.settle(1, *self.box)


def test_a_stroke_survives_predictions_and_a_change_of_network(workspace: Workspace) -> None:
    layer = Layer(workspace, prediction=1)
    layer.shown[10:13, 490:551] = 2  # over the border of two chunks
    assert layer.tick().changed == 3 * 61
    layer.predict(3)
    assert (layer.shown[10:13, 490:551] == 2).all()
    assert np.count_nonzero(layer.shown == 3) == layer.shown.size - 3 * 61
    other = Layer(workspace, prediction=1)
    assert (other.shown[10:13, 490:551] == 2).all()
    assert workspace.annotation.counts()[2] == workspace.annotation.counts(1)[2] == 3 * 61
    assert not workspace.annotation.counts(0).any()


def test_undo_takes_a_stroke_back_and_redo_brings_it_again(workspace: Workspace) -> None:
    layer = Layer(workspace, prediction=1)
    before = layer.shown.copy()
    layer.shown[5:8, 20:81] = 2
    after = layer.shown.copy()
    layer.tick()
    layer.shown = before.copy()
    layer.tick()
    assert not workspace.annotation.counts().any()
    layer.shown = after
    layer.tick()
    assert workspace.annotation.counts()[2] == 3 * 61


def test_undo_of_a_correction_gives_the_earlier_annotation_back(workspace: Workspace) -> None:
    layer = Layer(workspace, prediction=1)
    layer.shown[5:8, 20:81] = 2
    layer.predict(1)  # the stroke is annotation now, and written
    layer.shown[5:8, 20:81] = 3
    layer.tick()
    assert workspace.annotation.counts()[3] == 3 * 61
    layer.shown[5:8, 20:81] = 2
    layer.tick()
    assert workspace.annotation.counts()[2] == 3 * 61


def test_erasing_returns_pixels_to_the_network(workspace: Workspace) -> None:
    layer = Layer(workspace, prediction=1)
    layer.shown[5:8, 20:81] = 2
    layer.predict(1)
    workspace.regions.add(1, shown=lambda z, ys, xs: layer.shown[ys, xs])
    layer.predict(3)
    assert set(np.unique(layer.shown)) == {1, 2}  # all reviewed: no prediction shows
    layer.shown[5:8, 20:81] = 0
    layer.tick()
    layer.predict(3)
    assert (layer.shown[5:8, 20:81] == 3).all()
    assert np.count_nonzero(layer.shown == 3) == 3 * 61


def test_labels_outside_the_table_are_refused(workspace: Workspace) -> None:
    layer = Layer(workspace, prediction=1)
    layer.shown[0, :5] = 9
    layer.shown[1, :5] = 2
    done = layer.tick()
    assert (done.refused, done.changed) == (5, 5)
    assert workspace.annotation.counts().nonzero()[0].tolist() == [2]


def test_a_full_disk_loses_no_stroke(workspace: Workspace, tmp_path: Path, full_disk: Any) -> None:
    import pytest

    from napari_drososeg.errors import DrososegError

    layer = Layer(workspace, prediction=1)
    layer.shown[5:8, 20:81] = 2
    with full_disk(), pytest.raises(DrososegError, match="No space left"):
        layer.tick()
    assert not workspace.annotation.counts().any()
    layer.shown[5:8, 20:81] = 1  # undone while the disk was full
    layer.shown[50, :7] = 3
    layer.tick()
    assert workspace.annotation.counts().nonzero()[0].tolist() == [3]
    workspace.close()
    from napari_drososeg.workspace import open_workspace

    with open_workspace(workspace.folder) as again:
        assert again.annotation.counts()[3] == 7
    assert not list(workspace.folder.rglob("*.part"))
