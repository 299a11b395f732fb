"""``drososeg models`` and ``drososeg info``."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from napari_drososeg.batch.fingerprints import fingerprint
from napari_drososeg.checkpoint import load_model, save_checkpoint
from napari_drososeg.zoo import list_networks, user_folder

Run = Callable[..., Any]


@pytest.fixture
def own(tiny_network: Path) -> Path:
    """The tiny network among the user's own."""
    user_folder().mkdir(parents=True)
    return Path(shutil.copy(tiny_network, user_folder() / "tiny.safetensors"))


def test_the_list_is_json_objects_with_a_name(drososeg: Run, own: Path) -> None:
    rows = json.loads(drososeg("models", "--json").stdout)
    assert [r["name"] for r in rows] == [c.name for c in list_networks()]
    tiny = next(r for r in rows if r["name"] == "tiny")
    assert tiny["pixel_size"] == 4.6
    assert tiny["bytes"] == own.stat().st_size
    assert [c["name"] for c in tiny["classes"]] == ["cytoplasm", "cell membrane", "mitochondria"]


def test_the_list_for_people(drososeg: Run, own: Path) -> None:
    shown = drososeg("models").stdout
    assert "Tiny U-Net" in shown
    assert "CC0-1.0" in shown


def test_a_card_by_name_and_by_file(drososeg: Run, own: Path, tiny_network: Path) -> None:
    for which in ("tiny", tiny_network):
        shown = drososeg("models", which).stdout
        for part in ("Tiny U-Net", "3 mitochondria", "none: random weights", "32 px", "not measured yet"):
            assert part in shown
        card = json.loads(drososeg("models", which, "--json").stdout)
        assert card["name"] == "tiny"
        assert card["halo"] == 32
        assert card["non_commercial"] is False


def test_a_damaged_checkpoint_is_named(drososeg: Run, tmp_path: Path) -> None:
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"\x10\0\0\0")
    assert "bad.safetensors" in drososeg("models", bad, code=2).stderr


def test_info_of_a_stack(drososeg: Run, own: Path, stack_file: Path) -> None:
    facts = json.loads(drososeg("info", stack_file, "--json").stdout)
    assert facts["shape"] == [3, 96, 80]
    assert facts["dtype"] == "uint8"
    assert facts["voxel_size_nm"] == pytest.approx([50, 4.6, 4.6], rel=1e-3)
    assert facts["bytes_on_disk"] == stack_file.stat().st_size
    assert facts["bytes_in_memory"] == 3 * 96 * 80
    tiny = next(n for n in facts["networks"] if n["name"] == "tiny")
    assert tiny["scale"] == 1
    assert tiny["seconds"] is None
    shown = drososeg("info", stack_file).stdout
    assert "80 x 96 pixels" in shown
    assert "used as it is" in shown


def test_info_says_that_a_stack_would_be_rescaled(drososeg: Run, own: Path, stack_file: Path) -> None:
    facts = json.loads(drososeg("info", stack_file, "--pixel-size", 9.2, "--json").stdout)
    assert next(n for n in facts["networks"] if n["name"] == "tiny")["scale"] == pytest.approx(2)
    assert "rescaled by 2.00" in drososeg("info", stack_file, "--pixel-size", 9.2).stdout


def test_info_says_what_predict_would_refuse(drososeg: Run, own: Path, stack_file: Path) -> None:
    facts = json.loads(drososeg("info", stack_file, "--pixel-size", 4600, "--json").stdout)  # as a screen's
    assert [(n["scale"], n["seconds"]) for n in facts["networks"] if n["name"] == "tiny"] == [(None, None)]
    assert "refused: check the pixel size" in drososeg("info", stack_file, "--pixel-size", 4600).stdout
    for size in (0, -4.6, "nan"):
        assert "not a size in nm" in drososeg("info", stack_file, "--pixel-size", size, code=2).stderr


def test_info_estimates_from_an_earlier_run(drososeg: Run, own: Path, stack_file: Path, tmp_path: Path) -> None:
    from napari_drososeg.inference import PredictConfig, choose
    from napari_drososeg.inference.estimates import remember, speed_key

    remember(speed_key(own, choose(PredictConfig())), 1e-4)
    facts = json.loads(drososeg("info", stack_file, "--json").stdout)
    tiny = next(n for n in facts["networks"] if n["name"] == "tiny")
    assert tiny["seconds"] == pytest.approx(3 * 96 * 80 * 1e-4)
    assert "0.01 Mpx/s" in drososeg("models", "tiny").stdout


def test_info_of_a_folder_with_unknown_voxels(drososeg: Run, stack_folder: Path) -> None:
    result = drososeg("info", stack_folder)
    assert "unknown" in result.stdout
    on_disk = sum(p.stat().st_size for p in stack_folder.iterdir())
    assert json.loads(drososeg("info", stack_folder, "--json").stdout)["bytes_on_disk"] == on_disk


def test_brackets_in_names_are_shown(drososeg: Run, stack_file: Path, tiny_network: Path) -> None:
    spec, model = load_model(tiny_network)
    user_folder().mkdir(parents=True)
    titled = replace(spec, title="Tiny [old] U-Net")
    save_checkpoint(user_folder() / "tiny.safetensors", model.state_dict(), titled)
    named = stack_file.rename(stack_file.with_name("cells[old].tif"))
    assert "cells[old]" in drososeg("info", named).stdout
    assert "Tiny [old] U-Net" in drososeg("models").stdout
    assert "Tiny [old] U-Net  (tiny, user)" in drososeg("models", "tiny").stdout


def test_info_shows_notices(drososeg: Run, tmp_path: Path) -> None:
    path = tmp_path / "colour.tif"
    tifffile.imwrite(path, np.zeros((2, 20, 30, 3), np.uint8), photometric="rgb")
    result = drososeg("info", path)
    assert "colour" in result.stderr
    assert json.loads(drososeg("info", path, "--json").stdout)["notices"]


def test_quiet_leaves_out_notices(drososeg: Run, own: Path, tmp_path: Path) -> None:
    path = tmp_path / "colour.tif"
    tifffile.imwrite(path, np.zeros((2, 20, 30, 3), np.uint8), photometric="rgb")
    for arguments in (("info", path), ("models",)):
        assert drososeg(*arguments).stderr != ""
        quiet = drososeg(*arguments, "--quiet")
        assert quiet.stderr == ""
        assert "tiny" in quiet.stdout


def test_a_link_that_leads_nowhere_hinders_nobody(drososeg: Run, stack_folder: Path) -> None:
    (stack_folder / "s9.#tif").symlink_to("someone@elsewhere.1234")  # an editor's lock
    assert len(fingerprint(stack_folder)) == 32
    assert "on disk" in drososeg("info", stack_folder).stdout
