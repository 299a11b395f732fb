"""The zoo: which networks there are and where their checkpoints lie.

Networks come from three places: shipped inside the package (``zoo/registry.json`` lists them with their SHA-256),
put there by the user (the folder of `user_folder`), or downloaded once from where the registry says and kept
there as well.
"""

from __future__ import annotations

import difflib
import json
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, cast

from napari_drososeg.checkpoint import NetworkSpec, load_spec, sha256
from napari_drososeg.errors import DrososegError

DEFAULT_NETWORK = "unet"
REGISTRY = Path(__file__).with_name("registry.json")
SUFFIX = ".safetensors"


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
    sha256 : str
        Of the file.
    n_bytes : int
        Size of the file.
    source : {"shipped", "user", "download"}
        Where it comes from.
    """

    name: str
    title: str
    path: Path | None
    spec: NetworkSpec | None
    sha256: str
    n_bytes: int
    source: Literal["shipped", "user", "download"]


def user_folder() -> Path:
    """Return the folder of the user's own and downloaded networks (environment variable ``DROSOSEG_HOME``)."""
    import platformdirs

    home = os.environ.get("DROSOSEG_HOME")
    return (Path(home) if home else Path(platformdirs.user_data_dir("drososeg"))) / "networks"


def read_registry(path: Path = REGISTRY) -> dict[str, dict[str, object]]:
    """Return the registry: name to ``title``, ``file``, ``sha256``, ``bytes`` and, for downloads, ``url``."""
    return cast("dict[str, dict[str, object]]", json.loads(path.read_text(encoding="utf-8"))["networks"])


@lru_cache(maxsize=256)
def _checked(path: Path, _mtime_ns: int, n_bytes: int, expected: str) -> str:
    """Return the SHA-256 of a file, computed once for each state of it; raise if it is not the expected one."""
    found = sha256(path)
    if expected and found != expected:
        raise DrososegError(
            f"The network '{path}' is damaged ({n_bytes} bytes, wrong SHA-256): delete it or install again."
        )
    return found


def _card(path: Path, source: Literal["shipped", "user", "download"], expected: str = "") -> NetworkCard:
    spec = load_spec(path)
    stat = path.stat()
    digest = _checked(path, stat.st_mtime_ns, stat.st_size, expected)
    return NetworkCard(spec.name, spec.title, path, spec, digest, stat.st_size, source)


def list_networks(registry: Path = REGISTRY) -> list[NetworkCard]:
    """List the networks that can be used: shipped ones first, then the user's own, then those to download.

    A file in the user's folder that cannot be read is left out here; `find_network` says what is wrong with it.
    """
    cards: list[NetworkCard] = []
    to_fetch: list[NetworkCard] = []
    for name, row in read_registry(registry).items():
        path = registry.parent / str(row["file"])
        downloaded = user_folder() / str(row["file"])
        if path.exists():
            cards.append(_card(path, "shipped", str(row["sha256"])))
        elif not downloaded.exists():
            size = int(str(row["bytes"]))
            to_fetch.append(NetworkCard(name, str(row["title"]), None, None, str(row["sha256"]), size, "download"))
    for path in sorted(user_folder().glob(f"*{SUFFIX}")):
        try:
            card = _card(path, "user")
        except DrososegError:
            continue
        if card.name not in {c.name for c in cards}:
            cards.append(card)
    return cards + to_fetch


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
        The checkpoint; its description is known to be readable.

    Raises
    ------
    DrososegError
        If there is no such network (the message names similar ones), or the file is damaged or cannot be fetched.
    """
    text = str(name_or_path)
    if text.endswith(SUFFIX) or os.sep in text:
        load_spec(text)
        return Path(text)
    cards = list_networks(registry)
    for card in cards:
        if card.name == text:
            return card.path if card.path is not None else _fetch(text, registry)
    own = user_folder() / f"{text}{SUFFIX}"
    if own.exists():
        load_spec(own)
    names = [c.name for c in cards]
    near = difflib.get_close_matches(text, names, n=3) or names
    raise DrososegError(f"There is no network '{text}'. Did you mean: {', '.join(near)}?")


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
