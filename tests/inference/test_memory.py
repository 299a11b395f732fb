from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_drososeg.errors import DrososegError
from napari_drososeg.inference import PredictConfig, Predictor, predict
from napari_drososeg.inference.memory import _cgroup_free, choose_batch, choose_tile, free_memory, is_out_of_memory
from napari_drososeg.io import as_stack

CONFIG = PredictConfig(device="cpu", engine="torch", precision="f32")


class SmallMemory:
    """A device whose memory is full above so many pixels: it really asks for too much."""

    def __init__(self, engine, pixels):
        self.engine, self.pixels, self.seen = engine, pixels, []
        self.bytes_per_pixel, self.on_cpu = engine.bytes_per_pixel, engine.on_cpu

    def infer(self, images, output):
        if images.size > self.pixels:
            np.empty(1 << 62, np.uint8)  # raises MemoryError
        self.seen.append(images.shape)
        return self.engine.infer(images, output)


def run(predictor, stack):
    out = np.zeros(stack.shape, np.uint8)
    for r in predictor.run(stack, predictor.plan(stack)):
        out[r.z, *r.slices] = r.labels
    return out


def test_batch_then_tile_are_halved_and_results_stay_the_same(tiny_network, texture):
    stack = as_stack(np.concatenate([texture, texture]), voxel_size=(50, 4.6, 4.6))
    notices = []
    config = replace(CONFIG, batch=4, halo=32)
    predictor = Predictor(tiny_network, config, notify=notices.append)
    predictor._network.engine = engine = SmallMemory(predictor._network.engine, 250 * 250)
    labels = run(predictor, stack)
    assert [n.split(";")[1].strip() for n in notices] == [
        "continuing with 2 instead of 4 tiles at a time.",
        "continuing with 1 instead of 2 tiles at a time.",
        "continuing with tiles of 208 instead of 400 px.",
    ]
    assert max(np.prod(s) for s in engine.seen) <= 250 * 250
    assert np.mean(labels == predict(stack, tiny_network, config)) > 0.999


def test_a_device_that_is_full_hands_over_to_the_processor(tiny_network, texture, monkeypatch):
    stack = as_stack(texture, voxel_size=(50, 4.6, 4.6))
    notices, remembered = [], []
    predictor = Predictor(tiny_network, CONFIG, notify=notices.append)
    monkeypatch.setattr(predictor._network, "remember_speed", lambda *speed: remembered.append(speed))
    predictor._network.engine = SmallMemory(predictor._network.engine, 0)
    predictor._network.choice = replace(predictor._network.choice, device="cuda:0")
    tasks = Predictor(tiny_network, CONFIG).plan(stack)
    predictor.config = replace(CONFIG, batch=1)
    assert len(list(predictor.run(stack, tasks))) == len(tasks)
    assert remembered == []  # the time of two devices together is that of none
    assert notices[-1] == "The device ran out of memory; continuing on the processor."
    assert predictor.description == "CPU, PyTorch, " + predictor.description.rsplit(" ", 1)[1]


def test_out_of_memory_for_good_is_one_sentence(tiny_network, texture):
    stack = as_stack(texture)
    predictor = Predictor(tiny_network, CONFIG)
    predictor._network.engine = SmallMemory(predictor._network.engine, 1000)
    with pytest.raises(DrososegError, match="not enough memory for a tile of"):
        run(predictor, stack)


def test_other_errors_are_not_taken_for_it(tiny_network, texture):
    class Broken:
        bytes_per_pixel, on_cpu = 1.0, True

        def infer(self, images, output):
            raise RuntimeError("the plug was pulled")

    predictor = Predictor(tiny_network, CONFIG)
    predictor._network.engine = Broken()
    with pytest.raises(RuntimeError, match="plug"):
        run(predictor, as_stack(texture))


@pytest.mark.parametrize(
    "message",
    [
        "CUDA out of memory. Tried to allocate 2 GiB",
        "std::bad_alloc",
        "DefaultCPUAllocator: not enough memory: you tried",
        "DefaultCPUAllocator: can't allocate memory: you tried",
        "MPS backend out of memory",
    ],
)
def test_how_libraries_say_it(message):
    assert is_out_of_memory(RuntimeError(message))
    assert not is_out_of_memory(ValueError(message))


def test_tiles_follow_free_memory_and_halo():
    facts = {"stride": 16, "bytes_per_pixel": 500.0, "on_cpu": True}
    gb = 10**9
    assert choose_tile((1024, 1024), halo=144, free=8 * gb, **facts) == 1024
    assert choose_tile((1500, 700), halo=144, free=8 * gb, **facts) == 1504
    assert choose_tile((16000, 16000), halo=32, free=8 * gb, **facts) == 1024
    assert choose_tile((16000, 16000), halo=144, free=64 * gb, **facts) == 2048
    small = choose_tile((1024, 1024), halo=32, free=gb // 10, **facts)
    assert small % 16 == 0
    assert small**2 * 500 <= gb // 20
    assert choose_tile((4096, 4096), halo=32, free=0, **facts) == 2 * 32 + 64
    assert choose_tile((4096, 4000), halo=32, free=80 * gb, stride=16, bytes_per_pixel=500.0, on_cpu=False) == 4096


def test_batches():
    assert choose_batch(1024**2, bytes_per_pixel=500, free=10**10, on_cpu=True) == 1
    assert choose_batch(256**2, bytes_per_pixel=500, free=10**10, on_cpu=True) == 4
    assert choose_batch(1024**2, bytes_per_pixel=500, free=10**10, on_cpu=False) == 9


def test_free_memory_of_this_machine():
    assert 0 < free_memory("cpu") < 1 << 50


def test_limits_of_a_container_hold(tmp_path):
    own, root = tmp_path / "cgroup", tmp_path / "fs"
    own.write_text("0::/a/b\n")
    for folder, limit, used in ((root / "a", "1000000", "300000"), (root / "a/b", "max", "200000")):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "memory.max").write_text(limit)
        (folder / "memory.current").write_text(used)
        (folder / "memory.stat").write_text("anon 1\ninactive_file 50000\n")
    assert _cgroup_free(root, own) == 750000
    (root / "a" / "memory.max").write_text("max")
    assert _cgroup_free(root, own) is None
    assert _cgroup_free(root, tmp_path / "missing") is None
