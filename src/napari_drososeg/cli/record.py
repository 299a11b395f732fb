"""The record of a prediction: which items are done, with which network and settings.

A file being there says nothing about whether it is complete, or of this network. So every run appends JSON lines to
a record beside its output, each synced before going on: one line for the run, one when an item is started, one when
it is done or has failed. ``--resume`` believes only this record.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from napari_drososeg import __version__
from napari_drososeg.cli.items import Item
from napari_drososeg.errors import DrososegError

CLUTTER = {".ds_store", "thumbs.db", "desktop.ini", "icon\r"}
"""Files, in lower case, that systems put into folders that are only looked at."""


def record_path(target: Path, folder: Path | None) -> Path:
    """Say where the record of an output lies: in a folder of items, or beside a single file or zarr.

    It is a hidden file, so that a folder of labels can still be opened as a stack.
    """
    if folder is not None:
        return folder / ".drososeg.jsonl"
    return target.with_name(f".{target.name}.drososeg.jsonl")


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
    import hashlib

    digest = hashlib.sha256()
    for folder, folders, files in os.walk(path):
        folders.sort()
        for name in sorted(files):
            if name.lower() in CLUTTER or name.startswith("._"):
                continue
            stat = (Path(folder) / name).stat()
            relative = os.path.relpath(Path(folder) / name, path)
            digest.update(f"{relative}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:32]


class Record:
    """Appends to and reads the record of one output.

    Parameters
    ----------
    path : Path
        The file, as `record_path` gives it; need not exist.

    Attributes
    ----------
    items : dict
        The last line of each item, by the name of its output.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._run: dict[str, Any] | None = None
        self.items: dict[str, dict[str, Any]] = {}
        if path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                self._take(line)

    def _take(self, line: str) -> None:
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            return  # the last line of a run that was killed while writing it
        if not isinstance(entry, dict):
            return
        if entry.get("what") == "run":
            self._run = entry
        elif entry.get("what") == "item":
            self.items[str(entry.get("output"))] = entry

    def check(self, settings: Mapping[str, Any]) -> None:
        """Refuse to go on with other settings than those of the recorded run.

        Raises
        ------
        DrososegError
            Naming each setting that differs, with both values.
        """
        if self._run is None:
            return
        before = self._run.get("settings", {})
        changed = [
            f"{name} was {_shown(before.get(name))}, now {_shown(settings.get(name))}"
            for name in [*settings, *(n for n in before if n not in settings)]
            if before.get(name) != settings.get(name)
        ]
        if changed:
            raise DrososegError(
                f"--resume would mix two kinds of results: {'; '.join(changed)}. Use the earlier ones, another "
                "output, or --overwrite to start again."
            )

    def is_done(self, item: Item, probabilities: Path | None = None) -> bool:
        """Whether the record says that all outputs were completely made from the input, as they are now.

        Parameters
        ----------
        item : Item
            What is to be made.
        probabilities : Path, optional
            Zarr that is to be made with it.

        Raises
        ------
        DrososegError
            If an output exists and this program did not write it, or it was changed since: it may be someone's
            work. That counts as well where the item failed or was only started.
        """
        entry = self.items.get(item.target.name)
        complete = entry is not None and entry.get("state") == "done"
        for key, path in _outputs(item, probabilities).items():
            now = fingerprint(path)
            if now == "missing":
                complete = False
                continue
            before = "missing" if entry is None else entry.get(key, "missing")
            if before == "missing":
                raise DrososegError(
                    f"'{path}' exists and is not in the record of this output; move it away or use --overwrite."
                )
            if before != now:
                raise DrososegError(
                    f"'{path}' was changed since it was written; move it away to keep it, or use --overwrite."
                )
        return complete and entry is not None and entry.get("input_fingerprint") == fingerprint(item.source)

    def begin(self, settings: Mapping[str, Any], *, afresh: bool) -> None:
        """Write the line of this run; `afresh` forgets what was recorded before."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if afresh:
            self.items.clear()
            self.path.unlink(missing_ok=True)
        self._run = {
            "what": "run",
            "drososeg": __version__,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "settings": dict(settings),
        }
        self._append(self._run)

    def note(self, item: Item, state: str, probabilities: Path | None = None, **more: Any) -> None:
        """Write that an item is ``started``, ``done`` or ``failed``.

        The outputs are noted as they are when it is started, for that is what it may replace, and when it is done.
        """
        entry: dict[str, Any] = {
            "what": "item",
            "output": item.target.name,
            "input": str(item.source),
            "state": state,
        }
        before = self.items.get(item.target.name, {})
        # The input as it was when it was begun: what changed meanwhile has to be done again.
        entry["input_fingerprint"] = fingerprint(item.source) if state == "started" else before.get("input_fingerprint")
        for key, path in _outputs(item, probabilities).items():
            # Labels found after a failure are not ours; probabilities may be, complete before the labels failed.
            ours = state != "failed" or key == "probabilities_fingerprint"
            entry[key] = fingerprint(path) if ours else before.get(key, "missing")
        entry.update(more)
        self.items[item.target.name] = entry
        self._append(entry)

    def _append(self, entry: Mapping[str, Any]) -> None:
        with self.path.open("ab+") as file:
            # A run killed while writing leaves a line without an end; the next one must not be glued to it.
            if file.tell() > 0:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")
            file.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


def _outputs(item: Item, probabilities: Path | None) -> dict[str, Path]:
    """Return the outputs of an item by the names of their fingerprints in the record."""
    found = {"output_fingerprint": item.written}
    return found if probabilities is None else {**found, "probabilities_fingerprint": probabilities}


def _shown(value: object) -> str:
    return "not set" if value is None else str(value)
