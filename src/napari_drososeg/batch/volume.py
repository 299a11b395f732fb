"""Making one volume block by block: what to do again, in which order, and when it is complete."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_drososeg.batch.blocks import BlockTask, LevelTask
from napari_drososeg.batch.executors import Executor, Update
from napari_drososeg.batch.fingerprints import fingerprint
from napari_drososeg.batch.manifest import Manifest
from napari_drososeg.batch.outcomes import Event
from napari_drososeg.batch.plan import Item, Part
from napari_drososeg.batch.preflight import free_space
from napari_drososeg.batch.tasks import Receipt, Setup
from napari_drososeg.errors import DrososegError
from napari_drososeg.io import atomic
from napari_drososeg.io.targets import check_replaceable, stem_of
from napari_drososeg.io.zarr_volume import Index, LabelsVolume

if TYPE_CHECKING:
    from napari_drososeg.classes import ClassTable
    from napari_drososeg.io import VoxelSize


def partial_path(target: Path) -> Path:
    """Return where a volume lies until it is complete: hidden, and found again by a later run."""
    return target.with_name(f".{target.name}.part")


class Stopped(Exception):
    """The user stopped the run; what is finished is kept."""


@dataclass
class VolumeJob:
    """One volume to make, or to go on making.

    Parameters
    ----------
    item : Item
        Input and output.
    fingerprint : str
        Of the input.
    volume : LabelsVolume
        At `partial_path`.
    part : Part
        What to predict.
    setup : Setup
        With what.
    tile : int
        Longest edge in px that the network sees at once.
    statistics : mapping
        (mean, std) by section.
    unreadable : mapping
        Why sections cannot be read, by section.
    """

    item: Item
    fingerprint: str
    volume: LabelsVolume
    part: Part
    setup: Setup
    tile: int
    statistics: Mapping[int, tuple[float, float]]
    unreadable: Mapping[int, str] = field(default_factory=dict)
    seconds: float = 0.0
    counts: dict[int, list[int]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    def fixed(self) -> dict[str, Any]:
        """Return what all blocks have in common, as the manifest keeps it."""
        return {
            "input_fingerprint": self.fingerprint,
            "shape": list(self.volume.shape),
            "block": list(self.volume.block),
            "tile": self.tile,
            "statistics": {str(z): list(pair) for z, pair in sorted(self.statistics.items())},
        }

    def begin(self, manifest: Manifest, classes: ClassTable, voxel_size: VoxelSize) -> None:
        """Create the volume, or find what is done of it; tile and statistics are those of the earlier run then.

        Raises
        ------
        DrososegError
            If it was begun from another input, or would replace something other than labels.
        """
        check_replaceable(self.item.target, "ome-zarr")
        before = manifest.volumes.get(manifest.name(self.item))
        if before is not None and self.volume.path.is_dir():
            if before["input_fingerprint"] != self.fingerprint:
                raise DrososegError(
                    f"The input '{self.item.source}' was changed since this volume was begun; --resume would mix two "
                    "images: use --overwrite to start again, or another output."
                )
            self.tile = int(before["tile"])  # what blocks that are done were made with
            self.statistics = {
                **self.statistics,
                **{int(z): (pair[0], pair[1]) for z, pair in before["statistics"].items()},
            }
            return
        atomic.remove(self.volume.path)
        self.volume.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.volume.create(classes, voxel_size, stem_of(self.item.target))
        except OSError as error:
            raise DrososegError(f"'{self.item.target}' cannot be written: {error.strerror or error}.") from error
        manifest.note_volume(self.item, **self.fixed())

    def run(self, manifest: Manifest, executor: Executor, stop: Callable[[], bool]) -> Generator[Event, None, None]:
        """Make all blocks and levels that are not done.

        Raises
        ------
        DrososegError
            If blocks failed; the message has the first reason. The others are done and recorded.
        Stopped
            If `stop` said so; blocks that were being made are finished first.
        """
        for level in range(len(self.volume.shapes)):
            yield from self._level(level, manifest, executor, stop)
            if self.failures:
                n = len(self.failures)
                more = f" (and {n - 1} more blocks failed)" if n > 1 else ""
                raise DrososegError(f"{self.failures[0]}{more}")
        self.volume.tidy()

    def _level(
        self, level: int, manifest: Manifest, executor: Executor, stop: Callable[[], bool]
    ) -> Generator[Event, None, None]:
        known = manifest.blocks.get(manifest.name(self.item), {})
        waiting: list[Index] = []
        done, total = 0, 0
        for index in self.volume.blocks(level):
            total += 1
            entry = known.get((level, *index))
            if entry is not None and self.volume.is_intact(level, index, entry["file"]):
                done += 1
                self._count(entry)
            elif error := self._unreadable(level, index):
                self.failures.append(error)
                manifest.note_event("fault", output=manifest.name(self.item), index=list(index), error=error)
            else:
                waiting.append(index)
        what = "block" if level == 0 else f"level {level}"
        yield Event("progress", self.item, what, done, total)
        tasks = (self._task(level, index) for index in waiting if not (stop() or self._disk_is_full()))
        with closing(executor.run(tasks)) as updates:
            for update in updates:
                if update.fault is not None:
                    title = update.task.title
                    manifest.note_event("fault", output=manifest.name(self.item), task=title, error=update.fault)
                    yield Event("fault", self.item, f"{title}: {update.fault}")
                if update.final:
                    done += self._take(level, update, manifest)
                    yield Event("progress", self.item, what, done, total)
        if done < total and not self.failures:
            raise Stopped

    def _disk_is_full(self) -> bool:
        """Whether blocks fail for want of space: to go on would only waste hours."""
        return bool(self.failures) and free_space(self.volume.path) < math.prod(self.volume.block)

    def _task(self, level: int, index: Index) -> BlockTask | LevelTask:
        if level:
            return LevelTask(self.volume, level, index)
        zs = self.volume.region(0, index)[0]
        statistics = {z: self.statistics[z] for z in range(zs.start, zs.stop) if z in self.statistics}
        return BlockTask(
            self.item.source, self.fingerprint, self.volume, index, self.part, self.setup, self.tile, statistics
        )

    def _take(self, level: int, update: Update, manifest: Manifest) -> int:
        """Record a block that is done, 1, or has failed, 0."""
        task = update.task
        assert isinstance(task, BlockTask | LevelTask)
        if update.receipt is None:
            self.failures.append(f"{task.title}: {update.error}")
            manifest.note_event("fault", output=manifest.name(self.item), task=task.title, error=update.error)
            return 0
        receipt: Receipt = update.receipt
        entry = {
            **receipt.facts,
            "seconds": round(receipt.seconds, 3),
            "where": receipt.where,
            "peak_bytes": receipt.peak_bytes,
        }
        manifest.note_block(self.item, level, task.index, **entry)
        self._count(entry)
        self.notices += [n for n in receipt.notices if n not in self.notices]
        return 1

    def _count(self, entry: Mapping[str, Any]) -> None:
        self.seconds += float(entry.get("seconds", 0.0))
        for z, row in entry.get("counts", {}).items():
            before = self.counts.get(int(z), [0] * len(row))
            self.counts[int(z)] = [a + b for a, b in zip(before, row, strict=True)]

    def _unreadable(self, level: int, index: Index) -> str | None:
        if level or not self.unreadable:
            return None
        zs = self.volume.region(0, index)[0]
        wanted = (z for z in range(zs.start, zs.stop) if self.part.sections is None or z in self.part.sections)
        return next((self.unreadable[z] for z in wanted if z in self.unreadable), None)

    def commit(self, manifest: Manifest, facts: Mapping[str, Any]) -> None:
        """Give the complete volume its name."""
        if fingerprint(self.item.source) != self.fingerprint:
            raise DrososegError(f"The input '{self.item.source}' was changed while it was read; run it again.")
        manifest.note(self.item, "written", written_output_fingerprint=fingerprint(self.volume.path), **facts)
        atomic.put_in_place(self.volume.path, self.item.target)
