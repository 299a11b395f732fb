from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_drososeg.checkpoint import load_model, load_spec, save_checkpoint
from napari_drososeg.inference import PredictConfig, Predictor, measure_halo
from napari_drososeg.inference.blending import Blender, ramp, tile_weights
from napari_drososeg.inference.rescaling import axis_weights, source_region, to_image, to_network
from napari_drososeg.inference.results import Finisher, Task
from napari_drososeg.inference.tiling import Grid, align_up, plan_tiles, resampling_margin
from napari_drososeg.io import as_stack


def blend(shape, tiles, field):
    out = np.full((len(field), *shape), np.nan, np.float32)
    blender = Blender(tiles)
    for tile in tiles:
        for done, values in blender.add(tile, field[:, *tile.reach]):
            out[:, *done.write] = values
    return out


@pytest.mark.parametrize(
    "grid", [Grid((300, 421), (300, 421)), Grid((300, 421), (150, 230)), Grid((100, 90), (260, 300))]
)
def test_blending_equal_tiles_changes_nothing_and_fills_everything(grid):
    field = np.random.default_rng(0).random((3, *grid.image), np.float32)
    tiles = plan_tiles(grid, tile=128, halo=0, stride=16, blend=True)
    assert len(tiles) > 4
    first = blend(grid.image, tiles, field)
    np.testing.assert_allclose(first, field, atol=1e-6)
    for order in (tiles[::-1], tiles[::2] + tiles[1::2]):
        np.testing.assert_array_equal(blend(grid.image, order, field), first)  # to the last bit


def test_overlapping_tiles_are_merged_smoothly():
    grid = Grid((64, 400), (64, 400))
    tiles = plan_tiles(grid, tile=128, halo=0, stride=16, blend=True)
    blender = Blender(tiles)
    line = np.zeros(400)
    for k, tile in enumerate(tiles):  # each tile says something else
        shape = tuple(s.stop - s.start for s in tile.reach)
        for done, values in blender.add(tile, np.full((1, *shape), k, np.float32)):
            line[done.write[1]] = values[0, 0]
    assert np.abs(np.diff(line)).max() < 0.1
    assert line[0] == 0
    assert line[-1] == len(tiles) - 1


def test_a_part_of_a_plan_is_complete_without_the_rest():
    grid = Grid((300, 300), (300, 300))
    part = plan_tiles(grid, tile=128, halo=0, stride=16, blend=True)[:3]
    blender = Blender(part)
    finished = [
        t
        for tile in part
        for t, _ in blender.add(tile, np.ones((2, *(s.stop - s.start for s in tile.reach)), np.float32))
    ]
    assert set(finished) == set(part)


def test_blending_a_large_section_begins_at_once():
    grid = Grid((8192, 8192), (8192, 8192))
    tiles = plan_tiles(grid, tile=256, halo=64, stride=16, blend=True)
    assert len(tiles) > 3000
    start = time.process_time()
    Blender(tiles)  # one for each section
    assert time.process_time() - start < 5  # 60 s when it looked at each pair of tiles by itself


def globally(image, tiles, order):
    """Blend what a network gives that adds the mean of all it sees to each pixel."""
    out = np.full((2, *image.shape), np.nan, np.float32)
    finisher = Finisher([Task(0, t) for t in tiles], frozenset({"labels", "probabilities"}))
    for k in order:
        seen = to_network(image[source_region(tiles[k])], tiles[k])
        for result in finisher.finish(Task(0, tiles[k]), np.stack([seen, seen + 10 * seen.mean()])):
            assert np.isnan(out[:, *result.slices]).all()  # each pixel once
            out[:, *result.slices] = result.probabilities
    return out


@given(st.data())
def test_a_region_is_a_crop_of_the_blended_section(data):
    sides = st.tuples(st.integers(1, 90), st.integers(1, 90))
    shape = data.draw(sides)
    network = data.draw(st.just(shape) | sides)
    stride = data.draw(st.sampled_from([1, 4, 8]))
    halo = data.draw(st.integers(0, 12))
    margin = max(resampling_margin(n, m) for n, m in zip(shape, network, strict=True))
    tile = 2 * align_up(halo + margin, stride) + stride * data.draw(st.integers(3, 10))
    ys, xs = (slice(a, data.draw(st.integers(a + 1, n))) for n in shape for a in [data.draw(st.integers(0, n - 1))])
    image = np.random.default_rng(0).random(shape, np.float32)

    def blended(roi):
        tiles = plan_tiles(Grid(shape, network), tile=tile, halo=halo, stride=stride, roi=roi, blend=True)
        return globally(image, tiles, data.draw(st.permutations(range(len(tiles)))))

    whole, part = blended(None), blended((ys, xs))
    assert not np.isnan(whole).any()
    np.testing.assert_array_equal(part[:, ys, xs], whole[:, ys, xs])
    part[:, ys, xs] = np.nan
    assert np.isnan(part).all()  # nothing outside


