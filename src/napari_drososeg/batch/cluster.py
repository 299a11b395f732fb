"""Tasks done by a running dask.distributed cluster. Its scheduler keeps nothing: what is done is in our manifest."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

from napari_drososeg.batch.executors import Executor, Update, reason
from napari_drososeg.batch.tasks import Receipt, Task
from napari_drososeg.errors import DrososegError

AHEAD = 2
"""Tasks handed to the scheduler for each thread of a worker: one being done, one waiting."""

CONNECT_SECONDS = 20


class DaskCluster(Executor):
    """Does tasks on a cluster.

    Parameters
    ----------
    scheduler : str
        Address (``tcp://host:8786``) or scheduler file.

    Raises
    ------
    DrososegError
        If dask.distributed is not installed or the scheduler does not answer.
    """

    def __init__(self, scheduler: str) -> None:
        try:
            self._distributed: Any = import_module("distributed")
        except ImportError as error:
            raise DrososegError(
                "A scheduler needs dask.distributed; run 'pip install \"napari-drososeg[cluster]\"'."
            ) from error
        where = {"scheduler_file": scheduler} if Path(scheduler).is_file() else {"address": scheduler}
        if "address" in where and "://" not in scheduler and ":" not in scheduler:
            raise DrososegError(
                f"The scheduler '{scheduler}' is neither a file nor an address such as tcp://host:8786."
            )
        try:
            self._client = self._distributed.Client(**where, timeout=CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError, TimeoutError) as error:
            raise DrososegError(
                f"The scheduler '{scheduler}' does not answer within {CONNECT_SECONDS} s ({reason(error)}); "
                "check that it runs."
            ) from error

    @property
    def n_workers(self) -> int:  # type: ignore[override]
        """Threads of all workers that there are now; at least 1."""
        return max(1, sum(int(w["nthreads"]) for w in self._workers().values()))

    @property
    def elsewhere(self) -> bool:
        """See `Executor.elsewhere`."""
        return True

    def memory(self, device: str) -> int:
        """See `Executor.memory`: of the smallest worker; of this machine where none has a limit."""
        limits = [int(w["memory_limit"]) // max(1, int(w["nthreads"])) for w in self._workers().values()]
        if device != "cpu" or not limits or min(limits) == 0:
            return super().memory(device)
        return min(limits)

    def _workers(self) -> dict[str, Any]:
        workers: dict[str, Any] = self._client.scheduler_info(n_workers=-1)["workers"]
        return workers

    def run(self, tasks: Iterable[Task]) -> Generator[Update]:
        """See `Executor.run`."""
        waiting = iter(tasks)
        futures: dict[Any, Task] = {}
        done = self._distributed.as_completed(loop=self._client.loop)
        known = set(self._workers())

        def hand_out() -> None:
            while len(futures) < AHEAD * self.n_workers:
                task = next(waiting, None)
                if task is None:
                    return
                future = self._client.submit(do, task, pure=False)
                futures[future] = task
                done.add(future)

        try:
            hand_out()
            while futures:
                future = next(done)
                task = futures.pop(future)
                there = set(self._workers())
                for lost in sorted(known - there):
                    yield Update(task, fault=f"the worker {lost} left the cluster; other workers take over its tasks")
                known = there
                yield self._finished(task, future)
                hand_out()
        finally:
            self._client.cancel(list(futures))

    def _finished(self, task: Task, future: Any) -> Update:
        if future.cancelled():
            raise DrososegError(
                "The connection to the scheduler was lost; finished results are kept: start it again and use --resume."
            )
        error = future.exception()
        return Update(task, error=reason(error)) if error is not None else Update(task, receipt=future.result())

    def close(self) -> None:
        """See `Executor.close`: the cluster goes on."""
        self._client.close()


def do(task: Task) -> Receipt:
    """Do a task; what a worker runs."""
    steps = task.steps()
    while True:
        try:
            next(steps)
        except StopIteration as end:
            receipt: Receipt = end.value
            return receipt
