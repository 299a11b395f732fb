"""The script that makes the zoo: a small but real run of everything it does."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from napari_drososeg.checkpoint import load_spec, sha256
from napari_drososeg.inference.config import processor_name
from napari_drososeg.zoo import find_card
from napari_drososeg.zoo.facts import facts

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
import train_zoo


@pytest.fixture(scope="module")
def runs(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Run everything for the U-Net, with a recipe of seconds."""
    arguments = {"width": 0.0625, "decoder_width": 0.0625}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DROSOSEG_DATA", str(drawn))
        recipe = replace(train_zoo.RECIPES["unet"], arguments=arguments, steps=4, final_steps=3, patch=64)
        patch.setitem(train_zoo.RECIPES, "unet", recipe)
        folder = tmp_path_factory.mktemp("runs")
        train_zoo.main([str(folder), "unet"])
        yield folder


def checkpoints(runs: Path) -> tuple[Path, Path]:
    """Return those of the development run and of the final one."""
    return runs / "unet-00-11" / "unet.safetensors", runs / "unet-00-15" / "unet.safetensors"


def registry_of(folder: Path) -> Path:
    """Write a registry without networks."""
    path = folder / "registry.json"
    path.write_text(json.dumps({"version": 1, "networks": {}}))
    return path


def test_a_network_is_developed_and_finished_once(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    development, final = (load_spec(path).training for path in checkpoints(runs))
    assert (development["sections"], final["sections"]) == ("00-11", "00-15")
    assert (development["steps"], final["steps"]) == (4, 3)
    assert development["start"] == "random"
    assert development["recipe"]["augmentation"]["rotation"] == 180
    assert f"trained on sections 00-11, {sha256(checkpoints(runs)[0])}" in final["start"]
    before = [path.stat().st_mtime_ns for path in checkpoints(runs)]
    train_zoo.main([str(runs), "unet"])
    assert "another recipe" not in capsys.readouterr().out
    train_zoo.main([str(runs), "unet", "--steps", "99"])
    assert f"{checkpoints(runs)[0]} is there, made by another recipe" in capsys.readouterr().out
    assert [path.stat().st_mtime_ns for path in checkpoints(runs)] == before


def test_what_ships_says_how_good_and_how_fast_it_is(
    runs: Path, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DROSOSEG_DATA", str(drawn))
    development, final = checkpoints(runs)
    registry = registry_of(tmp_path)
    train_zoo.ship(final, development, registry)
    (row,) = json.loads(registry.read_text())["networks"].values()
    card = find_card("unet", registry)
    assert (row["sha256"], row["bytes"]) == (card.sha256, card.n_bytes)
    assert card.spec is not None
    said = dict(facts(card.spec))
    assert said["mean IoU"].startswith(f"{train_zoo.score(development)['mean_iou']:.4g} (sections 13-15")
    assert "4 steps" in said["development run"]
    assert f"{processor_name()}, {os.cpu_count()} cores" in said["speed"]
    assert f"on {processor_name()}, {os.cpu_count()} cores" in said["training"]


def test_too_large_a_network_does_not_get_in(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    development, final = checkpoints(runs)
    registry = registry_of(tmp_path)
    monkeypatch.setitem(train_zoo.RECIPES, "unet", replace(train_zoo.RECIPES["unet"], megabytes=0.01))
    before = registry.read_bytes()
    with pytest.raises(SystemExit, match=r"more than the 0\.01 MB"):
        train_zoo.ship(final, development, registry)
    assert registry.read_bytes() == before
    assert list(tmp_path.iterdir()) == [registry]


def test_each_shipped_network_keeps_its_budget() -> None:
    rows = train_zoo.read_registry()
    assert rows.keys() == train_zoo.RECIPES.keys()
    assert all(int(str(row["bytes"])) <= 1e6 * train_zoo.RECIPES[name].megabytes for name, row in rows.items())
    assert sum(recipe.megabytes for recipe in train_zoo.RECIPES.values()) <= 95


def test_unknown_networks_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train_zoo.main([str(tmp_path), "vnet"])
    assert "no such network: vnet" in capsys.readouterr().err
