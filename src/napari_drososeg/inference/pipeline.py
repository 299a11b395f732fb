"""Reading ahead and writing behind: a thread on either side of the network, with bounded queues between them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

_POLL = 0.05
"""Seconds after which a waiting thread looks whether it is still wanted."""


@dataclass(frozen=True)
class _Item(Generic[T]):
    value: T


@dataclass(frozen=True)
class _End:
    error: BaseException | None


def read_ahead(source: Iterable[T], depth: int = 1) -> Iterator[T]:
    """Iterate over `source` in a thread of its own, at most `depth` items ahead of the consumer.

    Closing the returned generator, or an error in either thread, ends the other side; the thread is gone when the
    generator has ended.

    Parameters
    ----------
    source : iterable
        What takes time to produce. Its exceptions are raised in the consumer.
    depth : int
        Items that wait at most.

    Yields
    ------
    object
        The items in order.
    """
    items: queue.Queue[_Item[T] | _End] = queue.Queue(depth)
    stop = threading.Event()

    def put(item: _Item[T] | _End) -> None:
        while not stop.is_set():
            try:
                items.put(item, timeout=_POLL)
            except queue.Full:
                continue
            return

    def produce() -> None:
        error: BaseException | None = None
        try:
            for value in source:
                put(_Item(value))
                if stop.is_set():
                    break
        except BaseException as raised:  # whatever it is, it is raised again in the consumer
            error = raised
        put(_End(error))

    thread = threading.Thread(target=produce, name="drososeg-read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            item = items.get()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item.value
    finally:
        stop.set()
        thread.join()


def write_behind(results: Iterator[T], write: Callable[[T], None], depth: int = 4) -> Iterator[T]:
    """Hand `results` on and write them in a thread meanwhile, at most `depth` behind.

    All that was handed on is written before the generator ends, also when it is closed early.

    Parameters
    ----------
    results : iterator
        Such as ``Predictor.run(...)``; closed at the end, if it can be.
    write : callable
        Called with each result in order, always in the same thread. Its exception ends the iteration.
    depth : int
        Results that wait at most.

    Yields
    ------
    object
        The results, each once it is in the queue.
    """
    waiting: queue.Queue[_Item[T] | _End] = queue.Queue(depth)
    failure: list[BaseException] = []

    def consume() -> None:
        while True:
            item = waiting.get()
            if isinstance(item, _End):
                return
            if failure:  # keep emptying the queue, so that the other side never waits
                continue
            try:
                write(item.value)
            except BaseException as error:
                failure.append(error)

    thread = threading.Thread(target=consume, name="drososeg-write-behind", daemon=True)
    thread.start()
    try:
        for result in results:
            waiting.put(_Item(result))
            if failure:
                break
            yield result
    finally:
        close = getattr(results, "close", None)
        if close is not None:
            close()
        waiting.put(_End(None))
        thread.join()
    if failure:
        raise failure[0]
