from __future__ import annotations

import hashlib
import http.server
import json
import shutil
import struct
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any

import pytest

from napari_drososeg.checkpoint import load_spec, sha256
from napari_drososeg.errors import DrososegError
from napari_drososeg.zoo import DEFAULT_NETWORK, find_card, find_network, list_networks, read_registry, user_folder


def write_registry(folder: Path, network: Path, **changes: object) -> Path:
    row = {"title": "Tiny U-Net", "file": "tiny.safetensors", "sha256": sha256(network), "bytes": 1} | changes
    path = folder / "registry.json"
    path.write_text(json.dumps({"version": 1, "networks": {"tiny": row}}))
    return path


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Serve a folder over HTTP; its address and the folder."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    folder = tmp_path / "served"
    folder.mkdir()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}", folder
        httpd.shutdown()


def test_the_default_network_ships_trained() -> None:
    card = find_card(DEFAULT_NETWORK)
    assert card.source == "shipped"
    assert card.spec is not None
    assert card.spec.pixel_size == 4.6
    assert card.spec.licence == "CC-BY-NC-SA-3.0"
    assert card.spec.metrics["mean_iou"] > 0.8
    assert card.n_bytes <= 14_000_000


def test_the_registry_tells_the_truth_about_the_shipped_files() -> None:
    for name, row in read_registry().items():
        path = find_network(name)
        assert load_spec(path).name == name
        assert (sha256(path), path.stat().st_size) == (row["sha256"], row["bytes"])


def test_an_unknown_name_lists_near_ones() -> None:
    with pytest.raises(DrososegError, match="Did you mean: unet"):
        find_network("u-net")


def test_a_network_in_the_users_folder_is_found_by_its_name(tiny_network: Path) -> None:
    user_folder().mkdir(parents=True)
    shutil.copy(tiny_network, user_folder() / "tiny.safetensors")
    assert find_card("tiny").source == "user"
    assert "tiny" in {c.name for c in list_networks()}


def test_a_damaged_file_in_the_users_folder_does_not_hide_the_others(tiny_network: Path) -> None:
    user_folder().mkdir(parents=True)
    (user_folder() / "bad.safetensors").write_bytes(b"no")
    assert DEFAULT_NETWORK in {c.name for c in list_networks()}
    with pytest.raises(DrososegError, match=r"bad\.safetensors"):
        find_network("bad")


