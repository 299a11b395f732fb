from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import napari_drososeg

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "openvino", "qtpy", "PyQt6", "PySide6", "napari", "zarr", "dask", "scipy")


def loaded_by(code: str) -> set[str]:
    """Return which heavy modules a fresh interpreter has after running `code`."""
    script = f"{code}\nimport sys\nprint('LOADED', *sorted({HEAVY!r} & sys.modules.keys()))".replace(
        repr(HEAVY), f"set({HEAVY!r})"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    return set(done.stdout.split("LOADED")[-1].split())


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded_by("import napari_drososeg") == set()


def test_the_heavy_names_are_recognised() -> None:
    assert "scipy" in loaded_by("import scipy")


def test_importing_takes_less_than_half_a_second() -> None:
    def best(code: str) -> float:
        times = []
        for _ in range(3):
            begin = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            times.append(time.perf_counter() - begin)
        return min(times)

    assert best("import napari_drososeg") - best("") < 0.5


@pytest.mark.parametrize("name", napari_drososeg.__all__)
def test_every_public_name_exists(name: str) -> None:
    assert getattr(napari_drososeg, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing_like_this"):
        _ = napari_drososeg.nothing_like_this


def test_the_manifest_at_the_root_is_the_one_inside_the_package() -> None:
    inside = Path(napari_drososeg.__file__).with_name("napari.yaml")
    assert (ROOT / "napari.yaml").read_text() == inside.read_text()


def test_the_metadata_name_both_licences() -> None:
    metadata = importlib.metadata.metadata("napari-drososeg")
    assert metadata["License-Expression"] == "BSD-3-Clause AND CC-BY-NC-SA-3.0"
    assert metadata["Version"] == napari_drososeg.__version__


def test_neither_napari_nor_qt_is_needed_by_the_core() -> None:
    required = [r for r in importlib.metadata.requires("napari-drososeg") or [] if "extra ==" not in r]
    names = {r.split(";")[0].split("[")[0].rstrip("<>=!~.,0123456789 ").lower() for r in required}
    assert not names & {"napari", "magicgui", "qtpy", "superqt", "pyqt6", "pyside6"}
    assert "torch" in names


@pytest.mark.parametrize("page", sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]), ids=lambda page: page.name)
def test_what_the_pages_link_to_is_there(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text(encoding="utf-8"))
    assert [t for t in targets if not (page.parent / t).exists()] == []
