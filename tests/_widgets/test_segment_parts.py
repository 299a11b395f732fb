"""The parts of the Segment widget that need no viewer: order, done map, arrays, checks, words, memory."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_drososeg._widgets.controls import checks, preferences
from napari_drososeg._widgets.controls.legend import percentages
from napari_drososeg._widgets.controls.network_card import details, licence_note, summary
from napari_drososeg._widgets.work import job as job_module
from napari_drososeg._widgets.work.job import Job, Scope, command_line, duration, read_pixels, shell_line
from napari_drososeg._widgets.work.ordering import (
    DoneMap,
    View,
    area,
    has_moved,
    rect_of,
    uncovered,
    unfinished,
    visit_order,
)
from napari_drososeg._widgets.work.store import LabelsStore, pieces
from napari_drososeg.inference import PredictConfig
from napari_drososeg.samples import synthetic_stack


@dataclass(frozen=True)
class Tile:
    write: tuple[slice, slice]


@dataclass(frozen=True)
class Task:
    z: int
    tile: Tile


def grid(n_sections: int, edge: int = 400, tile: int = 100) -> list[Task]:
    starts = range(0, edge, tile)
    return [
        Task(z, Tile((slice(y, y + tile), slice(x, x + tile))))
        for z in range(n_sections)
        for y in starts
        for x in starts
    ]


def test_order_is_where_one_looks() -> None:
    tasks = grid(5)
    ordered = visit_order(tasks, View(2, (200, 300, 0, 100)))
    assert sorted(ordered, key=tasks.index) == tasks
    assert ordered[0] == Task(2, Tile((slice(200, 300), slice(0, 100))))
    assert [t.z for t in ordered[::16]] == [2, 3, 1, 4, 0]
    wide = visit_order(tasks, View(0, (0, 200, 0, 400)))
    assert all(t.tile.write[0].start < 200 for t in wide[:8])


def test_the_view_has_moved_when_its_middle_was_out_of_sight() -> None:
    before = View(2, (100, 200, 100, 200))
    assert not has_moved(before, before)
    assert not has_moved(before, View(2, (150, 250, 60, 160)))  # still much the same
    assert not has_moved(before, View(2, (0, 300, 0, 300)))  # zoomed out
    assert has_moved(before, View(3, (100, 200, 100, 200)))
    assert has_moved(before, View(2, (160, 260, 100, 200)))
    assert has_moved(before, View(2, (100, 200, 0, 90)))


def test_a_pan_brings_what_is_seen_now_first(zoo_with_tiny: Path) -> None:
    from napari_drososeg._widgets.work.worker import Control, Piece, segment
    from napari_drososeg.inference import Predictor
    from napari_drososeg.io import as_stack

    config = PredictConfig("cpu", "torch", "f32", 0, tile=64, batch=1, pixel_size=4.6)
    network = zoo_with_tiny / "tiny.safetensors"
    job = a_job(network=str(network), config=config, sections=(0,))
    image = np.random.default_rng(0).integers(0, 255, (1, 256, 256), np.uint8)
    views = [View(0, (0, 64, 0, 64))]
    control, corners = Control(), []
    for what in segment(
        lambda notify: Predictor(network, config, notify=notify),
        as_stack(image), job, DoneMap(), lambda: views[-1], lambda _text: None, control,
    ):  # fmt: skip
        if isinstance(what, Piece):
            control.written()
            corners.append(tuple(s.start for s in what.slices))
            views.append(View(0, (192, 256, 192, 256)))
    assert control.error is None
    assert corners[:2] == [(0, 0), (192, 192)]
    assert sorted(corners) == [(y, x) for y in range(0, 256, 64) for x in range(0, 256, 64)]


def test_what_is_seen_and_the_rest_make_one_blended_section(global_network: Path) -> None:
    from napari_drososeg._widgets.work import worker
    from napari_drososeg._widgets.work.worker import Control, Planned
    from napari_drososeg.inference import Predictor, predict
    from napari_drososeg.io import as_stack

    config = PredictConfig("cpu", "torch", "f32", batch=1, pixel_size=4.6)
    stack = as_stack(synthetic_stack((2, 200, 230), 5)[0].data)
    expected = predict(stack, global_network, config)
    found, done = np.zeros_like(expected), DoneMap()
    predictor = Predictor(global_network, config)

    def segment(sections: tuple[int, ...], rect: Any, pieces: int) -> int:
        """Run until so many pieces have come; returns how many pixels were planned."""
        job = a_job(network=str(global_network), config=config, sections=sections, rect=rect)
        views = [View(0, rect or (100, 200, 100, 200))]
        run = worker.segment(lambda _: predictor, stack, job, done, lambda: views[-1], str, control)
        for what in run:
            if isinstance(what, Planned):
                planned = what.pixels
                continue
            control.written()
            found[what.result.z, *what.slices] = what.part(what.result.labels)
            if what.last:
                done.add(what.result.z, rect_of(what.result.slices))
            views.append(View(0, (0, 40, 0, 40)))  # the user goes elsewhere
            pieces -= 1
            if not pieces:
                break
        run.close()
        return planned

    control = Control()
    assert segment((0,), (61, 130, 70, 171), -1) == 69 * 101
    np.testing.assert_array_equal(found[0, 61:130, 70:171], expected[0, 61:130, 70:171])
    assert np.count_nonzero(found) == 69 * 101
    segment((0, 1), None, 5)  # and Cancel
    np.testing.assert_array_equal(found[found > 0], expected[found > 0])
    segment((0, 1), None, -1)
    assert control.error is None
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("pixel_size", [None, 4.6, 9.2, 1.3])
@pytest.mark.parametrize("halo", ["default", "exact"])
@pytest.mark.parametrize("rect", [None, (5, 700, 300, 401)])
def test_expected_work_is_what_will_be_read(pixel_size: Any, halo: Any, rect: Any, zoo_with_tiny: Path) -> None:
    from napari_drososeg._widgets.segment.choice import tile_edge
    from napari_drososeg.inference import Predictor
    from napari_drososeg.io import as_stack
    from napari_drososeg.zoo import find_card

    card = find_card("tiny")
    config = PredictConfig("cpu", "torch", "f32", halo, tile=tile_edge(card.spec, halo), pixel_size=pixel_size)
    job = a_job(config=config, rect=rect, sections=(0, 2))
    shape = (3, 3000, 2100)
    stack = as_stack(np.broadcast_to(np.uint8(0), shape))
    tasks = Predictor(zoo_with_tiny / "tiny.safetensors", config).plan(stack, sections=job.sections, roi=job.roi)
    wanted = sum(t.tile.read_shape[0] * t.tile.read_shape[1] for t in tasks)
    assert card.spec is not None
    assert read_pixels(job, card.spec, shape) == wanted
    if pixel_size is None:
        assert wanted > job.pixels(shape)


def test_int8_is_calibrated_once_for_the_same_pixels(
    qtbot: Any, monkeypatch: pytest.MonkeyPatch, many_sections: Any
) -> None:
    from napari.components import ViewerModel

    from napari_drososeg._widgets.layers.images import stack_of
    from napari_drososeg._widgets.segment import running
    from napari_drososeg.zoo import find_card

    used: list[Any] = []

    def segment(_load: Any, stack: Any, *_rest: Any) -> Any:
        used.append(stack)
        yield from ()

    monkeypatch.setattr(running, "segment", segment)
    viewer = ViewerModel()
    pixels = many_sections(3, 200, 100)
    image = viewer.add_image(pixels, name="em")
    runner = running.Runner(viewer)

    def press(precision: str = "int8", layer: Any = image) -> Any:
        job = a_job(config=PredictConfig("cpu", "auto", precision), rect=(0, 20, 0, 20), sections=(0,))
        runner.start(job, find_card("tiny"), layer, stack_of(layer))
        qtbot.waitUntil(lambda: not runner.busy, timeout=20_000)
        assert not runner.message.startswith("Failed"), runner.message
        return used[-1]

    first = press()
    assert press() is first
    assert press("f32") is not first  # which is not calibrated
    assert press() is first
    pixels[:] = 255 - pixels  # in place, which napari does not say
    inverted = press()
    assert inverted is not first
    assert press() is inverted
    image.data = pixels  # the same array, said to be new
    assert press() is not inverted
    other = viewer.add_image(pixels.copy(), name="other")
    third = press(layer=other)
    assert press(layer=other) is third
    other.scale = (1, 2, 2)
    other.units = "nm"
    assert press(layer=other) is not third  # another pixel size is another grid
    runner.close()


@pytest.mark.parametrize("rect", [None, (5, 700, 300, 401), (290, 300, 290, 300)])
def test_expected_work_of_blended_tiles(rect: Any, global_network: Path) -> None:
    from napari_drososeg.inference import Predictor
    from napari_drososeg.io import as_stack

    predictor = Predictor(global_network, PredictConfig("cpu", "torch", "f32", tile=192, pixel_size=9.2))
    job = a_job(config=predictor.config, rect=rect, sections=(0, 2))
    stack = as_stack(np.broadcast_to(np.uint8(0), (3, 900, 700)))
    tasks = predictor.plan(stack, sections=job.sections, roi=job.roi)
    wanted = sum(t.tile.read_shape[0] * t.tile.read_shape[1] for t in tasks)
    assert read_pixels(job, predictor.spec, (3, 900, 700)) == wanted


rects = st.tuples(*[st.integers(0, 12)] * 4).map(lambda t: (min(t[:2]), max(t[:2]) + 1, min(t[2:]), max(t[2:]) + 1))


def painted(boxes: list[tuple[int, int, int, int]]) -> np.ndarray:
    mask = np.zeros((14, 14), int)
    for y0, y1, x0, x1 in boxes:
        mask[y0:y1, x0:x1] += 1
    return mask


@given(rects, st.lists(rects, max_size=6))
def test_uncovered_is_the_set_difference(rect: Any, done: Any) -> None:
    left = uncovered(rect, done)
    wanted = (painted([rect]) > 0) & (painted(done) == 0)
    np.testing.assert_array_equal(painted(left), wanted)  # each pixel once


@given(st.lists(st.tuples(st.booleans(), rects), max_size=8), rects)
def test_done_map_counts_pixels(steps: Any, rect: Any) -> None:
    done, mask = DoneMap(), np.zeros((14, 14), bool)
    for add, r in steps:
        (done.add if add else done.remove)(3, r)
        mask[r[0] : r[1], r[2] : r[3]] = add
    asked = painted([rect]) > 0
    assert done.missing(3, rect) == np.count_nonzero(asked & ~mask)
    assert done.covers(3, rect) == bool(mask[asked].all())
    assert done.missing(4, rect) == area(rect)


def test_unfinished_tasks() -> None:
    tasks, done = grid(2), DoneMap()
    done.add(0, (0, 100, 0, 400))
    assert len(unfinished(tasks, done, whole_sections=False)) == 28
    assert len(unfinished(tasks, done, whole_sections=True)) == 32  # blended tiles need their neighbours
    done.add(0, (100, 400, 0, 400))
    assert {t.z for t in unfinished(tasks, done, whole_sections=True)} == {1}
    assert done.sections((400, 400)) == [0]


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize("flat", [False, True])
def test_store_keeps_what_the_user_painted(on_disk: bool, flat: bool) -> None:
    shape = (40, 50) if flat else (3, 40, 50)
    box = LabelsStore(shape, 3, in_memory_bytes=0 if on_disk else None)
    whole = (slice(0, 40), slice(0, 50))
    z = 0 if flat else 1

    def section() -> np.ndarray:
        return np.asarray(box.labels[box.index(z, *whole)])

    def paint(ys: slice, xs: slice, value: int) -> None:
        box.labels[box.index(z, ys, xs)] = value

    first = np.random.default_rng(1).integers(1, 4, (40, 50)).astype(np.uint8)
    assert box.write(z, whole, first) == 0
    np.testing.assert_array_equal(section(), first)
    paint(slice(0, 5), slice(0, 5), 2)
    paint(slice(10, 15), slice(0, 5), 0)  # erased
    mine = np.zeros((40, 50), bool)
    mine[:5, :5] = first[:5, :5] != 2  # painting what is there already is not a correction
    second = first % 3 + 1
    assert box.write(z, whole, second) == np.count_nonzero(mine)
    wanted = np.where(mine, 2, second)
    np.testing.assert_array_equal(section(), wanted)
    third = np.full((40, 50), 2, np.uint8)  # agrees with the user, who must not be forgotten for it
    box.write(z, whole, third)
    box.write(z, whole, first)
    np.testing.assert_array_equal(section(), np.where(mine, 2, first))
    paint(slice(0, 5), slice(0, 5), 0)
    box.write(z, (slice(0, 20), slice(0, 50)), first[:20])
    np.testing.assert_array_equal(section()[:20], first[:20])
    np.testing.assert_array_equal(box.counts, np.bincount(np.asarray(box.labels[...]).ravel(), minlength=256))
    paint(slice(20, 30), slice(0, 50), 3)
    box.count_strokes(z)
    np.testing.assert_array_equal(box.total_counts(), np.bincount(np.asarray(box.labels[...]).ravel(), minlength=256))


def test_labels_that_are_no_class_go_back() -> None:
    box = LabelsStore((1, 20, 20), 3)
    whole = (slice(0, 20), slice(0, 20))
    box.write(0, whole, np.full((20, 20), 1, np.uint8))
    box.labels[0, :5] = 2
    assert box.write(0, whole, np.full((20, 20), 3, np.uint8)) == 100
    box.labels[0, 2:8] = 9
    assert box.count_strokes(0) == 120
    assert box.write(0, (slice(0, 10), slice(0, 20)), np.full((10, 20), 1, np.uint8)) == 100
    assert (box.labels[0, :5] == 2).all()  # the user's own, not lost for the slip
    assert (box.labels[0, 5:10] == 1).all()
    assert box.refused == 120
    np.testing.assert_array_equal(box.total_counts(), np.bincount(box.labels.ravel(), minlength=256))


def test_pieces_follow_the_chunks() -> None:
    cut = pieces((slice(1000, 3000), slice(0, 1024)))
    assert [(y.start, y.stop) for y, _ in cut] == [(1000, 1024), (1024, 2048), (2048, 3000)]
    assert pieces((slice(5, 900), slice(7, 8))) == [(slice(5, 900), slice(7, 8))]


def a_job(**changes: Any) -> Job:
    job = Job("/zoo/unet.safetensors", "unet", "abc", PredictConfig(pixel_size=4.6), (0, 1, 2))
    return replace(job, **changes)


def test_key_says_what_decides_about_the_result() -> None:
    job = a_job()
    for same in ({"device": "cuda"}, {"tile": 512}, {"engine": "torch"}):
        assert replace(job, config=replace(job.config, **same)).key == job.key
    for other in ({"precision": "int8"}, {"halo": "exact"}, {"pixel_size": 9.0}, {"invert": True}, {"fill_nan": 0.0},
                  {"orientations": 2}):  # fmt: skip
        assert replace(job, config=replace(job.config, **other)).key != job.key
    assert replace(job, sha256="abd").key != job.key


def test_the_command_is_one_the_command_line_knows() -> None:
    from typer.main import get_command

    from napari_drososeg.cli import app

    config = PredictConfig(
        "cpu", "openvino", "bf16", "exact", pixel_size=9.2, invert=True, fill_nan=0.5, orientations=4
    )
    job = a_job(config=config, rect=(0, 64, 32, 96), sections=(4, 5, 6), outputs=frozenset({"labels", "probabilities"}))
    text = command_line(job, "/data/my stack.tif", 20)
    assert "'/data/my stack.tif'" in text
    for part in (
        "--sections 4-6",
        "--roi 0:64,32:96",
        "--pixel-size 9.2",
        "--invert",
        "--fill-nan 0.5",
        "--orientations 4",
        "--model unet",
    ):
        assert part in text
    known = {o for p in get_command(app).commands["predict"].params for o in p.opts}  # type: ignore[attr-defined]
    assert {word for word in text.split() if word.startswith("--")} <= known
    plain = command_line(a_job(), "a.tif", 3).replace("--model", "")
    assert plain.count("--") == 1
    assert plain.endswith("--pixel-size 4.6")  # the layer's may not be the file's


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (42.4, "42 s"), (100, "2 min"), (3600, "60 min"), (8000, "2 h 15 min"), (7200, "2 h")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def form(**changes: Any) -> dict[str, str]:
    values: dict[str, Any] = {
        "image": None, "network": None, "scope": Scope.STACK, "first": 0, "last": 3, "flat_view": True,
        "pixel_size": 4.6, "network_pixel_size": 4.6, "device": "auto", "engine": "auto", "precision": "auto",
    }  # fmt: skip
    return checks.problems(**{**values, **changes})


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"image": "no image"}, "image"),
        ({"network": "no network"}, "network"),
        ({"scope": Scope.VIEW, "flat_view": False}, "scope"),
        ({"scope": Scope.RANGE, "first": 4}, "range"),
        ({"pixel_size": 0}, "pixel_size"),
        ({"pixel_size": 0.0046}, "pixel_size"),
        ({"device": "cuda" if sys.platform == "darwin" else "mps"}, "device"),
        ({"engine": "openvino", "device": "cuda"}, "engine"),
        ({"precision": "int8", "engine": "torch"}, "precision"),
        ({"precision": "f16", "device": "cpu"}, "precision"),
    ],
)
def test_problems_name_their_field(changes: dict[str, Any], field: str) -> None:
    assert form() == {}
    assert field in form(**changes)
    assert len(form(**changes)[field]) > 7


def test_preferences_survive_damage(tmp_path: Path) -> None:
    assert preferences.load("segment") == {}
    preferences.save("segment", {"network": "unet"})
    preferences.save("batch", {"x": 1})
    assert preferences.load("segment") == {"network": "unet"}
    preferences.path().write_text("{ half a file", encoding="utf-8")
    assert preferences.load("segment") == {}
    preferences.save("segment", {"network": "fpn"})
    assert json.loads(preferences.path().read_text(encoding="utf-8")) == {"segment": {"network": "fpn"}}
    preferences.path().write_text("[1, 2]", encoding="utf-8")
    assert preferences.load("segment") == {}
    preferences.save("segment", {})


def test_card_texts(zoo_with_tiny: Path) -> None:
    from napari_drososeg.zoo import find_card

    card = find_card("tiny")
    assert "not scored" in summary(card)
    assert card.spec is not None
    scored = replace(
        card, n_bytes=13_000_000, spec=replace(card.spec, metrics={"mean_iou": 0.842}, licence="CC-BY-NC-SA-3.0")
    )
    text = summary(scored, "about 14 s for this stack")
    for part in ("84 % mean IoU", "non-commercial", "13 MB", "about 14 s"):
        assert part in text
    assert "Mean IoU: 0.842" in details(scored)
    assert licence_note("CC0-1.0") == "CC0-1.0"
    assert "downloaded" in summary(replace(card, spec=None, path=None))


def test_percentages() -> None:
    counts = np.zeros(256, np.int64)
    assert percentages(counts, 3) is None
    counts[:4] = (1000, 1, 1, 2)
    assert percentages(counts, 3) == [25, 25, 50]


def test_commands_are_quoted_as_the_system_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["drososeg", "predict", r"C:\data\my stack.tif"]
    assert shell_line(words) == r"drososeg predict 'C:\data\my stack.tif'"
    monkeypatch.setattr(job_module.os, "name", "nt")
    assert shell_line(words) == r'drososeg predict "C:\data\my stack.tif"'
