"""The steps of a run, one after the other: open all inputs, look at them, predict stacks, predict volumes."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_drososeg.batch.blocks import tile_for_blocks
from napari_drososeg.batch.executors import Executor, Update, reason
from napari_drososeg.batch.fingerprints import fingerprint
from napari_drososeg.batch.inspection import Opened, look, open_item
from napari_drososeg.batch.outcomes import Event
from napari_drososeg.batch.plan import Item
from napari_drososeg.batch.provenance import run_facts
from napari_drososeg.batch.stacks import StackTask, discard, put_in_place
from napari_drososeg.batch.tasks import Receipt, Setup, keep, open_input
from napari_drososeg.batch.volume import Stopped, VolumeJob, partial_path
from napari_drososeg.errors import DrososegError
from napari_drososeg.inference import Predictor
from napari_drososeg.io import atomic
from napari_drososeg.io.zarr_volume import LabelsVolume, block_shape

if TYPE_CHECKING:
    from napari_drososeg.batch.runner import Batch


class Work:
    """A run at work; see `napari_drososeg.batch.runner.Batch`, whose manifest and outcomes it fills.

    Parameters
    ----------
    batch : Batch
        The run.
    predictor : Predictor
        Its network.
    executor : Executor
        Who does the tasks.
    stop : callable
        Whether to stop.
    """

    def __init__(self, batch: Batch, predictor: Predictor, executor: Executor, stop: Callable[[], bool]) -> None:
        self.batch = batch
        self.config = batch.config
        self.manifest = batch.manifest
        self.predictor = predictor
        self.executor = executor
        self.stop = stop
        choice = predictor.choice
        self.memory = int(batch.fixed.get("memory") or executor.memory(choice.device))
        config = replace(
            batch.config.predict,
            device=choice.device,
            engine=choice.engine,
            precision=choice.precision,
            halo=predictor.halo,
            threads=batch.config.predict.threads or executor.threads,
        )
        assert batch.card.path is not None
        self.setup = Setup(batch.card.path.resolve(), batch.card.sha256, config, predictor.fixed)

    def all(self) -> Generator[Event, None, None]:
        """Do all that is waiting."""
        waiting = self.batch.waiting
        self._begin()
        if not self.executor.elsewhere:
            keep(self.setup, self.predictor, [])
        inputs: list[Opened] = []
        for item in waiting:
            found = open_item(item, self.config.part, self.config.predict.pixel_size)
            if isinstance(found, str):
                self.manifest.note(item, "started", self.config.probabilities)
                yield self._failed(item, found)
                continue
            for notice in found.notices:
                self.batch.notify(notice)
            inputs.append(found)
        volumes = [each for each in inputs if self._by_blocks(each)]
        stacks = [each for each in inputs if each not in volumes]
        looked_at = inputs if self.config.check_sections else volumes
        if looked_at:
            spec, config = self.predictor.spec, self.setup.config
            yield from look(looked_at, self.executor, spec.normalisation, config, self.stop)
            if self.config.check_sections:
                yield from self._tell_findings(inputs)
        readable = []
        for each in stacks:
            if each.unreadable:
                self.manifest.note(each.item, "started", self.config.probabilities)
                yield self._failed(each.item, next(iter(each.unreadable.values())), each)
            else:
                readable.append(each)
        yield from self._stacks(readable)
        for each in volumes:
            if not self.stop():
                yield from self._volume(each)
        for item in waiting:
            if item.target not in self.batch.outcomes:
                yield self._finished(item, "stopped")
        self.manifest.end()

    def _begin(self) -> None:
        """Write the line of the run, and remove what killed runs left."""
        choice = self.predictor.choice
        fixed = {
            "engine": choice.engine,
            "precision": choice.precision,
            "halo": self.predictor.halo,
            "memory": self.memory,
        }
        facts = run_facts(self.batch.card.sha256, self.batch.settings(), fixed)
        replaced = tuple(self.batch.waiting) if self.config.overwrite else ()
        self.manifest.begin(facts, afresh=not self.config.resume, replaced=replaced)
        for item in self.batch.waiting:
            self._tidy(item)
            if not self.config.resume:
                atomic.remove(partial_path(item.target))

    def _tidy(self, item: Item) -> None:
        for path in (item.target, self.config.probabilities):
            if path is not None:
                atomic.remove_leftovers(path)

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

    def _stacks(self, inputs: Sequence[Opened]) -> Generator[Event, None, None]:
        owners: dict[int, tuple[StackTask, Opened]] = {}  # the task is kept so that its identity stays its own

        def tasks() -> Iterator[StackTask]:
            for each in inputs:
                if self.stop():
                    return
                self.manifest.note(each.item, "started", self.config.probabilities)
                try:
                    task = self._stack_task(each)
                except (DrososegError, OSError) as error:
                    refused.append(self._failed(each.item, reason(error), each))
                    continue
                owners[id(task)] = (task, each)
                yield task

        refused: list[Event] = []
        try:
            with closing(self.executor.run(tasks())) as updates:
                for update in updates:
                    each = owners[id(update.task)][1]
                    yield from self._stack_update(each, update)
                    while refused:
                        yield refused.pop()
                    if update.final:
                        del owners[id(update.task)]
                    elif self.stop():  # a stack is not worth waiting for: it may take hours
                        break
        finally:
            for _, each in owners.values():  # a worker that is ended cannot do it
                self._tidy(each.item)
        yield from refused

    def _stack_task(self, each: Opened) -> StackTask:
        stack = open_input(each.item.source, each.fingerprint)
        return StackTask(
            each.item.source.absolute(),
            each.fingerprint,
            each.item.target.absolute(),
            self.batch.job.format,
            self.config.part,
            self.setup,
            self.predictor.tile_edge(stack, self.memory),
            None if self.config.probabilities is None else self.config.probabilities.absolute(),
            each.statistics or None,
        )

    def _stack_update(self, each: Opened, update: Update) -> Iterator[Event]:
        item = each.item
        if update.progress is not None:
            done, total = update.progress.done, update.progress.total
            yield Event("progress" if done else "started", item, "tile", done, total)
        elif update.fault is not None:
            self.manifest.note_event("fault", output=self.manifest.name(item), error=update.fault)
            yield Event("fault", item, f"{item.source.name}: {update.fault}")
        elif update.receipt is not None:
            try:
                self._commit(each, update.receipt)
            except (DrososegError, OSError) as error:
                discard(update.receipt.facts)
                yield self._failed(item, reason(error), each)
            else:
                yield self._finished(item, "done", each, update.receipt.seconds)
        else:
            yield self._failed(item, update.error or "", each)

    def _commit(self, each: Opened, receipt: Receipt) -> None:
        """Give the files of a stack their names; recorded before and after, so that no moment is bad to be killed."""
        item, facts, probabilities = each.item, receipt.facts, self.config.probabilities
        if fingerprint(item.source) != each.fingerprint:
            raise DrososegError(f"'{item.source}' was changed while it was read; run it again.")
        for notice in receipt.notices:
            self.batch.notify(notice)
        written: dict[str, Any] = {"written_output_fingerprint": fingerprint(Path(facts["labels"][0]))}
        if facts["probabilities"] is not None:
            written["written_probabilities_fingerprint"] = fingerprint(Path(facts["probabilities"][0]))
        done: dict[str, Any] = {
            "written": facts["labels"][1],
            "shape": facts["shape"],
            "voxel_size": list(each.voxel_size),
            "counts": facts["counts"],
            "checksum": facts["checksum"],
            "engine": facts["engine"],
            "seconds": round(receipt.seconds, 3),
            "where": receipt.where,
        }
        self.manifest.note(item, "written", probabilities, **written, **done)
        put_in_place(facts)
        self.manifest.note(item, "done", probabilities, **done)

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
                "section" if spec.global_context else "block",
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
            yield self._finished(item, "done", each, job.seconds)

    def _failed(self, item: Item, error: str, each: Opened | None = None) -> Event:
        self.manifest.note(item, "failed", self.config.probabilities, error=error)
        return self._finished(item, "failed", each, error=error)

    def _finished(self, item: Item, state: Any, each: Opened | None = None, seconds: float = 0.0, **more: Any) -> Event:
        findings = () if each is None else tuple(each.findings)
        outcome = self.batch.outcome(item, state, seconds=seconds, findings=findings, **more)
        self.batch.outcomes[item.target] = outcome
        return Event("finished", item, outcome=outcome)
