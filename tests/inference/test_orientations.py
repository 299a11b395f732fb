from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_drososeg.errors import DrososegError
from napari_drososeg.inference import Interrupted, PredictConfig, Predictor, estimate_seconds, estimates, predict
from napari_drososeg.inference.engine import decide
from napari_drososeg.inference.orientations import OrientedEngine, averaging_bytes
from napari_drososeg.io import as_stack

F32 = PredictConfig(device="cpu", engine="torch", precision="f32")


class Pixelwise(torch.nn.Module):
    """Logits (-x, x): turning the image turns the result and changes nothing else."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.unit = torch.nn.Parameter(torch.ones(1))

    def forward(self, x):
        return torch.cat([-self.unit * x, self.unit * x], 1)


class Leaning(torch.nn.Module):
    """Looks up and to the left only, and each class differently: no two orientations give the same."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(1, n_classes, 5, padding=2)
        weight = torch.zeros(n_classes, 1, 5, 5)
        weight[0, 0, 0, 2], weight[1, 0, 2, 1], weight[1, 0, 0, 0] = 1.0, 1.0, -0.5
        self.conv.weight.data, self.conv.bias.data = weight, torch.zeros(n_classes)

    def forward(self, x):
        return self.conv(x)


class Wide(Leaning):
    """The same, and every pixel depends on the mean of its tile."""

    def forward(self, x):
        return self.conv(x) + x[..., :1, :].mean((2, 3), keepdim=True) * self.conv(x)


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


def turn(pixels, quarters, mirrored):
    return np.ascontiguousarray(np.rot90(pixels[..., ::-1] if mirrored else pixels, quarters, (-2, -1)))


class Turned:
    """One orientation alone, by numpy's own functions."""

    def __init__(self, engine, quarters, mirrored):
        self.engine, self.quarters, self.mirrored = engine, quarters, mirrored
        self.bytes_per_pixel, self.on_cpu = engine.bytes_per_pixel, engine.on_cpu

    def infer(self, images, output):
        assert output == "probabilities"
        found = self.engine.infer(turn(images, self.quarters, self.mirrored), output)
        found = np.rot90(found, -self.quarters, (2, 3))
        return found[..., ::-1] if self.mirrored else found


WAYS = {
    2: [(0, False), (2, False)],
    4: [(0, False), (2, False), (0, True), (2, True)],
    8: [(quarters, mirrored) for quarters in range(4) for mirrored in (False, True)],
}


def prepare(network, engine):
    """Convert a network for OpenVINO in this process: another does not know the classes above."""
    from napari_drososeg.inference import conversion

    if engine == "openvino":
        conversion.cached(
            conversion.cache_name(network), lambda folder: conversion.save(conversion.convert(network), folder)
        )
    return network


@pytest.fixture
def images():
    """(2, 1, 80, 112) float32."""
    return np.random.default_rng(1).standard_normal((2, 1, 80, 112)).astype(np.float32)


@pytest.mark.parametrize("engine", ["torch", "openvino"])
@pytest.mark.parametrize("n", [2, 4, 8])
def test_the_average_is_the_mean_of_probabilities_and_labels_follow_it(network_of, images, engine, n):
    network = prepare(network_of(Leaning), engine)
    config = replace(F32, engine=engine)
    one = Predictor(network, config).engine
    each = np.stack([Turned(one, *way).infer(images, "probabilities") for way in WAYS[n]])
    assert np.abs(each - each[0]).max() > 0.5
    averaged = Predictor(network, replace(config, orientations=n)).engine
    before = images.copy()
    found = averaged.infer(images, "probabilities")
    np.testing.assert_array_equal(images, before)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, each.mean(0), rtol=0, atol=1e-5)
    labels = averaged.infer(images, "labels")
    assert labels.dtype == np.uint8
    assert labels.shape == (2, 80, 112)
    np.testing.assert_array_equal(labels, np.stack([decide(p) for p in found]))
    assert np.mean(labels != one.infer(images, "labels")) > 0.05


