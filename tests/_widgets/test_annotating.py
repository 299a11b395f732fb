"""From strokes on labels layers to the workspace and back, in a viewer without windows."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_drososeg._widgets.layers.error_maps import MARK
from napari_drososeg._widgets.layers.targets import Target, Targets
from napari_drososeg._widgets.retrain.annotating import ImageAnnotation
from napari_drososeg._widgets.retrain.overview import LOCKED, TRAINS
from napari_drososeg._widgets.retrain.reviewing import own_classes
from napari_drososeg._widgets.work import store
from napari_drososeg.classes import DROSOPHILA_CLASSES
from napari_drososeg.errors import DrososegError
from napari_drososeg.workspace import open_workspace

WHOLE = slice(0, 64), slice(0, 60)


class Bench:
    """A viewer with an image, and what belongs to it."""

    def __init__(self, folder: Path, flat: bool = False) -> None:
        self.viewer = ViewerModel()
        pixels = np.random.default_rng(0).integers(1, 255, (64, 60) if flat else (4, 64, 60), np.uint8)
        self.image = self.viewer.add_image(pixels, name="em")
        self.folder = folder
        self.annotation = self.open()
        self.viewer.dims.set_point(0, 1)

    def open(self) -> ImageAnnotation:
        self.annotation = ImageAnnotation(self.viewer, self.image, self.folder, DROSOPHILA_CLASSES)
        return self.annotation

    def layer(self, network: str, value: int = 1) -> Target:
        """Add a layer in which everything is predicted as one class."""
        target = Targets(self.viewer).add(self.image, network, network, DROSOPHILA_CLASSES)
        for z in range(self.annotation.stack.n_sections):
            self.predict(target, value, z)
        target.layer.brush_size = 5
        return target

    @staticmethod
    def predict(target: Target, value: int, z: int = 1) -> None:
        target.write(z, WHOLE, np.full((64, 60), value, np.uint8))

    def settle(self) -> None:
        while self.annotation.tick(1):
            pass

    def kept(self, z: int = 1) -> np.ndarray:
        """What is on disk."""
        with open_workspace(self.folder, write=False) as workspace:
            return workspace.labels(z)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "em.tif.drososeg")
    yield made
    made.annotation.close()


def section(target: Target, z: int = 1) -> np.ndarray:
    return np.asarray(target.layer.data[z])


def disc(y: int, x: int, target: Target) -> np.ndarray:
    """Pixels that a brush of five paints."""
    before = section(target).copy()
    target.layer.paint((1, y, x), 9)
    mask = section(target) != before
    target.layer.undo()
    return mask


def test_nothing_is_made_before_there_is_something_to_keep(bench: Bench) -> None:
    target = bench.layer("unet")
    bench.settle()
    assert not bench.folder.exists()
    target.layer.paint((1, 30, 30), 3)
    bench.settle()
    assert np.count_nonzero(bench.kept() == 3) == np.count_nonzero(section(target) == 3) > 10


def test_undo_redo_erase_and_fill(bench: Bench) -> None:
    target = bench.layer("unet")
    mask = disc(30, 30, target)
    target.layer.paint((1, 30, 30), 3)
    bench.settle()
    np.testing.assert_array_equal(bench.kept(), np.where(mask, 3, 0))
    target.layer.undo()
    bench.settle()
    assert not bench.kept().any()
    target.layer.redo()
    bench.settle()
    np.testing.assert_array_equal(bench.kept(), np.where(mask, 3, 0))
    target.layer.fill((1, 30, 30), 2)
    bench.settle()
    np.testing.assert_array_equal(bench.kept(), np.where(mask, 2, 0))
    target.layer.paint((1, 30, 30), 0)  # erased: the network's again
    bench.settle()
    assert not bench.kept().any()
    bench.predict(target, 1)
    assert (section(target) == 1).all()


def test_predictions_leave_what_was_painted_and_undo_does_not_cross_them(bench: Bench) -> None:
    target = bench.layer("unet")
    mask = disc(30, 30, target)
    target.layer.paint((1, 30, 30), 3)
    target.layer.paint((2, 30, 30), 3)
    bench.predict(target, 2)  # before any look at it
    np.testing.assert_array_equal(section(target), np.where(mask, 3, 2))
    bench.settle()
    np.testing.assert_array_equal(bench.kept(), np.where(mask, 3, 0))
    np.testing.assert_array_equal(bench.kept(2), np.where(mask, 3, 0))  # its step was in the history that had to go
    target.layer.undo()
    np.testing.assert_array_equal(section(target), np.where(mask, 3, 2))
    bench.predict(target, 1)
    np.testing.assert_array_equal(section(target), np.where(mask, 3, 1))


def test_labels_that_are_no_class_are_given_back(bench: Bench) -> None:
    target = bench.layer("unet")
    mask = disc(30, 30, target)
    target.layer.paint((1, 30, 30), 3)
    bench.settle()
    target.layer.paint((1, 30, 30), 7)
    target.layer.paint((1, 10, 10), 7)
    bench.settle()
    assert bench.annotation.refused == 2 * np.count_nonzero(mask)
    np.testing.assert_array_equal(section(target), np.where(mask, 3, 1))
    np.testing.assert_array_equal(bench.kept(), np.where(mask, 3, 0))


def test_all_layers_of_an_image_share_it(bench: Bench) -> None:
    first = bench.layer("unet", 1)
    mask = disc(30, 30, first)
    first.layer.paint((1, 30, 30), 3)
    bench.settle()
    second = bench.layer("fpn", 2)  # another network, later
    bench.settle()
    np.testing.assert_array_equal(section(second), np.where(mask, 3, 2))
    other = disc(10, 10, second)
    second.layer.paint((1, 10, 10), 1)
    second.layer.paint((1, 30, 30), 0)
    bench.settle()
    np.testing.assert_array_equal(section(first), 1)
    np.testing.assert_array_equal(bench.kept(), np.where(other, 1, 0))
    second.layer.undo()
    second.layer.undo()
    bench.settle()
    np.testing.assert_array_equal(section(first), np.where(mask, 3, 1))
    np.testing.assert_array_equal(section(second), np.where(mask, 3, 2))
    first.layer.paint((1, 10, 10), 3)
    bench.settle()
    first.layer.undo()
    bench.settle()
    np.testing.assert_array_equal(section(second), np.where(mask, 3, 2))  # its own prediction, not the other's


def test_nothing_is_written_during_a_stroke(bench: Bench) -> None:
    first, second = bench.layer("unet"), bench.layer("fpn", 2)
    mask = disc(30, 30, first)
    bench.settle()
    with second.layer.block_history():  # as napari does from button down to button up
        second.layer.paint((1, 30, 30), 1)
        before = section(second).copy()
        first.layer.paint((1, 10, 10), 3)
        bench.settle()
        np.testing.assert_array_equal(section(second), before)
        assert not (bench.kept() == 1).any()
    bench.settle()
    assert (bench.kept()[mask] == 1).all()
    assert section(second)[10, 10] == 3


def test_what_was_painted_without_a_workspace_is_brought_in(bench: Bench) -> None:
    target = bench.layer("unet")
    mask = disc(30, 30, target)
    target.layer.paint((1, 30, 30), 3)
    bench.predict(target, 2)  # now the layer's own annotation holds it
    bench.settle()
    np.testing.assert_array_equal(bench.kept(), np.where(mask, 3, 0))


def test_closed_and_opened_again(bench: Bench) -> None:
    target = bench.layer("unet")
    mask, other = disc(30, 30, target), disc(10, 10, target)
    target.layer.paint((1, 30, 30), 3)
    target.layer.paint((1, 10, 10), 3)
    bench.annotation.close()  # keeps them on the way
    np.testing.assert_array_equal(bench.kept(), np.where(mask | other, 3, 0))
    with open_workspace(bench.folder):  # others can have it now
        pass
    bench.predict(target, 2)
    np.testing.assert_array_equal(section(target), np.where(mask | other, 3, 2))
    target.layer.paint((1, 10, 10), 0)
    bench.predict(target, 2)
    target.layer.paint((1, 50, 50), 1)
    bench.predict(target, 3)
    wanted = np.where(mask, 3, np.where(disc(50, 50, target), 1, 0))
    np.testing.assert_array_equal(section(target), np.where(wanted, wanted, 3))
    bench.open()
    bench.settle()
    np.testing.assert_array_equal(bench.kept(), wanted)
    np.testing.assert_array_equal(section(target), np.where(wanted, wanted, 3))


def test_a_new_viewer_shows_what_was_annotated(bench: Bench) -> None:
    target = bench.layer("unet")
    mask = disc(30, 30, target)
    target.layer.paint((1, 30, 30), 3)
    bench.settle()
    bench.annotation.close()
    again = Bench(bench.folder)
    fresh = again.layer("unet", 2)
    again.settle()
    np.testing.assert_array_equal(section(fresh), np.where(mask, 3, 2))
    assert again.annotation.overview is not None
    assert again.annotation.overview.trains[3] == np.count_nonzero(mask)
    again.annotation.close()


def test_labels_on_disk_are_looked_at_only_where_they_can_have_changed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(store, "CHUNK", 32)
    target = bench.layer("unet")
    assert target.store.folder is not None
    target.layer.paint((1, 30, 30), 3)
    bench.settle()
    bench.viewer.dims.set_point(0, 2)
    bench.settle()
    looked: list[Any] = []
    absorb = bench.annotation._absorb
    monkeypatch.setattr(bench.annotation, "_absorb", lambda p, part: (looked.append(part), absorb(p, part)))
    bench.settle()
    assert not looked
    target.layer.paint((2, 10, 10), 2)
    bench.settle()
    assert looked
    assert {(z, y0 // 32, x0 // 32) for z, y0, _, x0, _ in looked} == {(2, 0, 0)}
    bench.viewer.dims.set_point(0, 3)
    target.layer.undo()  # of another section than the one on screen
    bench.settle()
    assert not bench.kept(2).any()
    assert (bench.kept(1) == 3).any()


@pytest.mark.parametrize("polygon", [(), ((9.5, 9.5), (9.5, 29.5), (19.5, 29.5), (19.5, 9.5))])
def test_reviewed_regions(bench: Bench, polygon: Any) -> None:
    target, other = bench.layer("unet", 1), bench.layer("fpn", 2)
    target.layer.paint((1, 15, 15), 3)
    shown = section(target).copy()
    region = bench.annotation.review(target, 1, polygon)
    inside = region.mask(*WHOLE)
    np.testing.assert_array_equal(section(other), np.where(inside | (shown == 3), shown, 2))
    for layer in (target, other):
        bench.predict(layer, 3)
        np.testing.assert_array_equal(section(layer), np.where(inside | (shown == 3), shown, 3))
    overview = bench.annotation.overview
    assert overview is not None
    assert overview.trains[1] == np.count_nonzero(inside & (shown == 1))
    assert overview.sections[1].reviewed
    bench.annotation.lock(region, True)
    assert overview.locked.sum() == np.count_nonzero(inside)
    assert not overview.sections[1].reviewed
    bench.annotation.take_back(region)
    np.testing.assert_array_equal(section(target), 3)
    np.testing.assert_array_equal(bench.kept(), np.where(shown == 3, 3, 0))  # what was painted stays
    assert bench.annotation.whole_region(1) is None


def test_a_stroke_on_a_reviewed_section_can_be_undone(bench: Bench) -> None:
    target = bench.layer("unet")
    target.layer.paint((1, 15, 15), 3)
    bench.annotation.review(target, 1)
    known = bench.kept()
    target.layer.paint((1, 40, 40), 2)
    bench.settle()
    assert (bench.kept() == 2).any()
    target.layer.undo()
    bench.settle()
    np.testing.assert_array_equal(bench.kept(), known)
    assert bench.annotation.overview is not None
    assert bench.annotation.overview.trains.sum() == 64 * 60


def test_an_empty_region_is_refused(bench: Bench) -> None:
    target = Targets(bench.viewer).add(bench.image, "", "annotation", DROSOPHILA_CLASSES)
    with pytest.raises(DrososegError, match="Nothing is labelled"):
        bench.annotation.review(target, 1)


def test_outline_shows_what_trains_and_what_is_locked(bench: Bench) -> None:
    target = bench.layer("unet")
    target.layer.paint((1, 30, 30), 3)
    painted = section(target) == 3
    bench.settle()
    overview = bench.annotation.overview
    assert overview is not None
    overview.show(True)
    bench.settle()
    assert overview.layer is not None
    assert bench.viewer.layers.selection.active is not overview.layer
    np.testing.assert_array_equal(overview.layer.data[1], np.where(painted, TRAINS, 0))
    region = bench.annotation.review(target, 2, ((9.5, 9.5), (9.5, 29.5), (19.5, 29.5), (19.5, 9.5)), locked=True)
    np.testing.assert_array_equal(overview.layer.data[2], np.where(region.mask(*WHOLE), LOCKED, 0))
    bench.annotation.take_back(region)
    assert not overview.layer.data[2].any()
    bench.viewer.layers.remove(overview.layer)
    target.layer.undo()
    bench.settle()  # nobody draws on a layer that is gone
    overview.show(False)
    assert len(bench.viewer.layers) == 2


def test_the_outline_is_called_after_its_image(bench: Bench) -> None:
    target = bench.layer("unet")
    target.layer.paint((1, 30, 30), 3)
    bench.settle()
    assert bench.annotation.overview is not None
    bench.annotation.overview.show(True)
    bench.settle()
    outline = bench.annotation.overview.layer
    assert outline is not None
    assert outline.name == "em training area"
    bench.image.name = "second animal"
    assert outline.name == "second animal training area"
    assert outline.metadata[MARK] == {"labels": "second animal"}
    outline.name = "mine"
    bench.image.name = "third animal"
    assert outline.name == "mine"  # which the user chose


def test_a_full_disk_is_said_and_loses_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    target = bench.layer("unet")
    target.layer.paint((1, 30, 30), 3)
    bench.settle()

    def full(_path: Path, _content: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        target.layer.paint((1, 10, 10), 2)
        bench.settle()
        assert "space" in bench.annotation.problem
        assert not (bench.kept() == 2).any()
    bench.annotation._retry = 0
    bench.settle()
    assert not bench.annotation.problem
    assert (bench.kept() == 2).sum() == (section(target) == 2).sum() > 0


def test_a_layer_that_a_full_disk_kept_out_comes_in_later(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    first = bench.layer("unet")
    first.layer.paint((1, 30, 30), 3)
    bench.settle()
    late = bench.layer("fpn")
    late.layer.paint((1, 10, 10), 2)
    bench.predict(late, 1)  # the layer keeps the stroke itself until the workspace meets it

    def full(_path: Path, _content: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        bench.settle()
        assert "space" in bench.annotation.problem
    bench.annotation._retry = 0
    bench.settle()
    late.layer.paint((1, 50, 50), 2)
    bench.settle()
    assert not bench.annotation.problem
    assert bench.kept()[10, 10] == bench.kept()[50, 50] == 2
    assert section(late)[30, 30] == 3


def test_what_is_taken_back_stays_so_below_fresh_strokes(bench: Bench) -> None:
    target = bench.layer("unet")
    region = bench.annotation.review(target, 1)
    target.layer.paint((1, 30, 30), 3)
    bench.settle()
    target.layer.paint((1, 50, 50), 2)
    bench.annotation.take_back(region)  # before the stroke was looked at
    bench.settle()
    with open_workspace(bench.folder, write=False) as workspace:
        assert not workspace.reviewed.read(1).any()
        assert workspace.annotation.read(1)[30, 30] == 3
        assert workspace.annotation.read(1)[50, 50] == 2


def test_what_was_painted_just_before_a_layer_is_removed_is_kept(bench: Bench) -> None:
    target, other = bench.layer("unet"), bench.layer("fpn", 2)
    bench.settle()
    target.layer.paint((1, 30, 30), 3)
    bench.viewer.layers.remove(target.layer)
    bench.settle()
    assert (bench.kept() == 3).any()
    np.testing.assert_array_equal(section(other), np.where(bench.kept() == 3, 3, 2))
    bench.settle()
    assert [painting.target for painting in bench.annotation.paintings] == [other]


def test_a_workspace_that_is_open_elsewhere_is_said(bench: Bench, tmp_path: Path) -> None:
    target = bench.layer("unet")
    target.layer.paint((1, 30, 30), 3)
    bench.settle()
    bench.annotation.close()
    with open_workspace(bench.folder):
        bench.open()
        assert "already open in this program" in bench.annotation.problem
        target.layer.paint((1, 10, 10), 2)
        bench.settle()
        assert (section(target) == 2).any()
    bench.annotation._retry = 0
    bench.settle()
    assert not bench.annotation.problem
    assert (bench.kept() == 2).any()


def test_layers_of_other_classes_are_left_alone(bench: Bench) -> None:
    target = bench.layer("unet")
    target.layer.paint((1, 30, 30), 3)
    bench.settle()
    other = Targets(bench.viewer).add(bench.image, "", "annotation", own_classes("nucleus, vesicle"))
    other.layer.paint((1, 10, 10), 2)
    bench.settle()
    assert not bench.annotation.fits(other)
    assert not (bench.kept() == 2).any()
    assert (section(target) != 2).all()


def test_a_flat_image(tmp_path: Path) -> None:
    flat = Bench(tmp_path / "flat.drososeg", flat=True)
    target = flat.layer("unet")
    target.layer.paint((30, 30), 3)
    flat.settle()
    np.testing.assert_array_equal(flat.kept(0), np.where(target.layer.data == 3, 3, 0))
    target.layer.undo()
    flat.settle()
    assert not flat.kept(0).any()
    flat.annotation.close()
