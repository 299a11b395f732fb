from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_drososeg.checkpoint import load_model
from napari_drososeg.data import Normalisation, measure, normalise
from napari_drososeg.errors import DrososegError
from napari_drososeg.inference import PredictConfig, Predictor, estimates, measure_halo, predict, reading
from napari_drososeg.inference.conversion import cache_name
from napari_drososeg.inference.engine import entropy
from napari_drososeg.inference.reading import TileReader
from napari_drososeg.inference.rescaling import scale_for
from napari_drososeg.io import as_stack

F32 = PredictConfig(device="cpu", engine="torch", precision="f32")


class Identity(torch.nn.Module):
    """Logits (-x, x): half their difference is the input."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.unit = torch.nn.Parameter(torch.ones(1))

    def forward(self, x):
        return torch.cat([-self.unit * x, self.unit * x], 1)


class Pooling(torch.nn.Module):
    """Every pixel depends on the mean of the whole input."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.unit = torch.nn.Parameter(torch.ones(1))

    def forward(self, x):
        return torch.cat([self.unit * x.mean((2, 3), keepdim=True).expand_as(x), self.unit * 0 * x], 1)


class ReducedTo(torch.nn.Module):
    """A network that OpenVINO cannot follow: its result depends on the input's size in Python."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.unit = torch.nn.Parameter(torch.ones(1))

    def forward(self, x):
        return torch.cat([self.unit * x, self.unit * float(x.shape[-1]) + 0 * x], 1)


def whole_logits(network, section, **options):
    _, model = load_model(network)
    x = normalise(section, measure(section), **options)
    with torch.inference_mode():
        return model(torch.from_numpy(x)[None, None])[0].numpy()


def probabilities_of(network, config, stack, **plan):
    predictor = Predictor(network, config)
    out = None
    for result in predictor.run(stack, predictor.plan(stack, **plan), outputs={"probabilities", "entropy"}):
        if out is None:
            out = np.full((len(result.probabilities), *stack.shape), np.nan, np.float32)
        out[:, result.z, *result.slices] = result.probabilities
    return out


def engine_probabilities(predictor, stack, z):
    """Float32 probabilities of one section in tiles, before they are stored in half precision."""
    from napari_drososeg.inference.reading import TileReader
    from napari_drososeg.inference.rescaling import to_image

    reader = TileReader(stack, predictor.spec.normalisation, predictor.config, lambda _: None)
    tasks = predictor.plan(stack, sections=[z])
    out = np.full((3, *stack.shape[1:]), np.nan, np.float32)
    for task in tasks:
        found = predictor.engine.infer(reader.read(z, task.tile)[None, None], "probabilities")
        out[:, *task.tile.write] = to_image(found[0], task.tile)
    return out, len(tasks)


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_exact_tiles_equal_the_whole_section(tiny_network, texture, engine):
    sections = np.pad(texture[1:2], ((0, 0), (0, 60), (0, 0)), mode="reflect")
    config = replace(F32, engine=engine, halo="exact", tile=352)
    predictor = Predictor(tiny_network, config)
    found, n = engine_probabilities(predictor, as_stack(sections), 0)
    assert n == 9
    expected = torch.from_numpy(whole_logits(tiny_network, sections[0])).softmax(0).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_a_halo_that_is_too_small_does_change_results(tiny_network, texture):
    predictor = Predictor(tiny_network, replace(F32, halo=0, tile=128))
    found, _ = engine_probabilities(predictor, as_stack(texture), 1)
    expected = torch.from_numpy(whole_logits(tiny_network, texture[1])).softmax(0).numpy()
    assert np.abs(found - expected).max() > 1e-4


@pytest.mark.parametrize("engine", ["torch", "openvino"])
@pytest.mark.parametrize("shape", [(1, 1), (17, 5), (64, 64), (331, 397)])
def test_labels_of_any_size_equal_the_networks_own(tiny_network, texture, engine, shape):
    image = texture[:1, : shape[0], : shape[1]]
    labels = predict(as_stack(image), tiny_network, replace(F32, engine=engine, halo="exact", tile=352))
    logits = np.sort(whole_logits(tiny_network, image[0]), 0)
    clear = logits[-1] - logits[-2] > 1e-4  # ties may fall either way
    expected = whole_logits(tiny_network, image[0]).argmax(0) + 1
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels[0][clear], expected[clear])


@pytest.mark.parametrize("tile", [64, 100, 1000])
def test_identity_network_gives_back_its_input(network_of, texture, tile):
    stack = as_stack(texture)
    network = network_of(Identity)
    p = probabilities_of(network, replace(F32, tile=tile, halo=5), stack)
    labels = predict(stack, network, replace(F32, tile=tile, halo=5))
    for z, section in enumerate(texture):
        x = normalise(section, measure(section))
        np.testing.assert_allclose(p[1, z], 1 / (1 + np.exp(-2 * x)), atol=1e-3)
        np.testing.assert_array_equal(labels[z], (x > 0) + 1)


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float32, np.float64])
def test_grey_values_of_any_type(network_of, texture, dtype):
    labels = predict(as_stack(texture.astype(dtype) * 3), network_of(Identity), F32)
    np.testing.assert_array_equal(labels, predict(as_stack(texture), network_of(Identity), F32))


def test_inverted_contrast(network_of, texture):
    config = replace(F32, invert=True)
    np.testing.assert_array_equal(
        predict(as_stack(255 - texture), network_of(Identity), config),
        predict(as_stack(texture), network_of(Identity), F32),
    )


def test_statistics_of_the_whole_stack_where_the_network_says_so(network_of):
    stack = np.stack([np.full((40, 40), v, np.uint8) for v in (50, 200)])
    labels = predict(as_stack(stack), network_of(Identity, normalisation=Normalisation(scope="stack")), F32)
    assert np.unique(labels[0]) == 1
    assert np.unique(labels[1]) == 2


def test_large_lazy_sections_are_never_read_whole(network_of, monkeypatch):
    from napari_drososeg.inference import reading

    monkeypatch.setattr(reading, "WHOLE_SECTION", 256 * 256)

    class Lazy:
        shape, dtype, ndim, largest = (1, 3000, 2500), np.dtype(np.uint8), 3, 0

        def __getitem__(self, key):
            _, ys, xs = key
            rows, columns = np.arange(3000)[ys], np.arange(2500)[xs]
            Lazy.largest = max(Lazy.largest, rows.size * columns.size)
            return (100 + rows[:, None] % 50 + columns % 7).astype(np.uint8)

    stack = as_stack(np.zeros((1, 1, 1), np.uint8))
    stack = replace(stack, data=Lazy())
    labels = predict(stack, network_of(Identity), replace(F32, tile=512))
    assert Lazy.largest <= 512 * 512
    truth = (np.arange(3000)[:, None] % 50 + np.arange(2500) % 7 > 27.5) + 1
    assert np.mean(labels[0] == truth) > 0.97


def test_nan_is_refused_by_section_unless_filled(network_of, texture):
    image = texture.astype(np.float32)
    image[2, 5, 7] = np.nan
    with pytest.raises(DrososegError, match=r"Section 2 of 'cells' has 1 pixels that are NaN.*--fill-nan.*Advanced"):
        predict(as_stack(image, name="cells"), network_of(Identity), F32)
    labels = predict(as_stack(image), network_of(Identity), replace(F32, fill_nan=255))
    assert labels[2, 5, 7] == 2
    for nothing in (np.nan, np.inf):
        with pytest.raises(DrososegError, match="use a grey value"):
            PredictConfig(fill_nan=nothing)
    for dtype, value in ((np.float16, 1e5), (np.float32, -1e39)):
        with pytest.raises(DrososegError, match=f"too large for 'cells', which holds {np.dtype(dtype)}"):
            predict(as_stack(image.astype(dtype), name="cells"), network_of(Identity), replace(F32, fill_nan=value))


def test_a_constant_section_works_and_is_mentioned(tiny_network):
    notices = []
    labels = predict(
        as_stack(np.full((1, 40, 40), 7, np.uint8), voxel_size=(50, 4.6, 4.6)), tiny_network, F32, notify=notices.append
    )
    assert set(np.unique(labels)) <= {1, 2, 3}
    assert len(notices) == 1
    assert "constant" in notices[0]


def test_regions_and_sections(tiny_network, texture):
    stack = as_stack(texture)
    config = replace(F32, halo="exact")
    whole = predict(stack, tiny_network, config)
    roi = (slice(40, 201), slice(33, 300))
    part = predict(stack, tiny_network, config, sections=[2], roi=roi)
    assert part[2, *roi].min() > 0
    assert np.count_nonzero(part) == part[2, *roi].size
    assert np.mean(part[2, *roi] == whole[2, *roi]) > 0.9999


def test_order_of_tasks_is_kept_and_parts_add_up(tiny_network, texture):
    stack = as_stack(texture)
    predictor = Predictor(tiny_network, replace(F32, tile=160))
    tasks = predictor.plan(stack)[::-1]
    results = list(predictor.run(stack, tasks[:5])) + list(predictor.run(stack, tasks[5:]))
    assert [(r.z, r.slices) for r in results] == [(t.z, t.tile.write) for t in tasks]
    again = np.zeros(stack.shape, np.uint8)
    for r in results:
        again[r.z, *r.slices] = r.labels
    np.testing.assert_array_equal(again, predict(stack, tiny_network, replace(F32, tile=160)))


def test_global_context_one_tile_is_whole_and_many_are_blended(network_of):
    image = np.zeros((1, 128, 1024), np.uint8) + np.linspace(50, 200, 1024).astype(np.uint8)
    network = network_of(Pooling, stride=16, global_context=True)
    p = probabilities_of(network, replace(F32, tile=1024), as_stack(image))[0, 0]
    np.testing.assert_allclose(p, 0.5, atol=1e-3)  # the mean of the whole is 0
    p = probabilities_of(network, replace(F32, tile=256), as_stack(image))[0, 0]
    assert np.isfinite(p).all()
    assert p[0, 0] < 0.25
    assert p[0, -1] > 0.75
    assert np.abs(np.diff(p, axis=1)).max() < 0.02  # no seams
    assert np.ptp(p, axis=0).max() < 1e-3


@pytest.mark.parametrize("pixel_size", [2.3, 9.2])
def test_other_pixel_sizes_are_rescaled_and_come_back_on_the_images_grid(network_of, pixel_size):
    y, x = np.mgrid[:240, :301]
    image = (128 + 80 * np.sin(y / 20) * np.cos(x / 23)).astype(np.uint8)[None]
    stack = as_stack(image, voxel_size=(50, pixel_size, pixel_size))
    predictor = Predictor(network_of(Identity), replace(F32, tile=96))
    grid = predictor.plan(stack)[0].tile.grid
    assert grid.network == (round(240 * pixel_size / 4.6), round(301 * pixel_size / 4.6))
    labels = predict(stack, network_of(Identity), replace(F32, tile=96))
    whole = predict(stack, network_of(Identity), F32)
    same = predict(stack, network_of(Identity), replace(F32, pixel_size=4.6))
    assert labels.shape == image.shape
    np.testing.assert_array_equal(labels, whole)  # one grid for all tiles
    assert np.mean(labels == same) > 0.97


def test_small_differences_of_pixel_size_are_left_alone_and_unknown_ones_mentioned_once(network_of, texture):
    notices = []
    predictor = Predictor(network_of(Identity), F32, notify=notices.append)
    assert not predictor.plan(as_stack(texture, voxel_size=(50, 5.2, 5.2)))[0].tile.grid.rescaled
    assert notices == []
    predictor.plan(as_stack(texture))
    predictor.plan(as_stack(texture))
    assert len(notices) == 1
    assert "4.6 nm" in notices[0]


def test_pixels_that_are_not_square_are_mentioned_unless_the_user_gave_a_size(network_of, texture):
    notices = []
    stack = as_stack(texture, voxel_size=(50, 4, 8))
    Predictor(network_of(Identity), F32, notify=notices.append).plan(stack)
    (notice,) = notices
    assert "4 x 8 nm (y, x)" in notice
    assert "squares of 6 nm" in notice
    Predictor(network_of(Identity), replace(F32, pixel_size=4.6), notify=notices.append).plan(stack)
    assert len(notices) == 1


def test_uncertainty(network_of):
    image = np.zeros((1, 32, 64), np.float32)
    image[0, :, :16], image[0, :, 48:] = -1, 1
    image[image == 0] = 1e-6
    predictor = Predictor(network_of(Identity), F32)
    stack = as_stack(image)
    (result,) = predictor.run(stack, predictor.plan(stack), outputs=["labels", "probabilities", "entropy"])
    assert result.probabilities.dtype == result.entropy.dtype == np.float16
    np.testing.assert_allclose(result.entropy[:, 20:44], 1, atol=1e-2)
    assert result.entropy[:, :16].max() < 0.5
    np.testing.assert_allclose(result.probabilities.astype(np.float32).sum(0), 1, atol=2e-3)
    (plain,) = predictor.run(stack, predictor.plan(stack))
    assert plain.probabilities is None
    assert plain.entropy is None


def pipeline_threads():
    return [t for t in threading.enumerate() if t.name.startswith("drososeg-")]


def test_closing_stops_between_tiles_and_leaves_no_thread(tiny_network, texture):
    stack = as_stack(texture)
    predictor = Predictor(tiny_network, replace(F32, tile=160))
    run = predictor.run(stack, predictor.plan(stack))
    first = next(run)
    assert pipeline_threads()
    run.close()
    assert not pipeline_threads()
    assert first.labels.min() > 0


def test_processes_do_not_bind_their_threads_to_the_same_cores(tiny_network, texture):
    predictor = Predictor(tiny_network, PredictConfig("cpu", "openvino", "f32", threads=1))
    stack = as_stack(texture)
    list(predictor.run(stack, predictor.plan(stack)))
    for request in predictor.engine._requests.values():
        assert request.get_compiled_model().get_property("ENABLE_CPU_PINNING") is False


def test_a_read_error_ends_the_run_and_leaves_no_thread(tiny_network, texture):
    image = texture.astype(np.float32)
    image[1, 0, 0] = np.inf
    predictor = Predictor(tiny_network, F32)
    stack = as_stack(image)
    run = predictor.run(stack, predictor.plan(stack))
    assert next(run).z == 0
    with pytest.raises(DrososegError, match="Section 1"):
        list(run)
    assert not pipeline_threads()


def test_speed_is_remembered_for_estimates(tiny_network, texture, monkeypatch, tmp_path):
    from napari_drososeg.inference import estimate_seconds

    monkeypatch.setenv("DROSOSEG_CACHE", str(tmp_path))
    stack = as_stack(texture)
    predictor = Predictor(tiny_network, F32)
    tasks = predictor.plan(stack)
    assert predictor.estimate(tasks) is None
    list(predictor.run(stack, tasks))
    assert 0 < Predictor(tiny_network, F32).estimate(tasks) < 60
    assert 0 < estimate_seconds(tiny_network, 10**6, F32) < 60
    assert estimate_seconds(tiny_network, 10**6, replace(F32, precision="auto", engine="openvino")) is None


def test_a_scrap_of_an_image_does_not_spoil_the_estimates(monkeypatch, tmp_path):
    from napari_drososeg.inference.estimates import ENOUGH, recall, remember

    monkeypatch.setenv("DROSOSEG_CACHE", str(tmp_path))
    remember("here", 2e-5, ENOUGH)
    remember("here", 6 / 1024, 32 * 32)  # 6 s, nearly all of them for the start
    assert recall("here") == 2e-5
    remember("here", 4e-5, 10 * ENOUGH)
    assert recall("here") == pytest.approx(3e-5)


def test_measured_halo_keeps_the_labels(tiny_network, texture):
    stack = as_stack(texture[:1])
    halo = measure_halo(tiny_network, stack, tile=64, config=F32)
    assert halo % 16 == 0
    assert 0 <= halo <= 144
    found = predict(stack, tiny_network, replace(F32, halo=halo, tile=64 + 2 * halo))
    assert np.mean(found == predict(stack, tiny_network, F32)) >= 0.999


def test_a_network_that_does_not_convert_runs_in_torch(network_of, texture):
    from napari_drososeg.inference.conversion import ConversionError, convert

    notices = []
    network = network_of(ReducedTo, stride=16)
    with pytest.raises(ConversionError, match="different results for 'reducedto'"):
        convert(network)
    predictor = Predictor(network, PredictConfig(device="cpu"), notify=notices.append)
    assert "PyTorch" in predictor.description
    assert "PyTorch is used instead" in notices[0]
    with pytest.raises(DrososegError, match="Use the engine 'torch'"):
        Predictor(network, PredictConfig(device="cpu", engine="openvino"))
    with pytest.raises(DrososegError, match="Use another precision than int8"):
        predict(as_stack(texture[:1]), network, PredictConfig(precision="int8"))


def test_an_absurd_pixel_size_is_refused(tiny_network, texture):
    with pytest.raises(DrososegError, match="check its unit"):
        predict(as_stack(texture[:1], voxel_size=(None, 352778, 352778)), tiny_network, F32)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "tpu"}, "The device 'tpu' is not available; choose one of: auto, cpu"),
        ({"device": "cuda:99"}, "The device 'cuda:99' is not available"),
        ({"engine": "onnx"}, "Unknown engine 'onnx'"),
        ({"precision": "fp8"}, "Unknown precision 'fp8'"),
        ({"device": "cpu", "precision": "f16"}, "'f16' does not run on 'cpu'"),
        ({"device": "cpu", "engine": "torch", "precision": "int8"}, "'int8' needs OpenVINO"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(tiny_network, options, message):
    with pytest.raises(DrososegError, match=message):
        Predictor(tiny_network, PredictConfig(**options))


@pytest.mark.parametrize("options", [{"halo": -1}, {"halo": "all"}, {"tile": 0}, {"batch": -2}, {"pixel_size": 0.0}])
def test_senseless_settings_are_refused(options):
    with pytest.raises(DrososegError):
        PredictConfig(**options)


def test_unknown_sections_and_outputs_are_refused(tiny_network, texture):
    stack = as_stack(texture, name="cells")
    predictor = Predictor(tiny_network, F32)
    with pytest.raises(DrososegError, match="no section 3 in 'cells'; it has 0 to 2"):
        predictor.plan(stack, sections=[3])
    with pytest.raises(DrososegError, match="Unknown output 'confidence'"):
        predictor.run(stack, predictor.plan(stack), outputs={"confidence"})


def test_what_killed_programs_left_of_the_speeds_is_removed(tmp_path, monkeypatch):
    monkeypatch.setenv("DROSOSEG_CACHE", str(tmp_path))
    folder = estimates._file().parent
    folder.mkdir(parents=True, exist_ok=True)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left, own = (folder / f".speeds.json.{pid}.partial" for pid in (dead.pid, os.getppid()))
    for path in (left, own):
        path.write_text("{")
    estimates.remember("key", 1e-6)
    assert not left.exists()
    assert own.exists()  # another program is writing it
    assert estimates.recall("key") == 1e-6


def test_undecided_between_all_classes_is_one():
    even = np.full((3, 2, 2), 1 / 3, np.float32)
    even[:, 0, 0] = 0.5, 0.5, 0
    found = entropy(even)
    assert found[1, 1] == pytest.approx(1, abs=1e-3)
    assert found[0, 0] == pytest.approx(np.log(2) / np.log(3), abs=1e-3)


def test_a_stack_is_measured_all_over():
    """Sections and parts of them that differ count the same, wherever they are."""
    rng = np.random.default_rng(0)
    data = rng.normal(100, 10, (40, 64, 64)).astype(np.float32)
    data[16:] += 60
    reader = TileReader(as_stack(data), Normalisation(scope="stack"), PredictConfig(), print)
    found = reader.statistics(0)
    assert found.mean == pytest.approx(data.mean(), abs=2)
    assert found.std == pytest.approx(data.std(), rel=0.03)


def test_large_sections_are_sampled_all_over(monkeypatch):
    monkeypatch.setattr(reading, "WHOLE_SECTION", 1000)
    monkeypatch.setattr(reading, "SAMPLE_EDGE", 16)
    data = np.broadcast_to(np.linspace(0, 255, 256, dtype=np.float32), (1, 128, 256)).copy()
    found = TileReader(as_stack(data), Normalisation(), PredictConfig(), print).statistics(0)
    assert found.mean == pytest.approx(127.5, abs=10)


def test_a_converted_network_is_known_by_its_weights(tiny_network, tmp_path):
    copied, other = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    copied.write_bytes(tiny_network.read_bytes())
    assert cache_name(copied) == cache_name(tiny_network)
    other.write_bytes(tiny_network.read_bytes()[:-1] + b"x")
    assert cache_name(other) != cache_name(copied)
    copied.write_bytes(other.read_bytes())
    assert cache_name(other) == cache_name(copied)


@pytest.mark.parametrize(("size", "rescaled"), [(4.6, False), (5.2, False), (5.4, True), (4.1, False), (3.9, True)])
def test_pixel_sizes_are_rescaled_from_fifteen_per_cent_on(size, rescaled):
    assert (scale_for(size, 4.6) != 1) == rescaled