@pytest.mark.parametrize("engine", ["torch", "openvino"])
@pytest.mark.parametrize("n", [2, 4, 8])
def test_a_turned_image_has_the_turned_average(tiny_network, images, engine, n):
    config = replace(F32, engine=engine)
    averaged = Predictor(tiny_network, replace(config, orientations=n)).engine
    expected = averaged.infer(images, "probabilities")
    for way in WAYS[n]:
        found = averaged.infer(turn(images, *way), "probabilities")
        np.testing.assert_allclose(found, turn(expected, *way), rtol=0, atol=1e-5)
    alone = Predictor(tiny_network, config).engine
    turned = alone.infer(turn(images, 2, False), "probabilities")
    assert np.abs(turned - turn(alone.infer(images, "probabilities"), 2, False)).max() > 1e-3


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_where_turning_changes_nothing_neither_does_averaging(network_of, texture, engine):
    network = prepare(network_of(Pixelwise), engine)
    config = replace(F32, engine=engine, tile=160, batch=2)
    expected = predict(as_stack(texture), network, config)
    assert set(np.unique(expected)) == {1, 2}
    np.testing.assert_array_equal(predict(as_stack(texture), network, replace(config, orientations=8)), expected)


def test_one_orientation_is_the_engine_itself(tiny_network):
    from napari_drososeg.inference.torch_engine import TorchEngine

    one, eight = (Predictor(tiny_network, replace(F32, orientations=n)) for n in (1, 8))
    assert type(one.engine) is TorchEngine
    assert type(eight.engine) is OrientedEngine
    assert eight.bytes_per_pixel() == one.bytes_per_pixel() + averaging_bytes(3)


@pytest.mark.parametrize(
    ("network", "voxel_size"),
    [(Leaning, None), (Leaning, (50, 6.9, 6.9)), (Wide, None), (Wide, (50, 3.1, 3.1))],
    ids=["plain", "rescaled", "blended", "rescaled and blended"],
)
def test_whole_predictions_are_the_mean_of_those_of_each_orientation(network_of, texture, network, voxel_size):
    stack = as_stack(texture[:1], **({} if voxel_size is None else {"voxel_size": voxel_size}))
    path = network_of(network, receptive_field=4, global_context=network is Wide, halo=4)
    outputs = ("labels", "probabilities", "entropy")

    def run(predictor):
        tasks = predictor.plan(stack)
        assert len(tasks) > 3
        found = dict.fromkeys(outputs)
        for result in predictor.run(stack, tasks, outputs=outputs):
            for name in outputs:
                part = getattr(result, name)
                if found[name] is None:
                    found[name] = np.full((*part.shape[:-2], *stack.shape[1:]), 0, part.dtype)
                found[name][..., *result.slices] = part
        return found

    config = replace(F32, tile=160)
    averaged = run(Predictor(path, replace(config, orientations=8)))
    parts = []
    for way in WAYS[8]:
        predictor = Predictor(path, config)
        predictor._network.engine = Turned(predictor.engine, *way)
        parts.append(run(predictor)["probabilities"].astype(np.float32))
    expected = np.mean(parts, 0)
    assert np.abs(parts - expected).max() > 0.2
    np.testing.assert_allclose(averaged["probabilities"], expected, rtol=0, atol=2e-3)
    clear = np.abs(expected[0] - expected[1]) > 4e-3
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(averaged["labels"][clear], decide(expected)[clear])
    p = np.clip(expected, 1e-6, 1)
    np.testing.assert_allclose(averaged["entropy"], -(p * np.log2(p)).sum(0), rtol=0, atol=2e-2)


def test_memory_that_runs_out_makes_batch_and_tile_smaller_and_keeps_the_average(network_of, texture):
    stack = as_stack(texture, voxel_size=(50, 4.6, 4.6))
    network = network_of(Leaning, stride=16, receptive_field=16, halo=16)
    notices = []
    config = replace(F32, batch=2, orientations=8)
    predictor = Predictor(network, config, notify=notices.append)
    engine = SmallMemory(Predictor(network, F32).engine, 250 * 250)
    predictor._network.engine = OrientedEngine(engine, 8, 2)
    labels = np.zeros(stack.shape, np.uint8)
    for result in predictor.run(stack, predictor.plan(stack)):
        labels[result.z, *result.slices] = result.labels
    assert [n.split(";")[1].strip() for n in notices] == [
        "continuing with 1 instead of 2 tiles at a time.",
        "continuing with tiles of 208 instead of 400 px.",
    ]
    expected = predict(stack, network, config)
    assert np.mean(labels == expected) > 0.9999  # a sum in another order may differ in its last bit
    assert np.mean(expected != predict(stack, network, F32)) > 0.05


