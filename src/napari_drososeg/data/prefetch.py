"""The next batches in background threads."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Barrier
from types import TracebackType

import torch

from napari_drososeg.data.patches import Batch


class Prefetch:
    """Make the next batches in background threads while the network learns from this one.

    Parameters
    ----------
    draw : callable
        A `PatchSampler`, or what else returns a batch by its number alone.
    stop : int
        Number of batches there are.
    threads : int
        How many batches are made at once, ahead of the one that is wanted. See `threads_for`.
    """

    def __init__(self, draw: Callable[[int], Batch], stop: int, threads: int = 1) -> None:
        self._draw, self._stop, self._ahead = draw, stop, threads
        self._made: dict[int, Future[Batch]] = {}
        before = torch.get_num_threads()
        self._threads = ThreadPoolExecutor(threads, "drososeg-patches", initializer=_keep_to_one_core)
        # Threads begin with work only; each must have asked for its own number of cores before others get theirs back.
        gate = Barrier(threads)
        for waiting in [self._threads.submit(gate.wait) for _ in range(threads)]:
            waiting.result()
        torch.set_num_threads(before)  # for the threads to come, see `_keep_to_one_core`

    def __call__(self, step: int) -> Batch:
        """Return batch number `step`, and begin with those after it."""
        wanted = range(step, min(step + 1 + self._ahead, self._stop))
        for number in self._made.keys() - set(wanted):
            self._made.pop(number).cancel()
        for number in wanted:
            if number not in self._made:
                self._made[number] = self._threads.submit(self._draw, number)
        return self._made.pop(step).result()

    def __enter__(self) -> Prefetch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)


def threads_for(device: str) -> int:
    """Return how many threads `Prefetch` needs to keep a device of this type busy: "cpu", "cuda", "mps".

    On a processor one is enough, and more would take cores from the network. A graphics card learns from a batch in
    the time that one core needs for a patch or two.
    """
    return 1 if device == "cpu" else max(1, min(8, (os.cpu_count() or 2) - 1))


def _keep_to_one_core() -> None:
    """Let torch use one core in this thread: with more, patches and network would wait for each other.

    Torch keeps the number for each thread, but also the last one that was set, for threads that have not asked yet.
    """
    torch.get_num_threads()  # asks: from here on this thread has its own number
    torch.set_num_threads(1)
