"""The zoo: which networks there are and where their checkpoints lie.

Networks come from three places: shipped inside the package (``zoo/registry.json`` lists them with their SHA-256),
put there by the user (the folder of `user_folder`), or downloaded once from where the registry says and kept
there as well.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from napari_drososeg.checkpoint import NetworkSpec, load_spec, sha256
from napari_drososeg.errors import DrososegError

DEFAULT_NETWORK = "unet"
REGISTRY = Path(__file__).with_name("registry.json")
SUFFIX = ".safetensors"
REINSTALL = "Install napari-drososeg again."


@dataclass(frozen=True)
class NetworkCard:
    """What is known of a network without loading its weights.

    Parameters
    ----------
    name : str
        What users type.
    title : str
        What widgets show.
    path : Path or None
        The checkpoint; None while it is still to be downloaded.
    spec : NetworkSpec or None
        Its description; None while it is still to be downloaded.
    n_bytes : int
        Size of the file.
    source : {"shipped", "user", "download"}
        Where it comes from.
    promised : str
        SHA-256 that the registry promises, empty where it says nothing. `find_network` holds the file to it.
    """

    name: str
    title: str
    path: Path | None
    spec: NetworkSpec | None
    n_bytes: int
    source: Literal["shipped", "user", "download"]
    promised: str = ""

    @property
    def sha256(self) -> str:
        """SHA-256 of the file: what the registry promises, else that of the file as it is now."""
        return self.promised if self.promised or self.path is None else _digest(self.path)

    @property
    def is_current(self) -> bool:
        """Whether the file still says what the card says: a training may have replaced it."""
        return self.path is None or bool(self.promised) or load_spec(self.path) == self.spec


def user_folder() -> Path:
    """Return the folder of the user's own and downloaded networks (environment variable ``DROSOSEG_HOME``)."""
    import platformdirs

    home = os.environ.get("DROSOSEG_HOME")
    return (Path(home) if home else Path(platformdirs.user_data_dir("drososeg"))) / "networks"


def read_registry(path: Path = REGISTRY) -> dict[str, dict[str, object]]:
    """Return the registry: name to ``title``, ``file``, ``sha256``, ``bytes`` and, for downloads, ``url``."""
    return cast("dict[str, dict[str, object]]", json.loads(path.read_text(encoding="utf-8"))["networks"])


def _digest(path: Path) -> str:
    try:
        return sha256(path)
    except OSError as error:
        raise DrososegError(f"Cannot read the network '{path}': {error.strerror or error}.") from error


def _checked(path: Path, promised: str) -> Path:
    """Return `path`; raise if the file is not what the registry promises."""
    if promised and _digest(path) != promised:
        raise DrososegError(
            f"The network '{path}' is damaged ({path.stat().st_size} bytes, wrong SHA-256): {REINSTALL}"
        )
    return path


def _card(path: Path, source: Literal["shipped", "user"], promised: str = "") -> NetworkCard:
    spec = load_spec(path)
    return NetworkCard(spec.name, spec.title, path, spec, path.stat().st_size, source, promised)


def list_networks(registry: Path = REGISTRY, *, left_out: list[str] | None = None) -> list[NetworkCard]:
    """List the networks that can be used: shipped ones first, then the user's own, then those to download.

    Only descriptions are read, so that listing is quick; weights are checked when a network is used.

    Parameters
    ----------
    registry : Path
        The registry file.
    left_out : list of str, optional
        Told of every file that cannot be read and so is not listed, one sentence each; `find_network` says the same.
    """
    cards: dict[str, NetworkCard] = {}
    to_fetch: list[NetworkCard] = []
    rows = read_registry(registry)
    shipped = {registry.parent / str(row["file"]): str(row["sha256"]) for row in rows.values()}
    for path in (*shipped, *sorted(user_folder().glob(f"*{SUFFIX}"))):
        if not path.exists():
            continue
        try:
            card = _card(path, "shipped" if path in shipped else "user", shipped.get(path, ""))
        except DrososegError as error:
            if left_out is not None:
                left_out.append(f"{error} {REINSTALL}" if path in shipped else str(error))
            continue
        cards.setdefault(card.name, card)
    for name, row in rows.items():
        files = (registry.parent / str(row["file"]), user_folder() / str(row["file"]))
        if name not in cards and not any(file.exists() for file in files):
            size = int(str(row["bytes"]))
            to_fetch.append(NetworkCard(name, str(row["title"]), None, None, size, "download", str(row["sha256"])))
    return [*cards.values(), *to_fetch]


def find_network(name_or_path: str | Path, registry: Path = REGISTRY) -> Path:
    """Return the checkpoint of a network, downloading it where necessary.

    Parameters
    ----------
    name_or_path : str or Path
        Name of a network of the zoo, or path of a checkpoint.
    registry : Path
        The registry file.

    Returns
    -------
    Path
        The checkpoint; its description is known to be readable, and a shipped file to be what was shipped.

    Raises
    ------
    DrososegError
        If there is no such network (the message names similar ones), or the file is damaged or cannot be fetched.
    """
    text = os.path.expanduser(name_or_path)  # noqa: PTH111 - a Path would take a name's slash away
    rows = read_registry(registry)
    if text.endswith(SUFFIX) or os.sep in text:
        load_spec(text)
        shipped = {registry.parent / str(row["file"]): str(row["sha256"]) for row in rows.values()}
        return _checked(Path(text), shipped.get(Path(text), ""))
    cards = list_networks(registry)
    for card in cards:
        if card.name == text:
            return _checked(card.path, card.promised) if card.path is not None else _fetch(text, registry)
    _explain(text, rows, registry)
    names = [c.name for c in cards]
    near = difflib.get_close_matches(text, names, n=3) or names
    raise DrososegError(f"There is no network '{text}'. Did you mean: {', '.join(near)}?")


def _explain(name: str, rows: Mapping[str, Mapping[str, object]], registry: Path) -> None:
    """Raise with what is wrong with a file of this name that is there but cannot be listed; return if there is none."""
    own = user_folder() / f"{name}{SUFFIX}"
    ways_out = {own: ""}
    if name in rows:
        file, downloaded = str(rows[name]["file"]), "url" in rows[name]
        again = " Delete it: it is downloaded again on next use." if downloaded else ""
        ways_out = {registry.parent / file: f" {REINSTALL}", user_folder() / file: again, own: again}
    for path, way_out in ways_out.items():
        if path.exists():
            try:
                load_spec(path)
            except DrososegError as error:
                raise DrososegError(f"{error}{way_out}") from error


def find_card(name_or_path: str | Path, registry: Path = REGISTRY) -> NetworkCard:
    """Return the card of a network; as `find_network`."""
    path = find_network(name_or_path, registry)
    return next((c for c in list_networks(registry) if c.path == path), None) or _card(path, "user")


def _fetch(name: str, registry: Path) -> Path:
    import pooch

    row = read_registry(registry)[name]
    try:
        found = pooch.retrieve(str(row["url"]), f"sha256:{row['sha256']}", fname=str(row["file"]), path=user_folder())
    except (OSError, ValueError) as error:
        raise DrososegError(
            f"The network '{name}' could not be downloaded ({error}). Check the connection, or put "
            f"'{row['file']}' into {user_folder()} by hand."
        ) from error
    load_spec(found)
    return Path(found)