def test_the_processor_takes_over_with_all_orientations(network_of, texture):
    stack = as_stack(texture[:1], voxel_size=(50, 4.6, 4.6))
    network = network_of(Leaning)
    config = replace(F32, batch=1, orientations=4)
    predictor = Predictor(network, config)
    tasks = predictor.plan(stack)
    predictor._network.engine = SmallMemory(predictor.engine, 0)
    predictor._network.choice = replace(predictor._network.choice, device="cuda:0")
    (result,) = predictor.run(stack, tasks)
    assert predictor.choice.device == "cpu"
    assert np.mean(result.labels == predict(stack, network, config)[0]) > 0.99  # in the processor's own precision
    assert np.mean(result.labels != predict(stack, network, F32)[0]) > 0.05


def test_cancelling_waits_for_one_orientation_not_for_all(tiny_network, texture):
    passes = 0

    class Counting:
        on_cpu, bytes_per_pixel = True, 4.0

        def infer(self, images, output):
            nonlocal passes
            passes += 1
            return np.ones((len(images), 3, *images.shape[2:]), np.float32)

    engine = OrientedEngine(Counting(), 8, 3, cancelled=lambda: passes == 3)
    with pytest.raises(Interrupted):
        engine.infer(np.zeros((1, 1, 32, 32), np.float32), "labels")
    assert passes == 3

    answers = iter([False] * 20 + [True])  # of whoever made the predictor
    predictor = Predictor(tiny_network, replace(F32, orientations=8, batch=1), cancelled=lambda: next(answers))
    stack = as_stack(texture)
    done = []
    with pytest.raises(Interrupted):
        done.extend(predictor.run(stack, predictor.plan(stack, tile=128)))
    assert len(done) == 2, "20 orientations are two and a half tiles"


def test_openvino_compiles_each_shape_of_a_run_once(tiny_network, images):
    engine = Predictor(tiny_network, replace(F32, engine="openvino", orientations=8)).engine
    inner = engine._engine
    for part in (images, images[:1]):  # full batches, and the last one
        engine.infer(part, "labels")
    compiled = dict(inner._requests)
    assert {shape for _, shape in compiled} == {(2, 1, 80, 112), (2, 1, 112, 80), (1, 1, 80, 112), (1, 1, 112, 80)}
    for part in (images, images[:1]):
        engine.infer(part, "labels")
    assert all(inner._requests[key] is request for key, request in compiled.items())
    engine.infer(images[..., :64, :64], "labels")
    assert len(inner._requests) == 1  # what an earlier run asked for only held memory
    memory = {
        n: Predictor(tiny_network, replace(F32, engine="openvino", orientations=n)).bytes_per_pixel() for n in (1, 4, 8)
    }
    assert memory[4] == memory[1] + averaging_bytes(3)
    assert memory[8] == 2 * memory[1] + averaging_bytes(3)


def test_speed_is_remembered_by_orientation_and_estimates_count_all(tiny_network, texture, monkeypatch, tmp_path):
    monkeypatch.setenv("DROSOSEG_CACHE", str(tmp_path))
    stack = as_stack(texture)
    four = Predictor(tiny_network, replace(F32, orientations=4))
    four._network.remember_speed(8e-6, 10**6)
    assert estimates.recall(estimates.speed_key(four.path, four.choice)) == pytest.approx(2e-6)
    assert four.seconds_per_pixel() == pytest.approx(8e-6)
    one = Predictor(tiny_network, F32)
    tasks = one.plan(stack)
    assert four.estimate(tasks) == pytest.approx(4 * one.estimate(tasks))
    assert estimate_seconds(tiny_network, 10**6, four.config) == pytest.approx(8)
    assert estimate_seconds(tiny_network, 10**6, F32) == pytest.approx(2)


@pytest.mark.parametrize("n", [0, 3, 16, -1])
def test_other_numbers_are_refused(n):
    with pytest.raises(DrososegError, match=rf"number of orientations is 1, 2, 4 or 8, not {n}\."):
        PredictConfig(orientations=n)
