from __future__ import annotations

import json
import pickle
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from napari_drososeg.checkpoint import NetworkSpec, load_model, load_spec, save_checkpoint, sha256
from napari_drososeg.errors import DrososegError


def test_a_spec_survives_json(tiny_network: Path) -> None:
    spec = load_spec(tiny_network)
    assert NetworkSpec.from_json(spec.to_json()) == spec
    assert spec.classes.names[2] == "mitochondria"


def test_weights_come_back_as_half_precision_stored_them(tiny_network: Path, tmp_path: Path) -> None:
    spec, model = load_model(tiny_network)
    state = model.state_dict()
    whole = save_checkpoint(tmp_path / "whole.safetensors", state, spec, half=False)
    again = load_model(whole)[1].state_dict()
    assert all(torch.equal(state[k], again[k]) for k in state)
    assert whole.stat().st_size > 1.7 * tiny_network.stat().st_size
    assert not model.training


def test_reading_a_spec_loads_no_torch(tiny_network: Path) -> None:
    code = (
        "import sys; from napari_drososeg.checkpoint import load_spec; "
        f"load_spec({str(tiny_network)!r}); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_truncated_file_is_refused(tiny_network: Path, tmp_path: Path) -> None:
    short = tmp_path / "short.safetensors"
    short.write_bytes(tiny_network.read_bytes()[:-100])
    with pytest.raises(DrososegError, match=r"short\.safetensors' is damaged"):
        load_model(short)


def test_a_pickle_in_disguise_is_refused_and_not_executed(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "executed",)

    trap = tmp_path / "trap.safetensors"
    trap.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(DrososegError, match="not a network"):
        load_model(trap)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("content", [b"", b"abc", b"\x05\0\0\0\0\0\0\0{]ab}", b"\xff" * 64])
def test_what_is_no_safetensors_file_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    path.write_bytes(content)
    with pytest.raises(DrososegError, match="not a network"):
        load_spec(path)


@pytest.mark.parametrize(
    "header",
    [
        '{"a": {"data_offsets": []}}',
        '{"a": {"data_offsets": [0, "q"]}}',
        '{"a": {"data_offsets": [0, 1e999]}}',
        '{"a": {}}',
        '{"__metadata__": ["drososeg"]}',
        "[" * 100_000,
    ],
)
def test_a_header_that_makes_no_sense_is_refused(header: str, tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header.encode())
    with pytest.raises(DrososegError, match=r"file\.safetensors' is not a network: its safetensors header is damaged"):
        load_spec(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"classes": [{"value": "x", "name": "a", "color": "#000000"}]},
        {"classes": 5},
        {"normalisation": [1]},
        {"version": "x"},
        {"name": ["a"]},
        {"title": None},
    ],
)
def test_a_description_that_makes_no_sense_is_refused(changes: dict[str, object], tiny_network: Path) -> None:
    plain = json.loads(load_spec(tiny_network).to_json())
    with pytest.raises(DrososegError, match="not valid|Each class needs"):
        NetworkSpec.from_json(json.dumps(plain | changes))


@pytest.mark.parametrize("changes", [{"method": "min-max"}, {"scope": "tile"}])
def test_a_normalisation_of_a_later_version_is_refused(changes: dict[str, str], tiny_network: Path) -> None:
    plain = json.loads(load_spec(tiny_network).to_json())
    with pytest.raises(DrososegError, match="does not know the normalisation.*update napari-drososeg"):
        NetworkSpec.from_json(json.dumps(plain | {"normalisation": plain["normalisation"] | changes}))


def test_a_description_of_too_large_a_number_is_refused() -> None:
    with pytest.raises(DrososegError, match="not valid"):
        NetworkSpec.from_json('{"version": ' + "9" * 5000 + "}")  # Python refuses to read such integers


def test_somebody_elses_safetensors_file_is_refused(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(DrososegError, match="was not written by napari-drososeg"):
        load_spec(tmp_path / "other.safetensors")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DrososegError, match=r"gone\.safetensors"):
        load_spec(tmp_path / "gone.safetensors")


def test_weights_of_another_shape_are_refused(tiny_network: Path, tmp_path: Path) -> None:
    spec, model = load_model(tiny_network)
    wrong = save_checkpoint(
        tmp_path / "wrong.safetensors", model.state_dict(), replace(spec, arguments={"width": 0.125})
    )
    with pytest.raises(DrososegError, match="do not fit"):
        load_model(wrong)


def test_a_newer_format_asks_for_an_update(tiny_network: Path) -> None:
    spec = load_spec(tiny_network)
    with pytest.raises(DrososegError, match="update"):
        NetworkSpec.from_json(replace(spec, version=99).to_json())


def test_weights_that_are_not_finite_are_not_written(tiny_network: Path, tmp_path: Path) -> None:
    spec, model = load_model(tiny_network)
    state = model.state_dict() | {"network.head.bias": torch.tensor([1e9, 0, 0])}  # infinite in half precision
    with pytest.raises(DrososegError, match=r"network\.head\.bias' are too large for half"):
        save_checkpoint(tmp_path / "bad.safetensors", state, spec)
    assert list(tmp_path.glob("*.safetensors*")) == []


def test_sha256_is_that_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert sha256(tmp_path / "empty") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