@pytest.mark.parametrize("changes", [{"classes": [{"value": "x", "name": "a", "color": "#000000"}]}, {"name": []}])
def test_a_malformed_description_in_the_users_folder_does_not_hide_the_others(
    tiny_network: Path, changes: dict[str, object]
) -> None:
    text = json.dumps(json.loads(load_spec(tiny_network).to_json()) | changes)
    header = json.dumps({"__metadata__": {"drososeg": text}}).encode()
    user_folder().mkdir(parents=True)
    (user_folder() / "odd.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    (user_folder() / "bad.safetensors").write_bytes(struct.pack("<Q", 27) + b'{"a": {"data_offsets": []}}')
    assert DEFAULT_NETWORK in {c.name for c in list_networks()}
    for name in ("odd", "bad"):
        with pytest.raises(DrososegError, match="not valid|Each class needs|not a network"):
            find_network(name)


def test_a_path_is_taken_as_it_is(tiny_network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_network(tiny_network) == tiny_network
    monkeypatch.setenv("HOME", str(tiny_network.parent))
    assert find_network(f"~/{tiny_network.name}") == tiny_network
    assert find_card(tiny_network).sha256 == sha256(tiny_network)


def test_a_shipped_file_that_was_changed_is_refused_when_it_is_used(tiny_network: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(tiny_network, tmp_path / "tiny.safetensors"))
    registry = write_registry(tmp_path, tiny_network, sha256="0" * 64)
    assert [c.name for c in list_networks(registry)] == ["tiny"]
    for name in ("tiny", path, str(path)):
        with pytest.raises(DrososegError, match=r"wrong SHA-256.*Install napari-drososeg again"):
            find_network(name, registry)


def test_a_damaged_shipped_file_does_not_hide_the_others(tiny_network: Path, tmp_path: Path) -> None:
    whole = tiny_network.read_bytes()
    (tmp_path / "tiny.safetensors").write_bytes(whole)
    registry = write_registry(tmp_path, tiny_network)
    rows = json.loads(registry.read_text())
    for name, content in (("cut", whole[:-7]), ("empty", b"")):
        (tmp_path / f"{name}.safetensors").write_bytes(content)
        rows["networks"][name] = rows["networks"]["tiny"] | {"file": f"{name}.safetensors"}
    registry.write_text(json.dumps(rows))
    told: list[str] = []
    assert [c.name for c in list_networks(registry, left_out=told)] == ["tiny"]
    assert len(told) == 2
    for name, reason in (("cut", "bytes where"), ("empty", "not a network")):
        with pytest.raises(DrososegError, match=rf"{name}\.safetensors.*{reason}.*Install napari-drososeg again"):
            find_network(name, registry)
    assert find_card("tiny", registry).sha256 == sha256(tiny_network)


def test_listing_reads_no_weights_and_using_reads_them_once(
    tiny_network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user_folder().mkdir(parents=True)
    own = Path(shutil.copy(tiny_network, user_folder() / "own.safetensors"))
    path = Path(shutil.copy(tiny_network, tmp_path / "tiny.safetensors"))
    registry = write_registry(tmp_path, tiny_network)
    read: list[str] = []
    digest = hashlib.file_digest

    def counted(file: IO[bytes], name: str) -> Any:
        read.append(Path(file.name).name)
        return digest(file, name)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    (card,) = list_networks(registry)
    assert card.sha256 == json.loads(registry.read_text())["networks"]["tiny"]["sha256"]
    assert read == []
    for _ in range(2):
        find_network("tiny", registry)
    assert read == ["tiny.safetensors"]
    path.unlink()
    (card,) = [c for c in list_networks(registry) if c.source == "user"]
    assert len(read) == 1
    assert card.sha256 == card.sha256 == sha256(tiny_network)
    own.write_bytes(tiny_network.read_bytes())  # written again
    assert list_networks(registry)[0].sha256 == sha256(tiny_network)
    assert read.count("own.safetensors") == 2


def test_a_damaged_download_says_how_to_get_it_again(tiny_network: Path, tmp_path: Path) -> None:
    registry = write_registry(tmp_path, tiny_network, url="http://127.0.0.1:9/tiny.safetensors")
    user_folder().mkdir(parents=True)
    (user_folder() / "tiny.safetensors").write_bytes(b"half")
    assert list_networks(registry) == []
    with pytest.raises(DrososegError, match=r"tiny\.safetensors.*downloaded again"):
        find_network("tiny", registry)


def test_a_network_is_downloaded_once(tiny_network: Path, tmp_path: Path, server: tuple[str, Path]) -> None:
    address, folder = server
    served = Path(shutil.copy(tiny_network, folder / "tiny.safetensors"))
    registry = write_registry(tmp_path, tiny_network, url=f"{address}/tiny.safetensors")
    assert [c.source for c in list_networks(registry)] == ["download"]
    path = find_network("tiny", registry)
    assert path.read_bytes() == tiny_network.read_bytes()
    served.unlink()
    assert find_network("tiny", registry) == path


def test_a_download_that_is_not_what_was_promised_is_refused(
    tiny_network: Path, tmp_path: Path, server: tuple[str, Path]
) -> None:
    address, folder = server
    (folder / "tiny.safetensors").write_bytes(b"something else")
    registry = write_registry(tmp_path, tiny_network, url=f"{address}/tiny.safetensors")
    with pytest.raises(DrososegError, match="could not be downloaded"):
        find_network("tiny", registry)
    assert not list(user_folder().glob("*.safetensors"))


def test_offline_says_where_to_put_the_file(tiny_network: Path, tmp_path: Path) -> None:
    registry = write_registry(tmp_path, tiny_network, url="http://127.0.0.1:9/tiny.safetensors")
    with pytest.raises(DrososegError, match=r"put 'tiny.safetensors' into"):
        find_network("tiny", registry)
