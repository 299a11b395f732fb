"""Whether a file or folder is the one that was seen before, without reading it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from napari_drososeg.io.folder import is_clutter


def fingerprint(path: Path) -> str:
    """Describe a file or folder so that a change shows, without reading it.

    Parameters
    ----------
    path : Path
        A file, or a folder (all files below it count, save what a system adds by itself).

    Returns
    -------
    str
        Sizes and modification times for a file; their digest for a folder; "missing" for nothing.
    """
    if path.is_file():
        stat = path.stat()
        return f"{stat.st_size}-{stat.st_mtime_ns}"
    if not path.is_dir():
        return "missing"
    digest = hashlib.sha256()
    for folder, folders, files in os.walk(path):
        folders.sort()
        for name in sorted(files):
            file = Path(folder) / name
            if is_clutter(file):
                continue
            stat = file.stat() if file.exists() else file.lstat()  # a link that leads nowhere
            relative = os.path.relpath(file, path)
            digest.update(f"{relative}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:32]
