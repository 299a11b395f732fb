"""The tasks that make a volume: one for each block of labels, then one for each block of the smaller levels.

A block and what it reads, one axis::

    labels    |===========|===========|===========|======|        blocks, each a file
    block 1               [-----------]                           written by this task alone
    reads             [-------------------]                       with a halo, clipped at the true border
    tiles             [---------]                                 all of one size; see `inference.tiling`
                                [---------]

All tiles are planned from the block alone and statistics are given, so a block's labels do not depend on who makes it,
when, or what else is made. For networks with global context they are those of the whole section that reach into the
block: its labels are those of the section then, and tiles at its edges are computed for each block they reach into.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import numpy as np

from napari_drososeg.batch.plan import Part
from napari_drososeg.batch.tasks import Progress, Receipt, Setup, count_labels, load, open_input, statistics_from
from napari_drososeg.inference import Predictor, Result
from napari_drososeg.inference.tiling import align_up, overlap, resampling_margin
from napari_drososeg.io import Stack
from napari_drososeg.io.zarr_volume import Index, LabelsVolume

LARGER_TILE = 1.25
"""A tile may exceed the edge that suits this machine by this factor, so that a block is cut without a remainder."""


def tile_for_blocks(predictor: Predictor, stack: Stack, block: tuple[int, int, int], free: int) -> int:
    """Choose the tile edge in px of the network: halos come on top, so that a block is cut without a remainder.

    Tiles of networks with global context are those of the section, of the edge that they have in memory as well. The
    price is about one more tile on each side of a block: a quarter more work for 256 px tiles with a halo of 64 px in
    blocks of 2048 px.

    Parameters
    ----------
    predictor : Predictor
        The network.
    stack : Stack
        The volume.
    block : tuple of int
        (z, y, x) in px of the image.
    free : int
        Memory in bytes that may be counted on.
    """
    edge = predictor.tile_edge(stack, free)
    grid = predictor.grid(stack)
    fixed = predictor.config.tile or predictor.spec.tile
    if fixed or predictor.spec.global_context or edge >= max(grid.network):
        return edge
    stride = predictor.spec.stride
    longest = max(round(b * m / n) for b, m, n in zip(block[1:], grid.network, grid.image, strict=True))
    context = align_up(predictor.halo + max(map(resampling_margin, grid.image, grid.network)), stride)
    for parts in range(max(1, longest // edge), max(1, longest // stride)):
        tile = align_up(-(-longest // parts), stride) + 2 * context
        if tile <= LARGER_TILE * edge:
            return tile
    return edge


@dataclass(frozen=True)
class BlockTask:
    """Predict one block of a volume and write it.

    The receipt says what `WrittenBlock` does, ``counts``: pixels of each label value for each predicted section of the
    block, and ``engine``.

    Parameters
    ----------
    source : Path
        The input.
    fingerprint : str
        Of the input, as the run saw it.
    volume : LabelsVolume
        Where to.
    index : tuple of int
        Which block.
    part : Part
        What to predict; the rest of the block is 0.
    setup : Setup
        With what.
    tile : int
        Longest edge in px that the network sees at once.
    statistics : dict
        (mean, std) of the block's sections.
    """

    source: Path
    fingerprint: str
    volume: LabelsVolume
    index: Index
    part: Part
    setup: Setup
    tile: int
    statistics: dict[int, tuple[float, float]]

    level = 0

    @property
    def title(self) -> str:
        """See `Task`."""
        return f"{self.source.name}, block {','.join(map(str, self.index))}"

    def steps(self) -> Generator[Progress, None, Receipt]:
        """See `Task`."""
        loaded = load(self.setup)
        started = time.monotonic()
        predictor = loaded.predictor
        stack = open_input(self.source, self.fingerprint)
        zs, ys, xs = self.volume.region(0, self.index)
        labels = np.zeros((zs.stop - zs.start, ys.stop - ys.start, xs.stop - xs.start), np.uint8)
        roi = (ys, xs) if self.part.roi is None else overlap((ys, xs), self.part.roi)
        sections = [z for z in range(zs.start, zs.stop) if self.part.sections is None or z in self.part.sections]
        counts = {z: [0] * (len(predictor.spec.classes) + 1) for z in sections if roi is not None}
        if roi is not None and sections:
            tasks = predictor.plan(stack, sections=sections, roi=roi, tile=self.tile)
            n_results = sum(t.tile.writes for t in tasks)
            found = predictor.run(stack, tasks, statistics=statistics_from(self.statistics))
            with closing(cast("Generator[Result]", found)) as results:
                for k, result in enumerate(results, start=1):
                    y, x = (
                        slice(s.start - o.start, s.stop - o.start) for s, o in zip(result.slices, (ys, xs), strict=True)
                    )
                    labels[result.z - zs.start, y, x] = result.labels
                    more = count_labels(result.labels, len(predictor.spec.classes))
                    counts[result.z] = [a + b for a, b in zip(counts[result.z], more, strict=True)]
                    yield Progress(k, n_results)
        facts = asdict(self.volume.write(0, self.index, labels))
        facts |= {"counts": {str(z): row for z, row in counts.items()}, "engine": predictor.description}
        return Receipt(facts, time.monotonic() - started, notices=loaded.notices())


@dataclass(frozen=True)
class LevelTask:
    """Make one block of a smaller level. The receipt says what `WrittenBlock` does.

    Parameters
    ----------
    volume : LabelsVolume
        The volume.
    level : int
        Above 0; the level before is complete.
    index : tuple of int
        Which block of this level.
    """

    volume: LabelsVolume
    level: int
    index: Index

    @property
    def title(self) -> str:
        """See `Task`."""
        return f"level {self.level}, block {','.join(map(str, self.index))}"

    def steps(self) -> Generator[Progress, None, Receipt]:
        """See `Task`."""
        started = time.monotonic()
        written = self.volume.write(self.level, self.index, self.volume.half(self.level, self.index))
        yield Progress(1, 1)
        return Receipt(asdict(written), time.monotonic() - started)
