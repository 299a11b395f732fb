"""``python -m napari_drososeg._widgets.batch.child``: the process that does the work of the Batch widget. No Qt here.

In a thread, importing torch and the Python part of a run of many files would make napari's windows stutter, and what
kills a run, such as want of memory, would take napari with it. Lines of JSON go out: the events of the run, and besides
``plan``, ``ready``, ``notice``, ``error`` and ``end``. Lines come in: the job, ``go`` (after ``ready``), ``stop``
(blocks that are being made are finished first). When no more can come, since the widget or napari has gone, it stops
at once; nothing is half-written then either.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from typing import Any, TextIO

from napari_drososeg._widgets.batch.job import BatchJob
from napari_drososeg.errors import DrososegError

PATIENCE = 20.0
"""Seconds that it may take to stop at once, before the process is ended; the record survives that."""


class Conversation:
    """What goes out and comes in.

    Parameters
    ----------
    out, into : file
        Text streams.
    """

    def __init__(self, out: TextIO, into: TextIO) -> None:
        self._out, self._in = out, into
        self.go, self.stop = threading.Event(), threading.Event()
        self._notices: set[str] = set()

    def say(self, event: str, **more: Any) -> None:
        """Send a line."""
        self._out.write(json.dumps({"event": event, **more}) + "\n")
        self._out.flush()

    def notice(self, text: str) -> None:
        """Send what a user should know, once."""
        if text not in self._notices:
            self._notices.add(text)
            self.say("notice", text=text)

    def first_line(self) -> str:
        """Return the job."""
        return self._in.readline()

    def listen(self) -> None:
        """Take what comes in, until no more can come."""
        for line in self._in:
            if line.strip() == "go":
                self.go.set()
            elif line.strip() == "stop":
                self.stop.set()
        self.stop.set()
        timer = threading.Timer(PATIENCE, os._exit, (1,))
        timer.daemon = True
        timer.start()
        if hasattr(signal, "pthread_kill"):  # unlike raise_signal it wakes the main thread from waiting
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        else:
            signal.raise_signal(signal.SIGINT)

    def allowed(self) -> bool:
        """Wait until the run may start; False if it should not."""
        while not self.stop.is_set():
            if self.go.wait(0.1):
                return True
        return False


def work(job: BatchJob, talk: Conversation) -> None:
    """Do a job.

    Raises
    ------
    DrososegError
        If it cannot be done.
    """
    from napari_drososeg.batch import Batch
    from napari_drososeg.zoo import find_card

    plan, config = job.plan(), job.config()
    config.check(plan)
    talk.say("plan", items=[[str(item.source), str(item.target)] for item in plan.items])
    batch = Batch(plan, find_card(job.network), config, talk.notice)
    batch.prepare()
    talk.say("ready", preflight=batch.preflight().to_dict(), runs_on=batch.description)
    if talk.allowed():
        with contextlib.closing(batch.run(talk.stop.is_set)) as events:
            for event in events:
                line = event.to_dict()
                talk.say(line.pop("event"), **line)
    talk.say("end", runs_on=batch.description)


@contextlib.contextmanager
def own_channel() -> Iterator[TextIO]:
    """Give the standard output, and send what libraries print there to the standard error instead."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8", newline="\n") as channel:
        os.dup2(2, 1)
        yield channel


def main() -> int:
    """Do the job that comes in; returns the exit code."""
    if hasattr(os, "nice"):
        os.nice(5)  # the viewer goes first
    with own_channel() as out:
        talk = Conversation(out, sys.stdin)
        try:
            line = talk.first_line()
            threading.Thread(target=talk.listen, daemon=True).start()
            work(BatchJob.from_json(line), talk)
        except KeyboardInterrupt:
            return 130
        except Exception as error:
            known = isinstance(error, DrososegError | OSError)
            if not known:
                traceback.print_exc()
            text = str(error) if known else f"{type(error).__name__}: {error}"
            with contextlib.suppress(OSError):
                talk.say("error", text=text)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
