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
