from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_drososeg.inference import PredictConfig, Predictor
from napari_drososeg.inference.engine import decide
from napari_drososeg.inference.orientations import averaging_bytes
from napari_drososeg.io import as_stack

pytest.importorskip("openvino")
INT8 = PredictConfig(device="cpu", engine="openvino", precision="int8")


def test_int8_agrees_with_f32_and_is_calibrated_once_per_stack(tiny_network, texture, inference_cache):
    pytest.importorskip("nncf")
    stack = as_stack(texture, voxel_size=(50, 4.6, 4.6))
    exact = Predictor(tiny_network, PredictConfig(device="cpu", engine="openvino", precision="f32"))
    told: list[str] = []
    labels = {}
    for name, predictor in (("f32", exact), ("int8", Predictor(tiny_network, INT8, notify=told.append))):
        labels[name] = np.zeros(stack.shape, np.uint8)
        for r in predictor.run(stack, predictor.plan(stack)):
            labels[name][r.z, *r.slices] = r.labels
    assert predictor.description == "CPU, OpenVINO, int8"
    assert len(told) == 1  # said once that it takes a while
    assert np.mean(labels["int8"] == labels["f32"]) > 0.97
    assert not list(inference_cache.rglob("patches.npz"))
    quantised = {n.get_type_name() for n in predictor.engine._model.get_ops()}
    assert "FakeQuantize" in quantised
    again: list[str] = []
    predictor = Predictor(tiny_network, INT8, notify=again.append)
    next(predictor.run(stack, predictor.plan(stack)))
    assert again == []  # from the cache
    turned = Predictor(tiny_network, replace(INT8, orientations=8), notify=again.append)
    assert turned.bytes_per_pixel() == 2 * Predictor(tiny_network, INT8).bytes_per_pixel() + averaging_bytes(3)
    next(turned.run(stack, turned.plan(stack)))
    assert again == []  # one quantised network serves all orientations


def test_int8_labels_do_not_hang_on_what_was_predicted_before(tiny_network, texture, inference_cache):
    pytest.importorskip("nncf")
    first = as_stack(texture, voxel_size=(50, 4.6, 4.6))
    second = as_stack((texture[:1, ::-1].astype(np.float32) ** 3 / 2**16).astype(np.uint8), voxel_size=(50, 4.6, 4.6))

    def probabilities(predictor, stack):
        result = next(predictor.run(stack, predictor.plan(stack), outputs={"probabilities"}))
        return result.probabilities

    alone, after, once = (Predictor(tiny_network, INT8) for _ in range(3))
    expected = probabilities(alone, second)
    edge = after.plan(first)
    probabilities(after, first)
    np.testing.assert_array_equal(probabilities(after, second), expected)
    assert after.plan(first) == edge  # tiles do not change once it is calibrated
    once.calibrate(once.calibration_patches(first))  # as a run over many files wants it
    assert not np.array_equal(probabilities(once, second), expected)


def test_class_decision_is_argmax():
    scores = np.random.default_rng(0).integers(0, 3, (5, 40, 50)).astype(np.float32)  # with many equals
    np.testing.assert_array_equal(decide(scores), scores.argmax(0) + 1)


@pytest.mark.parametrize("n_classes", [1, 2, 5])
def test_class_decision_in_the_openvino_graph_is_argmax(n_classes):
    import openvino as ov
    from openvino import opset13 as ops

    from napari_drososeg.inference.openvino_engine import with_labels

    scores = np.random.default_rng(0).integers(0, 3, (2, n_classes, 24, 31)).astype(np.float32)
    data = ops.parameter([-1, n_classes, -1, -1], np.float32)
    model = with_labels(ov.Model([ops.relu(data)], [data]))
    found = ov.Core().compile_model(model, "CPU")(scores)[0]
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, scores.argmax(1) + 1)
