"""Tasks done elsewhere: by local processes and by a dask.distributed cluster, some of which are killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from napari_drososeg.batch import BatchConfig, Event, Manifest
from napari_drososeg.batch.executors import LocalWorkers, ThisProcess, _Worker
from napari_drososeg.batch.inspection import series_of
from napari_drososeg.batch.survey import plan_survey, surveyed
from napari_drososeg.data.normalisation import Normalisation
from napari_drososeg.errors import DrososegError
from napari_drososeg.inference import PredictConfig

CONFIG = BatchConfig(
    predict=PredictConfig(engine="torch", precision="f32", pixel_size=4.6, threads=1), block=(1, 128, 128)
)
Read = Callable[[Path], Any]


@pytest.fixture
def expected(done: Any, volume: Path, tmp_path: Path, content: Read) -> dict[str, bytes]:
    """What one process makes."""
    done(volume, tmp_path / "undisturbed" / "out.zarr", CONFIG)
    return content(tmp_path / "undisturbed" / "out.zarr")


def faults(batch: Any) -> list[str]:
    """Return the faults that a manifest names."""
    import json

    lines = [json.loads(line) for line in batch.manifest.path.read_text().splitlines()]
    return [line["error"] for line in lines if line["what"] == "fault"]


@pytest.mark.skipif(os.name == "nt", reason="signals are sent differently there")
def test_a_killed_worker_is_replaced_and_its_block_made_again(
    make: Any, volume: Path, tmp_path: Path, content: Read, expected: dict[str, bytes]
) -> None:
    batch = make(volume, tmp_path / "out.zarr", CONFIG, workers=2)
    killed = 0
    told = []
    for event in batch.run():
        if event.kind == "progress" and event.text == "block" and event.done >= 4 and not killed:
            killed = next(p.pid for p in multiprocessing.active_children() if p.name == "drososeg-worker")
            os.kill(killed, signal.SIGKILL)
        told += [event.text] if event.kind == "fault" else []
    assert batch.outcomes[tmp_path / "out.zarr"].state == "done"
    assert content(tmp_path / "out.zarr") == expected
    assert faults(batch) == ["a worker was killed by SIGKILL"]
    assert len(told) == 1
    made_by = {b["where"].split(":")[1] for b in Manifest(batch.manifest.path).blocks["out.zarr"].values()}
    assert len(made_by) >= 2
    assert str(os.getpid()) not in made_by
    assert not multiprocessing.active_children()


class Deadly:
    """A task whose worker ends when it receives it."""

    title = "deadly"

    def __reduce__(self) -> Any:
        return os._exit, (3,)

    def steps(self) -> Iterator[Any]:
        raise AssertionError("its worker ends before it gets here")


def test_a_task_that_kills_every_worker_is_given_up() -> None:
    with LocalWorkers(1) as workers:
        updates = list(workers.run([Deadly(), Deadly()]))
    assert [u.fault for u in updates if u.fault] == ["a worker ended with code 3"] * 4
    assert [u.error for u in updates if u.error] == ["a worker ended with code 3, after 3 attempts: out of memory?"] * 2


def test_a_worker_is_heard_whatever_its_pipe_is_called() -> None:
    """On Windows pipes are of a class of their own."""
    here, there = multiprocessing.Pipe()

    class Pipe:
        def fileno(self) -> int:
            return here.fileno()

    worker, silent = _Worker(None, Pipe()), _Worker(None, multiprocessing.Pipe()[0])  # type: ignore[arg-type]
    there.send("done")
    assert LocalWorkers(2)._ready([worker]) == [worker]
    assert LocalWorkers(2)._ready([worker, silent])[0] is worker


def test_an_error_costs_one_task_only() -> None:
    class Task:
        title = "x"

        def __init__(self, error: Exception | None) -> None:
            self.error = error

        def steps(self) -> Iterator[Any]:
            if self.error is not None:
                raise self.error
            yield "progress"

    errors = [ZeroDivisionError("division\nby zero"), None, DrososegError("bad file")]
    with closing(ThisProcess().run([Task(e) for e in errors])) as updates:
        said = [u.error for u in updates if u.error]
    assert said == ["ZeroDivisionError: division by zero", "bad file"]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Path]:
    """A scheduler and two workers, started as documented; gives the scheduler file."""
    pytest.importorskip("distributed")
    file = tmp_path / "scheduler.json"
    dask = str(Path(sys.executable).with_name("dask"))
    scheduler = [dask, "scheduler", "--no-dashboard", "--port", "0"]
    worker = [dask, "worker", "--nthreads", "1", "--nworkers", "1", "--no-dashboard", "--death-timeout", "600"]
    processes = []
    try:
        for command in (scheduler, worker, worker):
            arguments = [*command, "--scheduler-file", str(file)]
            processes.append(subprocess.Popen(arguments, stderr=subprocess.DEVNULL, cwd=tmp_path))
        deadline = time.monotonic() + 60
        while not file.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        yield file
    finally:
        for process in reversed(processes):  # workers first: without a scheduler they would wait for it
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.mark.skipif(os.name == "nt", reason="signals are sent differently there")
def test_a_cluster_gives_the_same_bytes_even_when_it_loses_a_worker(
    make: Any, volume: Path, tmp_path: Path, content: Read, expected: dict[str, bytes], cluster: Path
) -> None:
    batch = make(volume, tmp_path / "out.zarr", CONFIG, scheduler=str(cluster))
    killed = 0
    for event in batch.run():
        if event.kind == "progress" and event.text == "block" and event.done >= 2 and not killed:
            blocks = Manifest(batch.manifest.path).blocks["out.zarr"].values()
            killed = int(next(iter(blocks))["where"].split(":")[1])
            os.kill(killed, signal.SIGKILL)
    assert batch.outcomes[tmp_path / "out.zarr"].state == "done"
    assert content(tmp_path / "out.zarr") == expected
    made_by = {b["where"] for b in Manifest(batch.manifest.path).blocks["out.zarr"].values()}
    assert len(made_by) >= 2
    assert all("left the cluster" in fault for fault in faults(batch))


def test_a_scheduler_that_is_none_is_named(make: Any, volume: Path, tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    with pytest.raises(DrososegError, match="neither a file nor an address"):
        next(make(volume, tmp_path / "out.zarr", CONFIG, scheduler="nothing.json").run())


def test_threads_are_shared_out() -> None:
    assert LocalWorkers(1000).threads == 1
    assert ThisProcess().threads is None
    assert replace(CONFIG, workers=2).executor().n_workers == 2


def test_stopping_keeps_no_process(make: Any, volume: Path, tmp_path: Path) -> None:
    """Closing a run, as Ctrl+C does, ends its workers; what they had finished is kept."""
    batch = make(volume, tmp_path / "out.zarr", CONFIG, workers=1)
    events: Iterator[Event] = batch.run()
    for event in events:
        if event.kind == "progress" and event.done == 2:
            break
    events.close()
    assert not multiprocessing.active_children()
    assert len(Manifest(batch.manifest.path).blocks["out.zarr"]) == 2


def test_a_survey_finds_relative_inputs_from_anywhere(
    make: Any, volume: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers of a cluster have working folders of their own."""
    monkeypatch.chdir(volume.parent)
    batch = make(Path(volume.name), tmp_path / "out.zarr", CONFIG)
    (opened,) = batch.opened(batch.waiting)
    (series,) = series_of([opened])
    (task,) = plan_survey([[place for _, place in series]], Normalisation(), CONFIG.predict)
    monkeypatch.chdir(tmp_path.parent)
    update = list(ThisProcess().run([task]))[-1]
    assert update.receipt is not None
    assert [found.error for found in surveyed(task, update.receipt).values()] == [None] * 5
