"""The other end of `child`: starts it, talks to it, and never waits for it. No Qt here."""

from __future__ import annotations

import json
import tempfile
import threading
from collections import deque
from contextlib import suppress
from subprocess import PIPE
from typing import Any

from napari_drososeg._widgets.batch.job import BatchJob
from napari_drososeg.errors import DrososegError
from napari_drososeg.inference.child import start_python


class BatchProcess:
    """A process that does a job.

    Parameters
    ----------
    job : BatchJob
        The job.

    Attributes
    ----------
    said : deque of dict
        Lines of the process that nobody has taken yet. The last one has ``"event": "over"`` and ``code``.

    Raises
    ------
    DrososegError
        If it cannot be started.
    """

    def __init__(self, job: BatchJob) -> None:
        self.said: deque[dict[str, Any]] = deque()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 -- closed by the reading thread
        try:
            self._process = start_python(
                ["-m", "napari_drososeg._widgets.batch.child"], stdin=PIPE, stdout=PIPE, stderr=self._errors
            )
        except DrososegError:
            self._errors.close()
            raise
        self._tell(job.to_json())
        threading.Thread(target=self._read, name="drososeg-batch", daemon=True).start()

    def go(self) -> None:
        """Let the run start."""
        self._tell("go")

    def stop(self) -> None:
        """Let it finish the blocks that are being made, and no more."""
        self._tell("stop")

    def leave(self) -> None:
        """Let it stop at once and go away by itself; what is done stays done."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        with suppress(OSError, ValueError):  # it has gone: the reading thread says so
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                with suppress(ValueError):  # half a line of a process that was killed
                    self.said.append(json.loads(line))
        code = self._process.wait()
        self.leave()
        with self._errors as errors:
            errors.seek(0)
            last = errors.read().decode(errors="replace").strip().splitlines()[-1:]
        self.said.append({"event": "over", "code": code, "text": "".join(last)})
