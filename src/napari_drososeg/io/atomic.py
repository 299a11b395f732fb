"""Files and folders that appear under their name only when they are complete."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from napari_drososeg.errors import DrososegError


def temporary_sibling(path: Path) -> Path:
    """Return an unused hidden name beside `path`, on the same file system; it ends in ``.part``.

    Raises
    ------
    DrososegError
        If the folder cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DrososegError(f"The folder {path.parent} cannot be made: {error.strerror}.") from error
    return path.parent / f".{path.name}.{secrets.token_hex(4)}.part"


def sync(path: Path) -> None:
    """Wait until a file, or a folder with all it holds, is on the disk."""
    if path.is_dir():
        for inner in path.iterdir():
            sync(inner)
        if os.name == "nt":  # folders cannot be opened there
            return
    handle = os.open(path, os.O_RDONLY if path.is_dir() or os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def put_in_place(temporary: Path, path: Path) -> None:
    """Sync `temporary` and give it its name, replacing what has that name; a link is replaced, not what it leads to.

    A folder is moved aside first and brought back if the new one cannot be renamed.

    Raises
    ------
    OSError
        If it cannot be renamed, or a file would replace a folder.
    """
    sync(temporary)
    if path.is_dir():
        if not (temporary.is_dir() or path.is_symlink()):
            raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
        aside = temporary_sibling(path)
        path.rename(aside)
        try:
            temporary.rename(path)
        except OSError:
            aside.rename(path)
            raise
        remove(aside)
    else:
        temporary.replace(path)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make names that were given in a folder last through a power cut."""
    if os.name == "nt":  # folders cannot be opened there
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """Delete a file, a folder or a link if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def remove_leftovers(path: Path) -> None:
    """Delete what is named as by `temporary_sibling`: left by programs that were killed. None may be writing `path`."""
    if path.parent.is_dir():
        for sibling in path.parent.iterdir():
            left = sibling.name.removeprefix(f".{path.name}.").removesuffix(".part")
            if sibling.name == f".{path.name}.{left}.part" and len(left) == 8 and set(left) <= set("0123456789abcdef"):
                remove(sibling)


def existing(folder: Path) -> Path:
    """Return a folder, or the nearest one above it that is there."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def unwritable(folder: Path) -> str | None:
    """Say why nothing can be written to a folder that need not exist yet; None if something can."""
    there = folder
    try:
        there = existing(folder)
        if not there.is_dir():
            return f"'{there}' is a file and cannot contain a folder"
        # Permissions do not tell all: of /proc, or of shares whose server knows better.
        with tempfile.TemporaryFile(dir=there):
            return None
    except OSError:
        return f"Cannot write to '{there}'"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name to write a file or folder to, and then its own name to what was written.

    Raises
    ------
    DrososegError
        If the disk is full or the folder cannot be written to. Then, as after any error, what had the name before is
        still there, and nothing else is left behind.
    """
    temporary = temporary_sibling(path)
    try:
        yield temporary
        put_in_place(temporary, path)
    except OSError as error:
        raise DrososegError(f"Cannot write '{path}': {error.strerror or error}.") from error
    finally:
        remove(temporary)


def write_bytes(path: Path, content: bytes) -> Path:
    """Write a whole file, or leave what was there.

    Raises
    ------
    DrososegError
        If the disk is full or the folder cannot be written to; nothing is left behind.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return path
