from __future__ import annotations

from pathlib import Path

import pytest

from napari_drososeg.errors import DrososegError
from napari_drososeg.io import atomic


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = atomic.write_bytes(tmp_path / "a.bin", b"old")
    atomic.write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert [p.name for p in tmp_path.glob("*.bin*")] == ["a.bin"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = atomic.write_bytes(tmp_path / "a.bin", b"old")
    with pytest.raises(DrososegError, match=r"a\.bin"):
        atomic.write_bytes(path / "b", b"new")  # a file where a folder is needed
    (tmp_path / "folder.bin").mkdir()
    (tmp_path / "folder.bin" / "kept").touch()
    assert path.read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.glob("*bin*")) == ["a.bin", "folder.bin"]


def test_a_link_is_replaced_and_what_it_leads_to_is_kept(tmp_path: Path) -> None:
    elsewhere, new = tmp_path / "elsewhere", tmp_path / "new"
    for folder in (elsewhere, new):
        folder.mkdir()
        (folder / folder.name).touch()
    link = tmp_path / "labels.zarr"
    link.symlink_to(elsewhere)
    atomic.put_in_place(new, link)
    assert not link.is_symlink()
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")) == [
        "elsewhere", "elsewhere/elsewhere", "labels.zarr", "labels.zarr/new",
    ]  # fmt: skip


def test_a_file_never_replaces_a_folder(tmp_path: Path) -> None:
    (tmp_path / "work" / "of").mkdir(parents=True)
    with pytest.raises(DrososegError, match=r"work': it is a folder"):
        atomic.write_bytes(tmp_path / "work", b"x")
    assert [p.name for p in tmp_path.iterdir()] == ["work"]
    assert (tmp_path / "work" / "of").is_dir()


def test_what_fails_while_it_is_written_leaves_nothing(tmp_path: Path) -> None:
    path = atomic.write_bytes(tmp_path / "a.bin", b"old")
    with pytest.raises(TypeError), atomic.replacing(path) as temporary:
        temporary.write_text(7)  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]
