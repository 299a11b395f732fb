"""One process at a time in a folder.

The lock is the operating system's own on an open file, so it ends with the process however that ends, and nothing
stale is left on this machine. On shared disks such locks may not reach other machines; there the text in the file
(host, process, time) decides, and it is emptied when the lock is given back.
"""

from __future__ import annotations

import json
import os
import platform
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from napari_drososeg.errors import DrososegError


class FolderLock:
    """A lock file, held from creation to `release`.

    Parameters
    ----------
    path : Path
        The file; its folder must exist.
    what : str
        What is locked, for the message: ``"The workspace 'x'"``.

    Raises
    ------
    DrososegError
        If another process holds it, or this one does already; says which, and the way out.
    """

    def __init__(self, path: Path, what: str) -> None:
        self.path = path
        try:
            self._file: IO[str] | None = path.open("a+", encoding="utf-8")
        except OSError as error:
            raise DrososegError(f"Cannot write '{path}': {error.strerror}.") from error
        holder = _read(path)
        here = platform.node()
        if not _lock(self._file):
            self._file.close()
            if holder.get("process") == os.getpid() and holder.get("host") == here:
                raise DrososegError(
                    f"{what} is already open in this program, for example because an image is open twice: continue "
                    "where it was opened first."
                )
            raise DrososegError(
                f"{what} is open in another process ({holder.get('process', 'unknown')}) since "
                f"{holder.get('since', 'a moment ago')}: close it there first."
            )
        if holder and holder.get("host") != here:
            self._file.close()
            raise DrososegError(
                f"{what} is open on the machine {holder.get('host')} since {holder.get('since')}: close it there, or "
                f"delete '{path}' if nobody works there any longer."
            )
        self._file.truncate(0)
        since = datetime.now().astimezone().isoformat(timespec="seconds")
        self._file.write(json.dumps({"host": here, "process": os.getpid(), "since": since}))
        self._file.flush()

    def release(self) -> None:
        """Give the lock back; may be called twice."""
        if self._file is not None:
            self._file.truncate(0)
            self._file.close()  # which unlocks it
            self._file = None


def _read(path: Path) -> dict[str, Any]:
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return plain if isinstance(plain, dict) else {}


def _lock(file: IO[str]) -> bool:
    """Take the operating system's lock; False if another process has it."""
    try:
        if os.name == "nt":
            import msvcrt

            file.seek(1 << 30)  # a byte far behind the text, which others must be able to read
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # the latter on Windows
        return False
    except OSError:  # a file system without locks: the text in the file decides
        return True
    return True
