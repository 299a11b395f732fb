"""The public stack: from a folder, and by download from a server of our own on this machine."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_drososeg.errors import DrososegError
from napari_drososeg.samples import drosophila_vnc, fetch_vnc, map_vnc_labels
from napari_drososeg.samples.vnc import read_registry

VALUES = np.array([0, 32, 64, 96, 128, 159, 191, 223, 255], np.uint8)
CLASSES = [2, 2, 2, 2, 2, 1, 3, 2, 1]


@pytest.fixture
def original(tmp_path: Path) -> Path:
    """A data set in the original layout, made up and small."""
    root = tmp_path / "server" / "drosophila-vnc"
    (root / "stack1" / "raw").mkdir(parents=True)
    (root / "stack1" / "labels").mkdir()
    rng = np.random.default_rng(0)
    for i in range(3):
        tifffile.imwrite(root / f"stack1/raw/{i:02d}.tif", rng.integers(0, 255, (20, 30)).astype(np.uint8))
        Image.fromarray(rng.choice(VALUES, (20, 30))).save(root / f"stack1/labels/labels{i:08d}.png")
    return root


class Handler(SimpleHTTPRequestHandler):
    asked: list[str]

    def log_message(self, *args: object) -> None:
        self.asked.append(self.path)


@pytest.fixture
def server(original: Path) -> Iterator[tuple[str, list[str]]]:
    asked: list[str] = []
    handler = type("Recording", (Handler,), {"asked": asked})
    http = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(original)))
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{http.server_port}/", asked
    http.shutdown()
    thread.join()
    http.server_close()


@pytest.fixture
def registry(original: Path) -> dict[str, str]:
    return {
        p.relative_to(original).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(original.rglob("*"))
        if p.is_file()
    }


def test_label_values() -> None:
    np.testing.assert_array_equal(map_vnc_labels(VALUES), CLASSES)
    for odd in (np.array([0, 17], np.uint8), np.array([300]), np.array([-1])):
        with pytest.raises(DrososegError, match="Label value"):
            map_vnc_labels(odd)


def test_folder_of_the_environment(original: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in (original, original.parent):
        monkeypatch.setenv("DROSOSEG_DATA", str(folder))
        image, labels = drosophila_vnc()
        assert image.shape == labels.shape == (3, 20, 30)
        assert image.voxel_size == labels.voxel_size == (50, 4.6, 4.6)
        raw = np.asarray(Image.open(original / "stack1/labels/labels00000001.png"))
        np.testing.assert_array_equal(labels.read(1, slice(3, 9)), map_vnc_labels(raw)[3:9])
        np.testing.assert_array_equal(image.read(2), tifffile.imread(original / "stack1/raw/02.tif"))


def test_folder_without_the_data(tmp_path: Path, original: Path) -> None:
    with pytest.raises(DrososegError, match="does not hold the public"):
        drosophila_vnc(tmp_path / "drososeg-none")
    (original / "stack1/raw/02.tif").unlink()
    with pytest.raises(DrososegError, match="incomplete"):
        drosophila_vnc(original)


def test_download_once(server: tuple[str, list[str]], registry: dict[str, str], tmp_path: Path) -> None:
    url, asked = server
    seen: list[tuple[int, int]] = []
    cache = tmp_path / "cache"
    for _ in range(2):
        root = fetch_vnc(cache, base_url=url, registry=registry, progress=lambda a, b: seen.append((a, b)))
    assert len(asked) == 6  # the second time nothing
    assert seen[:7] == [(n, 6) for n in range(7)]
    image, labels = drosophila_vnc(root)
    assert image.shape == labels.shape == (3, 20, 30)


def test_download_by_default_goes_to_the_cache_folder(
    server: tuple[str, list[str]], registry: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DROSOSEG_CACHE", str(tmp_path / "here"))
    assert fetch_vnc(base_url=server[0], registry=registry) == tmp_path / "here" / "drosophila-vnc"


def test_wrong_file_is_refused_and_not_kept(
    server: tuple[str, list[str]], registry: dict[str, str], tmp_path: Path
) -> None:
    name = "stack1/raw/01.tif"
    with pytest.raises(DrososegError, match=r"SHA-256 differs.*DROSOSEG_DATA") as caught:
        fetch_vnc(tmp_path / "cache", base_url=server[0], registry=registry | {name: "0" * 64})
    assert name in str(caught.value)
    assert not (tmp_path / "cache" / name).exists()


def test_offline_and_missing_say_what_to_do(
    server: tuple[str, list[str]], registry: dict[str, str], tmp_path: Path
) -> None:
    for base in ("http://127.0.0.1:9/", server[0] + "elsewhere/"):
        with pytest.raises(DrososegError, match=r"could not be downloaded.*DROSOSEG_DATA.*synthetic") as caught:
            fetch_vnc(tmp_path / "cache", base_url=base, registry=registry)
        assert "\n" not in str(caught.value)


def test_the_list_that_ships_is_that_of_the_data(vnc: Path) -> None:
    known = read_registry()
    assert len(known) == 32
    for name in ("stack1/raw/00.tif", "stack1/labels/labels00000015.png"):
        assert hashlib.sha256((vnc / name).read_bytes()).hexdigest() == known[name]


def test_the_real_labels_have_the_frequencies_of_the_study(vnc: Path) -> None:
    _, labels = drosophila_vnc(vnc)
    section = np.concatenate([labels.read(z) for z in range(0, labels.n_sections, 5)])
    share = [(section == c).mean() for c in (1, 2, 3)]
    assert share == pytest.approx([0.769, 0.177, 0.054], abs=0.02)
