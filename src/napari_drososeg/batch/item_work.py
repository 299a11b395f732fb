"""The items of a run at work: stacks are predicted whole, and what is labelled is drawn."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_drososeg.batch.beside import drawn_at, overlays_of, picture_of, probabilities_of
from napari_drososeg.batch.executors import Executor, Update, reason
from napari_drososeg.batch.fingerprints import fingerprint
from napari_drososeg.batch.inspection import Opened
from napari_drososeg.batch.outcomes import Event
from napari_drososeg.batch.overlays import OverlayTask, put_overlays
from napari_drososeg.batch.plan import Item
from napari_drososeg.batch.stacks import StackTask, discard, put_in_place
from napari_drososeg.batch.tasks import Receipt, Setup, Task, open_input
from napari_drososeg.errors import DrososegError
from napari_drososeg.inference import Predictor
from napari_drososeg.io import atomic

if TYPE_CHECKING:
    from napari_drososeg.batch.state import BatchState


class ItemWork:
    """Does items of a run, whose manifest and outcomes it fills; see `BatchState`.

    Parameters
    ----------
    batch : BatchState
        The run.
    predictor : Predictor
        Its network.
    executor : Executor
        Who does the tasks.
    stop : callable
        Whether to stop.
    """

    def __init__(self, batch: BatchState, predictor: Predictor, executor: Executor, stop: Callable[[], bool]) -> None:
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
        self.to_draw: deque[Opened] = deque()  # labels are done, overlays are not
        self.seconds: dict[Path, float] = {}  # that labels took, by their path
        assert batch.card.path is not None
        self.setup = Setup(batch.card.path.resolve(), batch.card.sha256, config, predictor.fixed)

    def _calibrate(self) -> None:
        """Choose what int8 is calibrated on where a folder is filled: once for all, so that none waits for it.

        It is the first input that can be read, or that of the run that is gone on with: what a file gives must hang
        neither on which worker does it nor on what was done before.

        Raises
        ------
        DrososegError
            If that input is no longer what it was, or the quantiser fails.
        """
        if self.predictor.choice.precision != "int8" or self.batch.job.folder is None:
            return
        if before := self.batch.fixed.get("calibration"):
            source, seen = Path(before[0]), str(before[1])
            self.setup = replace(self.setup, calibration=(source, seen))
            if self.batch.waiting:  # else overlays are drawn and nothing is predicted
                if fingerprint(source) != seen:
                    raise DrososegError(
                        f"int8 was calibrated on '{source}', which is gone or was changed; --resume would mix two "
                        "kinds of results: use --overwrite to start again, or another output."
                    )
                self.predictor.calibrate(self.predictor.calibration_patches(open_input(source, seen)))
            return
        for item in self.batch.job.items if self.batch.waiting else ():
            if self.stop():
                return
            try:
                source, seen = item.source.absolute(), fingerprint(item.source)
                patches = self.predictor.calibration_patches(open_input(source, seen))
            except (DrososegError, OSError):
                continue  # it is told when its turn comes
            self.predictor.calibrate(patches)  # what fails here fails for all
            self.setup = replace(self.setup, calibration=(source, seen))
            return

    def _tidy(self, item: Item) -> None:
        overlays = self._overlays(item)
        pictures = () if overlays is None else (overlays, picture_of(overlays))
        for path in (item.target, self._probabilities(item), *pictures):
            if path is not None:
                atomic.remove_leftovers(path)

    def _probabilities(self, item: Item) -> Path | None:
        return probabilities_of(self.batch.job, item, self.config.probabilities)

    def _overlays(self, item: Item) -> Path | None:
        return None if self.config.overlays is None else overlays_of(self.batch.job, item, self.config.overlays)

    def _stacks(self, inputs: Iterable[Opened]) -> Generator[Event, None, None]:
        """Predict stacks, and draw the overlays of what is labelled by then."""
        waiting = iter(inputs)
        yield from self._tasks(waiting)
        while self.to_draw and not self.stop():  # what was labelled when all tasks were handed out
            yield from self._tasks(waiting)

    def _tasks(self, waiting: Iterator[Opened]) -> Generator[Event, None, None]:
        owners: dict[int, tuple[Task, Opened]] = {}  # the task is kept so that its identity stays its own
        refused: list[Event] = []
        faulty: set[int] = set()  # tasks whose worker died, and left what it was writing

        def tasks() -> Iterator[Task]:
            while not self.stop():
                task: Task
                if self.to_draw:
                    each = self.to_draw.popleft()
                    task = self._overlay_task(each)
                elif (found := next(waiting, None)) is not None:
                    each = found
                    self.manifest.note(each.item, "started", self._probabilities(each.item))
                    try:
                        task = self._stack_task(each)
                    except (DrososegError, OSError) as error:
                        refused.append(self._failed(each.item, reason(error), each))
                        continue
                else:
                    return
                owners[id(task)] = (task, each)
                yield task

        try:
            with closing(self.executor.run(tasks())) as updates:
                for update in updates:
                    each = owners[id(update.task)][1]
                    yield from self._update(each, update)
                    while refused:
                        yield refused.pop()
                    if update.fault is not None:  # a cluster does not say which tasks a lost worker had
                        faulty |= owners.keys() if self.config.scheduler else {id(update.task)}
                    if update.final:
                        del owners[id(update.task)]
                        if id(update.task) in faulty:
                            faulty.remove(id(update.task))
                            self._tidy(each.item)
                    elif self.stop():  # a stack is not worth waiting for: it may take hours
                        break
        finally:
            for _, each in owners.values():  # a worker that is ended cannot do it
                self._tidy(each.item)
        yield from refused

    def _stack_task(self, each: Opened) -> StackTask:
        stack = open_input(each.item.source, each.fingerprint)
        probabilities = self._probabilities(each.item)
        return StackTask(
            each.item.source.absolute(),
            each.fingerprint,
            each.item.target.absolute(),
            self.batch.job.format,
            self.config.part,
            self.setup,
            self.predictor.tile_edge(stack, self.memory),
            None if probabilities is None else probabilities.absolute(),
            each.statistics or None,
        )

    def _overlay_task(self, each: Opened) -> OverlayTask:
        item, base = each.item, self._overlays(each.item)
        assert base is not None
        return OverlayTask(
            item.source.absolute(),
            each.fingerprint,
            item.written.absolute(),
            base.absolute(),
            self.config.part,
            self.predictor.spec.classes,
        )

    def _update(self, each: Opened, update: Update) -> Iterator[Event]:
        item, drawing = each.item, isinstance(update.task, OverlayTask)
        if update.progress is not None:
            done, total = update.progress.done, update.progress.total
            yield Event("progress" if done else "started", item, "overlays" if drawing else "tile", done, total)
        elif update.fault is not None:
            self.manifest.note_event("fault", output=self.manifest.name(item), error=update.fault)
            yield Event("fault", item, f"{item.source.name}: {update.fault}")
        elif update.receipt is None:
            fail = self._not_drawn if drawing else self._failed
            yield fail(item, update.error or "", each)
        elif drawing:
            yield self._take_overlays(each, update.receipt)
        else:
            yield from self._take_labels(each, update.receipt)

    def _take_labels(self, each: Opened, receipt: Receipt) -> Iterator[Event]:
        try:
            self._commit(each, receipt)
        except (DrososegError, OSError) as error:
            discard(receipt.facts)
            yield self._failed(each.item, reason(error), each)
        else:
            yield from self._labelled(each, receipt.seconds)

    def _labelled(self, each: Opened, seconds: float) -> Iterator[Event]:
        """Go on after labels are done: to their overlays, if there are to be any."""
        if self.config.overlays is None:
            yield self._finished(each.item, "done", each, seconds)
        else:
            self.seconds[each.item.target] = seconds
            self.to_draw.append(each)

    def _take_overlays(self, each: Opened, receipt: Receipt) -> Event:
        """Give overlays their name; what they were drawn from is recorded before."""
        item, base = each.item, self._overlays(each.item)
        assert base is not None
        temporary, place = map(Path, receipt.facts["overlays"])
        try:
            if fingerprint(item.source) != each.fingerprint:
                raise DrososegError(f"'{item.source}' was changed while it was read; run it again.")
            self.manifest.note_overlays(item, drawn_at(base), temporary)
            put_overlays(temporary, place, base.absolute())
        except (DrososegError, OSError) as error:
            atomic.remove(temporary)
            return self._not_drawn(item, reason(error), each)
        return self._finished(item, "done", each, self.seconds.get(item.target, 0.0) + receipt.seconds)

    def _not_drawn(self, item: Item, error: str, each: Opened | None = None) -> Event:
        """Say that overlays failed; their labels stay done, so that only the overlays are made again."""
        self.manifest.note_event("fault", output=self.manifest.name(item), error=error)
        return self._finished(item, "failed", each, error=error)

    def _commit(self, each: Opened, receipt: Receipt) -> None:
        """Give the files of a stack their names; recorded before and after, so that no moment is bad to be killed."""
        item, facts, probabilities = each.item, receipt.facts, self._probabilities(each.item)
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

    def _failed(self, item: Item, error: str, each: Opened | None = None) -> Event:
        self.manifest.note(item, "failed", self._probabilities(item), error=error)
        return self._finished(item, "failed", each, error=error)

    def _finished(self, item: Item, state: Any, each: Opened | None = None, seconds: float = 0.0, **more: Any) -> Event:
        findings = () if each is None else tuple(each.findings)
        outcome = self.batch.outcome(item, state, seconds=seconds, findings=findings, **more)
        self.batch.outcomes[item.target] = outcome
        return Event("finished", item, outcome=outcome)
