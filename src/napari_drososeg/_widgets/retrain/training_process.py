"""The process that trains: started, listened to and stopped without ever waiting for it. No Qt here.

It is ``drososeg fine-tune --workspace DIR --json``. A thread of the viewer would slow down both; a process also keeps
its memory, and whatever might crash, to itself. It writes to files instead of pipes, so that it can bring a round to
its end after napari has been closed.
"""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from subprocess import PIPE
from typing import Any

import psutil

from napari_drososeg.errors import DrososegError
from napari_drososeg.inference.child import start_python

START = "from napari_drososeg.cli import app; app()"


class TrainingProcess:
    """A running ``drososeg``.

    Parameters
    ----------
    arguments : sequence of str
        Command and options.

    Raises
    ------
    DrososegError
        If it cannot be started.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="drososeg-", ignore_cleanup_errors=True)
        out, err = (Path(self._folder.name) / name for name in ("events.jsonl", "errors.txt"))
        try:
            with out.open("wb") as said, err.open("wb") as complained:
                command = ["-u", "-c", START, *arguments]  # unbuffered, so that events come as they happen
                self._process = start_python(command, stdin=PIPE, stdout=said, stderr=complained)
        except DrososegError:
            self._folder.cleanup()
            raise
        self._out, self._err = out.open("rb"), err
        self._rest = b""
        with suppress(psutil.Error, OSError):  # the viewer goes first
            psutil.Process(self._process.pid).nice(getattr(psutil, "BELOW_NORMAL_PRIORITY_CLASS", 5))

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    def events(self) -> list[dict[str, Any]]:
        """Return what it has said since the last call."""
        *lines, self._rest = (self._rest + self._out.read()).split(b"\n")
        found = []
        for line in lines:
            with suppress(ValueError):  # something that a library printed
                event = json.loads(line)
                if isinstance(event, dict):
                    found.append(event)
        return found

    def stop(self) -> None:
        """Let it end its training, and keep the best so far."""
        assert self._process.stdin is not None
        with suppress(OSError, ValueError):  # it has gone by itself
            self._process.stdin.write(b"stop\n")
            self._process.stdin.flush()

    def kill(self) -> None:
        """End it at once; nothing of this round is kept, and nothing is half-written."""
        self._process.kill()

    def close(self) -> str | None:
        """Let go of it; if it is still at work it ends by itself. Returns what went wrong, None for nothing."""
        error = None
        if self.over and self._process.returncode:
            lines = self._err.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            killed = "The training process was killed, perhaps because memory ran out."
            error = lines[-1].removeprefix("drososeg: ") if lines and self._process.returncode > 0 else killed
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        if not self.over:  # somebody has to take its exit code
            threading.Thread(target=self._process.wait, name="drososeg-training", daemon=True).start()
        self._out.close()
        self._folder.cleanup()
        return error
