"""The steps of a run, one after the other: open all inputs, look at them, predict stacks, predict volumes."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from typing import Any

from napari_drososeg.batch.beside import drawn_at
from napari_drososeg.batch.blocks import tile_for_blocks
from napari_drososeg.batch.executors import reason
from napari_drososeg.batch.inspection import Opened, look
from napari_drososeg.batch.item_work import ItemWork
from napari_drososeg.batch.outcomes import Event
from napari_drososeg.batch.plan import Item
from napari_drososeg.batch.provenance import run_facts
from napari_drososeg.batch.tasks import keep, open_input
from napari_drososeg.batch.volume import Stopped, VolumeJob, partial_path
from napari_drososeg.errors import DrososegError
from napari_drososeg.io import atomic
from napari_drososeg.io.zarr_volume import LabelsVolume, block_shape


class Work(ItemWork):
    """A run at work."""

    def all(self) -> Generator[Event, None, None]:
        """Do all that is waiting."""
        self._calibrate()
        self._begin()
        if not self.executor.elsewhere:
            keep(self.setup, self.predictor)
        inputs = yield from self._open()
        volumes = [each for each in inputs if self._by_blocks(each)]
        looked_at = inputs if self.config.check_sections else volumes
        if looked_at:
            spec, config = self.predictor.spec, self.setup.config
            yield from look(looked_at, self.executor, spec.normalisation, config, self.stop)
            if self.config.check_sections:
                yield from self._tell_findings(inputs)
        stacks = [each for each in inputs if each not in volumes]
        for each in stacks:
            if each.unreadable:
                yield self._not_begun(each.item, next(iter(each.unreadable.values())), each)
        yield from self._stacks(each for each in stacks if not each.unreadable)
        for each in volumes:
            if not self.stop():
                yield from self._volume(each)
                if self.to_draw:
                    yield from self._tasks(iter(()))
        for item in (*self.batch.waiting, *self.batch.undrawn):
            if item.target not in self.batch.outcomes:
                yield self._finished(item, "stopped")
        self.manifest.end()

    def _open(self) -> Generator[Event, None, list[Opened]]:
        """Open the inputs to predict, which are returned, and those to draw."""
        inputs: list[Opened] = []
        for item, found in zip(self.batch.waiting, self.batch.opened(self.batch.waiting), strict=True):
            if isinstance(found, str):
                yield self._not_begun(item, found)
                continue
            for notice in found.notices:
                self.batch.notify(notice)
            inputs.append(found)
        for item, found in zip(self.batch.undrawn, self.batch.opened(self.batch.undrawn), strict=True):
            if isinstance(found, str):
                yield self._not_drawn(item, found)
            else:
                self.to_draw.append(found)
        return inputs

    def _not_begun(self, item: Item, error: str, each: Opened | None = None) -> Event:
        self.manifest.note(item, "started", self._probabilities(item))
        return self._failed(item, error, each)

    def _begin(self) -> None:
        """Write the line of the run, and remove what killed runs left."""
        choice = self.predictor.choice
        fixed: dict[str, Any] = {
            "engine": choice.engine,
            "precision": choice.precision,
            "halo": self.predictor.halo,
            "memory": self.memory,
        }
        if self.setup.calibration is not None:
            source, seen = self.setup.calibration
            fixed["calibration"] = [str(source), seen]
        facts = run_facts(self.batch.card.sha256, self.batch.settings(), fixed)
        self.manifest.begin(facts, afresh=not self.config.resume)
        for item in (*self.batch.waiting, *self.batch.undrawn):
            if self.config.overwrite:
                overlays = self._overlays(item)
                self.manifest.note_replaceable(item, self._probabilities(item), overlays and drawn_at(overlays))
            self._tidy(item)
            if not self.config.resume:
                atomic.remove(partial_path(item.target))

    def _by_blocks(self, each: Opened) -> bool:
        """Whether an output is made in blocks: a zarr of more than one, without probabilities."""
        if self.batch.job.format != "ome-zarr" or self.config.probabilities is not None:
            return False
        return self._labels_volume(each).n_blocks() > 1

    def _labels_volume(self, each: Opened) -> LabelsVolume:
        block = block_shape(each.shape, self.config.block)
        return LabelsVolume(partial_path(each.item.target).absolute(), each.shape, block)

    def _tell_findings(self, inputs: Sequence[Opened]) -> Iterator[Event]:
        for each in inputs:
            for finding in each.findings:
                facts = {"section": finding.section, "kind": finding.kind, "detail": finding.detail}
                self.manifest.note_event("finding", output=self.manifest.name(each.item), **facts)
                yield Event("finding", each.item, finding=finding)

    def _volume(self, each: Opened) -> Generator[Event, None, None]:
        item = each.item
        self.manifest.note(item, "started")
        spec = self.predictor.spec
        try:
            yield Event("started", item, "block")
            volume = self._labels_volume(each)
            stack = open_input(item.source, each.fingerprint)
            tile = tile_for_blocks(self.predictor, stack, volume.block, self.memory)
            source = Item(item.source.absolute(), item.target.absolute())
            job = VolumeJob(
                source,
                each.fingerprint,
                volume,
                self.config.part,
                self.setup,
                tile,
                each.statistics,
                each.unreadable,
            )
            job.begin(self.manifest, spec.classes, each.voxel_size)
            for event in job.run(self.manifest, self.executor, self.stop):
                yield replace(event, item=item)
            for notice in job.notices:
                self.batch.notify(notice)
            facts: dict[str, Any] = {
                "shape": list(each.shape),
                "voxel_size": list(each.voxel_size),
                "counts": {str(z): row for z, row in sorted(job.counts.items())},
                "engine": self.predictor.description,
                "seconds": round(job.seconds, 3),
            }
            job.commit(self.manifest, facts)
            self.manifest.note(item, "done", **facts)
        except Stopped:
            return
        except (DrososegError, OSError) as error:
            yield self._failed(item, reason(error), each)
        else:
            yield from self._labelled(each, job.seconds)
