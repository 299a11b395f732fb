"""Work that needs torch or the quantiser, done in a process of its own.

Importing them holds Python's lock for seconds: in a thread of a program with windows these would stand still. What
goes in and what comes out lies in a folder. The other side is `napari_drososeg.inference.__main__`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from napari_drososeg.errors import DrososegError

POLL_SECONDS = 0.1


class Interrupted(Exception):
    """The work was given up because the caller wanted so."""


def run_child(
    task: Literal["convert", "quantise"], checkpoint: Path, folder: Path, cancelled: Callable[[], bool] | None = None
) -> None:
    """Do a task in another process and wait for it.

    Parameters
    ----------
    task : {"convert", "quantise"}
        What to do.
    checkpoint : Path
        The network.
    folder : Path
        Where further input lies and the result is put.
    cancelled : callable, optional
        Asked several times a second; the process is killed when it says yes.

    Raises
    ------
    Interrupted
        If it was killed.
    DrososegError
        If it failed: with the last line that it said.
    """
    command = [sys.executable or "python", "-P", "-m", "napari_drososeg.inference", task, str(checkpoint), str(folder)]
    path = os.pathsep.join(p for p in sys.path if p)  # so that it finds the packages that are found here
    with tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env={**os.environ, "PYTHONPATH": path},
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
        except OSError as error:
            raise DrososegError(f"Python cannot be started ({error.strerror or error}).") from error
        try:
            while process.poll() is None:
                if cancelled is not None and cancelled():
                    raise Interrupted
                try:
                    process.wait(POLL_SECONDS)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        if process.returncode:
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines()
            killed = "the process was ended from outside, perhaps for want of memory"
            raise DrososegError(lines[-1] if lines and process.returncode > 0 else killed)
