from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_drososeg.errors import DrososegError
from napari_drososeg.inference.rescaling import axis_weights, source_region
from napari_drososeg.inference.tiling import Grid, align_up, global_halo, plan_tiles

SIDES = st.integers(1, 700)
STRIDES = st.sampled_from([1, 4, 16, 32])


@st.composite
def plans(draw, *, rescaled: bool):
    shape = (draw(SIDES), draw(SIDES))
    stride = draw(STRIDES)
    halo = draw(st.integers(0, 64))
    network = (draw(SIDES), draw(SIDES)) if rescaled else shape
    tile = (
        draw(st.integers(0, 200))
        + 2 * align_up(halo + 700, stride) * rescaled
        + 2 * align_up(halo, stride)
        + 4 * stride
    )
    roi = None
    if draw(st.booleans()):
        bounds = [sorted(draw(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)))) for n in shape]
        roi = tuple(slice(a, b + 1) for a, b in bounds)
    blend = draw(st.booleans()) and tile >= 16 * stride
    return Grid(shape, network), tile, halo, stride, roi, blend


def check(grid, tile, halo, stride, roi, blend):
    tiles = plan_tiles(grid, tile=tile, halo=halo, stride=stride, roi=roi, blend=blend)
    written = np.zeros(grid.image, np.int32)
    for t in tiles:
        written[t.write] += 1
        assert t.writes or blend
        for axis in (0, 1):
            read, write, reach = t.read[axis], t.write[axis], t.reach[axis]
            assert read.start % stride == 0
            assert (read.stop - read.start) % stride == 0
            assert 0 <= read.start < grid.network[axis]
            assert read.stop <= align_up(grid.network[axis], stride)  # clipped: never a stride beyond the border
            assert read.stop - read.start <= max(tile, stride)
            assert not t.writes or reach.start <= write.start < write.stop <= reach.stop
            if blend and roi is not None:  # nothing is computed that adds nothing
                assert reach.start < roi[axis].stop
                assert roi[axis].start < reach.stop
    inside = np.zeros(grid.image, np.int32)
    inside[roi or ...] = 1
    np.testing.assert_array_equal(written, inside)
    assert len({t.read_shape for t in tiles}) == 1
    return tiles


@given(plans(rescaled=False))
def test_every_pixel_once_aligned_clipped_with_its_halo(plan):
    grid, _tile, halo, *_ = plan
    for t in (t for t in check(*plan) if t.writes):
        for axis in (0, 1):
            read, write, end = t.read[axis], t.write[axis], grid.image[axis]
            assert read.start == 0 or write.start - read.start >= halo
            assert read.stop >= end or read.stop - write.stop >= halo
            ys = source_region(t)[axis]
            assert (ys.start, ys.stop) == (read.start, min(read.stop, end))


@given(plans(rescaled=True))
def test_every_pixel_once_on_two_grids(plan):
    grid = plan[0]
    for t in check(*plan):
        for axis in (0, 1):
            image, network = grid.image[axis], grid.network[axis]
            if image == network:
                continue
            reach, read = t.reach[axis], t.read[axis]
            needed, _ = axis_weights(network, image, reach.start, reach.stop)
            assert read.start <= needed.start  # interpolating back needs nothing that was not computed
            assert needed.stop <= read.stop


@pytest.mark.parametrize("stride", [8, 16, 32])
@pytest.mark.parametrize("strides", range(2, 9))
@pytest.mark.parametrize("network", [500, 650])
def test_small_tiles_of_networks_with_global_context_have_room(stride, strides, network):
    tile = strides * stride + stride // 2
    halo = global_halo(tile, stride)
    assert halo % stride == 0
    assert strides * stride > 2 * halo
    tiles = check(Grid((500, 500), (network, network)), tile, halo, stride, roi=None, blend=True)
    rows = sorted({(t.read[0].start, t.read[0].stop) for t in tiles})
    assert all(above[1] - below[0] >= stride for above, below in pairwise(rows))  # they are blended


def test_the_halo_of_larger_tiles_is_a_quarter():
    assert [global_halo(256, stride) for stride in (8, 16, 32)] == [64, 64, 64]


@given(plans(rescaled=False) | plans(rescaled=True))
def test_blended_tiles_of_a_region_are_those_of_the_section_that_reach_into_it(plan):
    grid, tile, halo, stride, roi, _blend = plan
    tile += 16 * stride
    whole = plan_tiles(grid, tile=tile, halo=halo, stride=stride, blend=True)
    part = plan_tiles(grid, tile=tile, halo=halo, stride=stride, roi=roi, blend=True)
    if roi is None:
        assert part == whole
        return
    ys, xs = roi
    by_read = {(t.read[0].start, t.read[1].start): t for t in part}
    assert len(by_read) == len(part)
    for t in whole:
        y, x = t.reach
        mine = by_read.pop((t.read[0].start, t.read[1].start), None)
        reaches = y.start < ys.stop and ys.start < y.stop and x.start < xs.stop and xs.start < x.stop
        assert (mine is not None) == reaches
        if mine is not None:
            assert mine.read == t.read
            assert mine.ramps == t.ramps
            assert mine.reach == (mine.write if t.reach == t.write else t.reach)
    assert not by_read


def test_a_section_within_the_tile_is_one_tile():
    (tile,) = plan_tiles(Grid((1000, 500), (1000, 500)), tile=1008, halo=64, stride=16)
    assert tile.read == (slice(0, 1008), slice(0, 512))
    assert tile.write == (slice(0, 1000), slice(0, 500))


def test_tiles_are_balanced_rather_than_one_large_and_one_thin():
    tiles = plan_tiles(Grid((16, 1040), (16, 1040)), tile=1024, halo=32, stride=16)
    assert [t.write[1].stop - t.write[1].start for t in tiles] == [520, 520]


def test_one_pixel():
    (tile,) = plan_tiles(Grid((1, 1), (1, 1)), tile=64, halo=32, stride=16)
    assert tile.write == (slice(0, 1), slice(0, 1))
    assert tile.read_shape == (16, 16)


def test_a_tile_without_room_for_its_halo_is_refused():
    with pytest.raises(DrososegError, match="no room for a halo of 64 px"):
        plan_tiles(Grid((999, 999), (999, 999)), tile=128, halo=64, stride=16)


@pytest.mark.parametrize("roi", [(slice(0, 11), slice(0, 5)), (slice(5, 5), slice(0, 5)), (slice(-3, 4), slice(0, 5))])
def test_a_region_outside_is_refused(roi):
    with pytest.raises(DrososegError, match="not inside a section of 10 x 10 px"):
        plan_tiles(Grid((10, 10), (10, 10)), tile=64, halo=0, stride=16, roi=roi)
