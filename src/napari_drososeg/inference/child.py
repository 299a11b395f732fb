"""Work that needs torch or the quantiser, done in a process of its own.

Importing them holds Python's lock for seconds: in a thread of a program with windows these would stand still. What
goes in and what comes out lies in a folder. The other side is `napari_drososeg.inference.__main__`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from subprocess import Popen
from typing import IO, Literal

from napari_drososeg.errors import DrososegError

POLL_SECONDS = 0.1


class Interrupted(Exception):
    """The work was given up because the caller wanted so."""


def start_python(arguments: Sequence[str], *, stdin: int, stdout: int | IO[bytes], stderr: IO[bytes]) -> Popen[bytes]:
    """Start this Python in another process, where it finds the packages that are found here.

    Parameters
    ----------
    arguments : sequence of str
        Such as ``-m`` and the name of a module.
    stdin, stdout, stderr : int or file
        As `subprocess.Popen` takes them. Text that goes through them is UTF-8.

    Raises
    ------
    DrososegError
        If it cannot be started.
    """
    path = os.pathsep.join(p for p in sys.path if p)
    try:
        return Popen(
            [sys.executable or "python", "-P", *arguments],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env={**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"},
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
    except OSError as error:
        raise DrososegError(f"Python cannot be started ({error.strerror or error}).") from error


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
    command = ["-m", "napari_drososeg.inference", task, str(checkpoint), str(folder)]
    with tempfile.TemporaryFile() as said:
        process = start_python(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
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
            killed = "the process was killed, perhaps because memory ran out"
            raise DrososegError(lines[-1] if lines and process.returncode > 0 else killed)
