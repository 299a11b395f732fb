"""The manifest of a run: what is done, with which network and settings, from which input.

A file being there says nothing about whether it is complete, or of this network. So a run appends JSON lines to a file
beside its output, each only after what it says is safely on the disk, and each synced before going on: one for the run,
one when an item is started, written, done or has failed, one for each block of a volume, one for each fault. Resuming
believes nothing else. Only one program writes it: the one that hands out the work, never a worker.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from napari_drososeg.batch.fingerprints import fingerprint
from napari_drososeg.batch.plan import Item
from napari_drososeg.errors import DrososegError


def manifest_path(target: Path, folder: Path | None) -> Path:
    """Say where the manifest of an output lies: in a folder of items, or beside a single file or zarr.

    It is a hidden file, so that a folder of labels can still be opened as a stack.
    """
    if folder is not None:
        return folder / ".drososeg.jsonl"
    return target.with_name(f".{target.name}.drososeg.jsonl")


class Manifest:
    """Appends to and reads the manifest of one output.

    Parameters
    ----------
    path : Path
        The file, as `manifest_path` gives it; need not exist.

    Attributes
    ----------
    run : dict
        The line of the latest run; empty if there was none.
    ended : bool
        Whether that run came to its end, as it does unless it is killed or stopped at once.
    items : dict
        The last line of each item, by the name of its output relative to the manifest's folder.
    volumes : dict
        The line that fixes how a volume is made, by the same name.
    blocks : dict
        By the same name: the line of each block by its level and index.
    overlays : dict
        The last line about the overlays of each item, by the same name.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run: dict[str, Any] = {}
        self.ended = True
        self.items: dict[str, dict[str, Any]] = {}
        self.volumes: dict[str, dict[str, Any]] = {}
        self.blocks: dict[str, dict[tuple[int, ...], dict[str, Any]]] = {}
        self.overlays: dict[str, dict[str, Any]] = {}
        if path.is_file():
            with path.open(encoding="utf-8", errors="surrogateescape") as file:
                for line in file:
                    self._take(line)

    def _take(self, line: str) -> None:
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            return  # the last line of a run that was killed while writing it
        if not isinstance(entry, dict):
            return
        what, name = entry.get("what"), str(entry.get("output"))
        if what == "run":
            self.run, self.ended = entry, False
        elif what == "end":
            self.ended = True
        elif what == "item":
            self.items[name] = entry
        elif what == "volume":
            self.volumes[name] = entry
            self.blocks[name] = {}
        elif what == "block":
            self.blocks.setdefault(name, {})[(entry["level"], *entry["index"])] = entry
        elif what == "overlays":
            self.overlays[name] = entry

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the manifest, so that no second run writes to the same output.

        Raises
        ------
        DrososegError
            If another run holds it.
        """
        if os.name == "nt":  # files cannot be locked there without hindering their readers
            yield
            return
        import fcntl

        self.path.parent.mkdir(parents=True, exist_ok=True)
        there = self.path.exists()
        with self.path.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DrososegError(
                    f"Another run is writing to the output of '{self.path}'; wait for it, or stop it."
                ) from None
            except OSError:
                pass  # a file system without locks
            try:
                yield
            finally:
                if not there and self.path.stat().st_size == 0:  # nothing was begun
                    self.path.unlink()

    def name(self, item: Item) -> str:
        """Return what an item is called in the manifest."""
        return Path(os.path.relpath(item.target, self.path.parent)).as_posix()

    def check(self, settings: Mapping[str, Any]) -> None:
        """Refuse to go on with other settings than those of the recorded run.

        Raises
        ------
        DrososegError
            Naming each setting that differs, with both values.
        """
        if not self.run:
            return
        changed = [
            f"{name} was {_shown(before)}, now {_shown(now)}"
            for name, before, now in differences(self.run.get("settings", {}), settings)
        ]
        if changed:
            raise DrososegError(
                f"--resume would mix two kinds of results: {'; '.join(changed)}. Use the earlier ones, another "
                "output, or --overwrite to start again."
            )

    def is_done(self, item: Item, probabilities: Path | None = None) -> bool:
        """Whether the manifest says that all outputs were completely made from the input, as they are now.

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
        entry = self.items.get(self.name(item), {})
        complete = entry.get("state") in ("done", "written")
        for key, path in _outputs(item, probabilities).items():
            now = fingerprint(path)
            if now == "missing":
                complete = False
                continue
            # Killed between the renaming and the line that says so: then it is what was written.
            if entry.get(f"written_{key}") == now:
                continue
            before = entry.get(key, "missing")
            if before == "missing":
                raise DrososegError(
                    f"'{path}' exists and is not in the record of this output; move it away or use --overwrite."
                )
            if before != now:
                raise DrososegError(
                    f"'{path}' was changed since it was written; move it away to keep it, or use --overwrite."
                )
            complete = complete and entry.get("state") != "written"
        return complete and entry.get("input_fingerprint") == fingerprint(item.source)

    def are_drawn(self, item: Item, place: Path) -> bool:
        """Whether overlays are there that were drawn from the labels as they are now.

        Parameters
        ----------
        item : Item
            Whose labels they show.
        place : Path
            Folder or picture.

        Raises
        ------
        DrososegError
            If something is there that this program did not write, or that was changed since.
        """
        now, entry = fingerprint(place), self.overlays.get(self.name(item))
        if now == "missing":
            return False
        if entry is None:
            raise DrososegError(
                f"'{place}' exists and is not in the record of this output; move it away or use --overwrite."
            )
        if now == entry["overlays_fingerprint"]:
            return bool(entry["labels_fingerprint"] == fingerprint(item.written))
        if now == entry["replaced_fingerprint"]:  # killed before the new ones got their name
            return False
        raise DrososegError(f"'{place}' was changed since it was drawn; move it away to keep it, or use --overwrite.")

    def note_overlays(self, item: Item, place: Path, temporary: Path | None = None) -> None:
        """Write that overlays are complete under a temporary name, or, without one, that those there may be replaced.

        What is noted stays true when they get their name, so that no moment is bad to be killed.
        """
        entry = {
            "what": "overlays",
            "output": self.name(item),
            "path": str(place),
            "labels_fingerprint": fingerprint(item.written),
            "overlays_fingerprint": None if temporary is None else fingerprint(temporary),
            "replaced_fingerprint": fingerprint(place),
        }
        self.overlays[self.name(item)] = entry
        self._append({**entry, "time": _now()})

    def begin(self, facts: Mapping[str, Any], *, afresh: bool) -> None:
        """Write the line of this run.

        Parameters
        ----------
        facts : mapping
            JSON-ready: ``settings`` as `check` compares them, and what else is to be known.
        afresh : bool
            Whether to forget what was recorded before.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if afresh:
            self.items.clear()
            self.volumes.clear()
            self.blocks.clear()
            self.overlays.clear()
            if self.path.exists():
                os.truncate(self.path, 0)  # not unlinked: it may be locked
        self.run = {"what": "run", "time": _now(), **facts}
        self._append(self.run)
        if not (afresh or self.ended):
            self.note_event("fault", error="the previous run did not finish")
        self.ended = False

    def note_replaceable(self, item: Item, probabilities: Path | None, overlays: Path | None) -> None:
        """Write that the outputs of an item, where there are any, may be replaced: also when this run is resumed."""
        if item.written.exists() or (probabilities is not None and probabilities.exists()):
            self.note(item, "waiting", probabilities)
        if overlays is not None and overlays.exists():
            self.note_overlays(item, overlays)

    def note(self, item: Item, state: str, probabilities: Path | None = None, **more: Any) -> None:
        """Write that an item is ``waiting``, ``started``, ``written``, ``done`` or ``failed``.

        The outputs are noted as they are when it is started, for that is what it may replace, and when it is done.
        ``written`` means that they are complete under a temporary name.
        """
        name = self.name(item)
        entry: dict[str, Any] = {"what": "item", "output": name, "input": str(item.source), "state": state}
        before = self.items.get(name, {})
        # The input as it was when it was begun: what changed meanwhile has to be done again.
        entry["input_fingerprint"] = fingerprint(item.source) if state == "started" else before.get("input_fingerprint")
        for key, path in _outputs(item, probabilities).items():
            entry[key] = before.get(key, "missing") if state in ("failed", "written") else fingerprint(path)
        if state == "failed":  # perhaps after some of it had been renamed
            entry.update({key: value for key, value in before.items() if key.startswith("written_")})
        entry.update(more)
        self.items[name] = entry
        self._append({**entry, "time": _now()})

    def note_volume(self, item: Item, **fixed: Any) -> None:
        """Write how a volume is made; blocks recorded before count no longer."""
        entry = {"what": "volume", "output": self.name(item), **fixed}
        self.volumes[self.name(item)] = entry
        self.blocks[self.name(item)] = {}
        self._append(entry)

    def note_block(self, item: Item, level: int, index: tuple[int, int, int], **receipt: Any) -> None:
        """Write that a block is on the disk."""
        name = self.name(item)
        entry = {"what": "block", "output": name, "level": level, "index": list(index), **receipt}
        self.blocks.setdefault(name, {})[(level, *index)] = entry
        self._append(entry)

    def end(self) -> None:
        """Write that the run came to its end."""
        self.ended = True
        self.note_event("end")

    def note_event(self, what: str, **facts: Any) -> None:
        """Write something that is to be known but decides nothing: a ``fault``, a ``finding``."""
        self._append({"what": what, "time": _now(), **facts})

    def _append(self, entry: Mapping[str, Any]) -> None:
        with self.path.open("ab+") as file:
            # A run killed while writing leaves a line without an end; the next one must not be glued to it.
            if file.seek(0, os.SEEK_END) > 0:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")
            file.write(json.dumps(entry, ensure_ascii=False).encode(errors="surrogateescape") + b"\n")
            file.flush()
            os.fsync(file.fileno())


def _outputs(item: Item, probabilities: Path | None) -> dict[str, Path]:
    """Return the outputs of an item by the names of their fingerprints in the manifest."""
    found = {"output_fingerprint": item.written}
    return found if probabilities is None else {**found, "probabilities_fingerprint": probabilities}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return the settings that differ: name, value before, value now; None where there is none."""
    names = dict.fromkeys((*now, *before))
    return [(name, before.get(name), now.get(name)) for name in names if before.get(name) != now.get(name)]


def _shown(value: object) -> str:
    return "not set" if value is None else str(value)