@given(st.integers(1, 60), st.integers(0, 80), st.integers(0, 80))
def test_weights_are_positive_and_mirror(length, before, after):
    weights = ramp(length, before, after)
    assert weights.shape == (length,)
    assert 0 < weights.min() <= weights.max() <= 1
    np.testing.assert_allclose(weights, ramp(length, after, before)[::-1], atol=1e-6)


def test_two_slopes_over_the_same_pixels_add_up_to_one():
    np.testing.assert_allclose(ramp(20, 0, 20) + ramp(20, 20, 0), 1, atol=1e-6)


def test_the_outer_border_keeps_full_weight():
    tiles = plan_tiles(Grid((300, 300), (300, 300)), tile=128, halo=0, stride=16, blend=True)
    assert tile_weights(tiles[0])[0, 0] == 1
    assert tile_weights(tiles[-1])[-1, -1] == 1


@given(st.integers(1, 300), st.integers(1, 300), st.data())
def test_resampling_weights_add_up_and_parts_agree_with_the_whole(size_in, size_out, data):
    source, weights = axis_weights(size_in, size_out, 0, size_out)
    values = np.random.default_rng(size_in).random(size_in).astype(np.float32)
    whole = weights @ values[source]
    np.testing.assert_allclose(weights @ np.ones(source.stop - source.start, np.float32), 1, atol=1e-5)
    start = data.draw(st.integers(0, size_out - 1))
    stop = data.draw(st.integers(start + 1, size_out))
    source, weights = axis_weights(size_in, size_out, start, stop)
    np.testing.assert_allclose(weights @ values[source], whole[start:stop], atol=1e-5)


def test_enlarging_is_linear_interpolation():
    source, weights = axis_weights(4, 8, 0, 8)
    np.testing.assert_allclose(weights @ np.arange(4.0)[source], [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3])


def test_shrinking_does_not_alias():
    stripes = np.tile([0.0, 1.0], 200)
    source, weights = axis_weights(400, 100, 10, 90)
    np.testing.assert_allclose(weights @ stripes[source], 0.5, atol=0.01)


@pytest.mark.parametrize("network", [(120, 131), (410, 505)])
def test_there_and_back_gives_a_smooth_image_without_seams(network):
    shape = (251, 307)
    grid = Grid(shape, network)
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    image = np.sin(y / 25) + np.cos(x / 31)
    out = np.full(shape, np.nan, np.float32)
    tiles = plan_tiles(grid, tile=96, halo=0, stride=16)
    assert len(tiles) > 3
    for tile in tiles:
        seen = to_network(image[source_region(tile)], tile)
        assert seen.shape == tile.read_shape
        out[tile.write] = to_image(seen[None], tile)[0]
    np.testing.assert_allclose(out[8:-8, 8:-8], image[8:-8, 8:-8], atol=0.03)
    assert np.abs(out - image).max() < 0.15  # borders are replicated


def test_a_network_with_global_context_sees_tiles_as_large_as_in_training(tiny_network: Path, tmp_path: Path) -> None:
    spec = replace(load_spec(tiny_network), global_context=True, tile=96, halo=16)
    path = save_checkpoint(tmp_path / "global.safetensors", load_model(tiny_network)[1].state_dict(), spec)
    stack = as_stack(np.random.default_rng(0).integers(0, 255, (1, 200, 300), dtype=np.uint8))
    predictor = Predictor(path, PredictConfig(device="cpu", engine="torch"))
    assert {t.tile.read_shape for t in predictor.plan(stack)} == {(96, 96)}
    larger = Predictor(path, PredictConfig(device="cpu", engine="torch", tile=160))
    assert max(max(t.tile.read_shape) for t in larger.plan(stack)) > 96
    assert measure_halo(path, stack) == 32  # a quarter of its tile, in strides
