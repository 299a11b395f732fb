from __future__ import annotations

import threading
import time

import pytest

from napari_drososeg.inference.pipeline import read_ahead, write_behind


def threads():
    return [t for t in threading.enumerate() if t.name.startswith("drososeg-")]


def test_read_ahead_keeps_order_and_is_bounded():
    made = []

    def source():
        for k in range(20):
            made.append(k)
            yield k

    items = read_ahead(source(), depth=2)
    assert next(items) == 0
    time.sleep(0.3)
    assert len(made) <= 4  # one given out, two waiting, one in hand
    assert list(items) == list(range(1, 20))
    assert not threads()


def test_read_ahead_overlaps_with_its_consumer():
    made = [threading.Event() for _ in range(5)]

    def source():
        for k, event in enumerate(made):
            event.set()
            yield k

    for k in read_ahead(source()):
        assert all(event.wait(20) for event in made[k + 1 : k + 2])  # made while this one is still in hand


def test_read_ahead_raises_what_its_source_raises_after_the_items_before():
    def source():
        yield 1
        raise OSError("disk")

    items = read_ahead(source())
    assert next(items) == 1
    with pytest.raises(OSError, match="disk"):
        next(items)
    assert not threads()


def test_closing_read_ahead_closes_the_thread():
    items = read_ahead(iter(range(1000)))
    next(items)
    items.close()
    assert not threads()


def test_write_behind_writes_everything_in_order_in_one_thread():
    written, where = [], set()

    def write(k):
        time.sleep(0.005)
        written.append(k)
        where.add(threading.get_ident())

    assert list(write_behind(iter(range(30)), write, depth=2)) == list(range(30))
    assert written == list(range(30))
    assert len(where) == 1
    assert threading.get_ident() not in where
    assert not threads()


def test_write_behind_raises_what_the_writer_raises_and_closes_the_source():
    closed = []

    def source():
        try:
            yield from range(1000)
        finally:
            closed.append(True)

    def write(k):
        if k == 3:
            raise OSError("disk full")

    seen = []
    results = write_behind(source(), write, depth=2)
    with pytest.raises(OSError, match="disk full"):
        seen.extend(results)
    assert len(seen) < 1000
    assert closed
    assert not threads()


def test_write_behind_closed_early_has_written_what_it_handed_on():
    written = []
    results = write_behind(iter(range(100)), written.append)
    handed = [next(results) for _ in range(10)]
    results.close()
    assert written == handed
    assert not threads()


def test_write_behind_passes_on_errors_of_the_source():
    def source():
        yield 1
        raise ValueError("NaN")

    written = []
    with pytest.raises(ValueError, match="NaN"):
        list(write_behind(source(), written.append))
    assert written == [1]
    assert not threads()
