"""The next batch in a background thread."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import torch

from napari_drososeg.data.patches import Batch


class Prefetch:
    """Make the next batch in a background thread while the network learns from this one.

    Parameters
    ----------
    draw : callable
        A `PatchSampler`, or what else returns a batch by its number alone.
    stop : int
        Number of batches there are.
    """

    def __init__(self, draw: Callable[[int], Batch], stop: int) -> None:
        self._draw, self._stop = draw, stop
        self._next: tuple[int, Future[Batch]] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="drososeg-patches")
        before = torch.get_num_threads()
        self._thread.submit(_keep_to_one_core).result()
        torch.set_num_threads(before)  # for the threads to come, see there

    def __call__(self, step: int) -> Batch:
        """Return batch number `step`, and begin with the one after it."""
        ready = self._next[1] if self._next is not None and self._next[0] == step else None
        batch = (ready or self._thread.submit(self._draw, step)).result()
        self._next = (step + 1, self._thread.submit(self._draw, step + 1)) if step + 1 < self._stop else None
        return batch

    def __enter__(self) -> Prefetch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)


def _keep_to_one_core() -> None:
    """Let torch use one core in this thread: with more, patches and network would wait for each other.

    Torch keeps the number for each thread, but also the last one that was set, for threads that have not asked yet.
    """
    torch.get_num_threads()  # asks: from here on this thread has its own number
    torch.set_num_threads(1)
