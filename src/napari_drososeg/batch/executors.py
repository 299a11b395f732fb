"""Who does the tasks: this process, or local processes. See `napari_drososeg.batch.cluster` for a cluster."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Self

from napari_drososeg.batch.tasks import Progress, Receipt, Task
from napari_drososeg.errors import DrososegError

ATTEMPTS = 3
"""A task at which this many workers died is given up: it probably is the task."""


@dataclass(frozen=True)
class Update:
    """News of a task: how far it is, its receipt, why it failed, or a fault after which it is done again."""

    task: Task
    progress: Progress | None = None
    receipt: Receipt | None = None
    error: str | None = None
    fault: str | None = None

    @property
    def final(self) -> bool:
        """Whether nothing more will come of this task."""
        return self.receipt is not None or self.error is not None


def reason(error: BaseException) -> str:
    """Return why something failed on one line; what nobody expected with its type."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if isinstance(error, DrososegError | OSError) else f"{type(error).__name__}: {text}"


class Executor(ABC):
    """Does tasks. As a context manager it lets go of its workers."""

    n_workers: int = 1

    @abstractmethod
    def run(self, tasks: Iterable[Task]) -> Generator[Update]:
        """Do tasks in about their order.

        Closing the generator stops: what is being done is given up and leaves nothing that shows. On a cluster it is
        finished by the worker that has it, under a name that ends in ``.part``.

        Yields
        ------
        Update
            For each task one with a receipt or an error at last.
        """

    def memory(self, device: str) -> int:
        """Return the bytes that a task may count on."""
        from napari_drososeg.inference.memory import free_memory

        return free_memory(device) // self.n_workers

    @property
    def threads(self) -> int | None:
        """Threads that suit each worker; None for as many as there are."""
        return None

    @property
    def elsewhere(self) -> bool:
        """Whether tasks are done in other processes than this one."""
        return self.n_workers > 1

    def close(self) -> None:  # noqa: B027 -- not every executor holds something
        """Let go of the workers."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ThisProcess(Executor):
    """Does one task after the other, here."""

    def run(self, tasks: Iterable[Task]) -> Generator[Update]:
        """See `Executor.run`."""
        for task in tasks:
            steps = task.steps()
            try:
                while True:
                    try:
                        progress = next(steps)
                    except StopIteration as end:
                        yield Update(task, receipt=end.value)
                        break
                    except Exception as error:  # whatever it is, it must not cost the tasks that are still waiting
                        yield Update(task, error=reason(error))
                        break
                    yield Update(task, progress=progress)
            finally:
                steps.close()


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    task: Task | None = None


class LocalWorkers(Executor):
    """Does tasks in processes on this machine; one that dies is replaced and its task done again.

    Parameters
    ----------
    n_workers : int
        Number of processes.
    """

    def __init__(self, n_workers: int) -> None:
        self.n_workers = n_workers
        self._workers: list[_Worker] = []
        self._context = multiprocessing.get_context("spawn")

    @property
    def threads(self) -> int:
        """See `Executor.threads`."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return max(1, cores // self.n_workers)

    @property
    def elsewhere(self) -> bool:
        """See `Executor.elsewhere`."""
        return True

    def run(self, tasks: Iterable[Task]) -> Generator[Update]:
        """See `Executor.run`."""
        waiting = iter(tasks)
        again: list[Task] = []
        deaths: dict[int, int] = {}  # by the identity of the task, which is kept alive in `again` or by a worker
        try:
            while True:
                for worker in self._idle():
                    worker.task = again.pop(0) if again else next(waiting, None)
                    if worker.task is None:
                        break
                    with suppress(OSError):  # it died while idle: found out below
                        worker.pipe.send(worker.task)
                busy = [w for w in self._workers if w.task is not None]
                if not busy:
                    return
                for worker in self._ready(busy):
                    task = worker.task
                    assert task is not None
                    update = self._receive(worker, task)
                    if update.fault is not None:
                        deaths[id(task)] = deaths.get(id(task), 0) + 1
                        if deaths[id(task)] >= ATTEMPTS:
                            update = Update(task, error=f"{update.fault}, after {ATTEMPTS} attempts: out of memory?")
                        else:
                            again.append(task)
                    if update.final:
                        worker.task = None
                        deaths.pop(id(task), None)
                    yield update
        finally:
            if any(w.task is not None for w in self._workers):  # stopped in the middle
                self.close()

    def _idle(self) -> Iterator[_Worker]:
        """Iterate over workers without a task, starting those that are missing as they are asked for."""
        yield from [w for w in self._workers if w.task is None]
        while len(self._workers) < self.n_workers:
            here, there = self._context.Pipe()
            process = self._context.Process(target=serve, args=(there,), name="drososeg-worker", daemon=True)
            process.start()
            there.close()  # so that reading here ends when the worker does
            self._workers.append(_Worker(process, here))
            yield self._workers[-1]

    def _ready(self, busy: list[_Worker]) -> list[_Worker]:
        ready = wait([w.pipe for w in busy])
        return [w for w in busy if w.pipe in ready]

    def _receive(self, worker: _Worker, task: Task) -> Update:
        """Read what a worker says; that it is gone is a fault."""
        try:
            kind, value = worker.pipe.recv()
        except (EOFError, OSError):
            worker.process.join()
            code = worker.process.exitcode or 0
            how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
            self._workers.remove(worker)
            return Update(task, fault=f"a worker was {how}" if code < 0 else f"a worker {how}")
        return Update(task, **{kind: value})

    def close(self) -> None:
        """See `Executor.close`."""
        for worker in self._workers:
            worker.pipe.close()
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join()
        self._workers.clear()


def serve(pipe: Connection) -> None:
    """Do the tasks that come through a pipe, until it is closed; what a worker process runs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C reaches all processes; the one that hands out work decides
    parent = multiprocessing.parent_process()
    if parent is not None:

        def end_with_parent() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=end_with_parent, daemon=True).start()
    while True:
        try:
            task: Task = pipe.recv()
        except (EOFError, OSError):
            return
        message: tuple[str, object]
        try:
            steps = task.steps()
            while True:
                try:
                    pipe.send(("progress", next(steps)))
                except StopIteration as end:
                    message = ("receipt", end.value)
                    break
        except Exception as error:
            message = ("error", reason(error))
        try:
            pipe.send(message)
        except OSError:
            return
