"""The engine for processors: OpenVINO, in f32, bf16 or int8."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as ops

from napari_drososeg.inference.config import cpu_has_bf16
from napari_drososeg.inference.engine import Output


class OpenVinoEngine:
    """A converted network on the processor.

    Parameters
    ----------
    model : openvino.Model
        (N, 1, H, W) float32 -> logits (N, C, H, W), any size.
    precision : {"f32", "bf16"}
        Of what is not quantised.
    threads : int, optional
        Threads; all that there are unless given.
    both_ways : bool
        Whether every shape is also asked for with height and width exchanged.
    """

    on_cpu = True

    def __init__(self, model: ov.Model, precision: str, threads: int | None = None, *, both_ways: bool = False) -> None:
        self._model = model
        self._threads = threads
        self._precision = precision
        self._lock = threading.Lock()
        self._requests: dict[tuple[Output, tuple[int, ...]], ov.InferRequest] = {}
        self._ways = 2 if both_ways else 1
        # what is compiled for a shape keeps its memory while it is not running, too
        self.bytes_per_pixel = self._ways * activation_bytes(model) * (0.5 if precision == "bf16" else 1.0) * 1.5

    def infer(self, images: NDArray[np.float32], output: Output) -> NDArray[Any]:
        """Run the network; see `napari_drososeg.inference.engine.Engine`."""
        with self._lock:
            request = self._request(output, images.shape)
            request.infer([ov.Tensor(np.ascontiguousarray(images), shared_memory=True)])
            # a copy: the request's own buffer is overwritten by the next tile
            return np.array(request.get_output_tensor(0).data)

    def _request(self, output: Output, shape: tuple[int, ...]) -> ov.InferRequest:
        """Compile for a shape: as fast to do as it is for any shape, and the result needs less memory."""
        key = (output, shape)
        if key not in self._requests:
            # two (each way) are enough for what one run asks for; the rest would only hold memory
            if len(self._requests) >= 2 * self._ways:
                self._requests.clear()
            model = with_labels(self._model) if output == "labels" else with_softmax(self._model)
            model.reshape(list(shape))
            hints: dict[str, Any] = {
                "INFERENCE_PRECISION_HINT": self._precision,
                "PERFORMANCE_HINT": "LATENCY",
                # else every process binds its threads to the same cores, the first ones, and others idle
                "ENABLE_CPU_PINNING": False,
            }
            if self._threads is not None:
                hints["INFERENCE_NUM_THREADS"] = self._threads
            self._requests[key] = compile_model(model, hints).create_infer_request()
        return self._requests[key]


def compile_model(model: ov.Model, hints: dict[str, Any]) -> ov.CompiledModel:
    """Compile for the processor; where it has no bf16, without generated code for what lies between convolutions.

    With it, OpenVINO 2026.4 ends the whole process (a segmentation fault) when it compiles TransUNet on a processor
    without AVX-512; without it, all networks were found to be as fast there.
    """
    if cpu_has_bf16():
        return ov.Core().compile_model(model, "CPU", hints)
    try:
        return ov.Core().compile_model(model, "CPU", hints | {"SNIPPETS_MODE": "DISABLE"})
    except RuntimeError as error:
        if "SNIPPETS_MODE" not in str(error):
            raise
        return ov.Core().compile_model(model, "CPU", hints)  # a version that does not know this


def with_labels(model: ov.Model) -> ov.Model:
    """Return a copy of `model` that gives label values (N, H, W) uint8.

    A running maximum of elementwise operations, which OpenVINO fuses; its own argmax (TopK) sorts and is slow.
    """
    model = model.clone()
    scores = model.get_results()[0].input_value(0)
    n_classes = scores.get_partial_shape()[1].get_length()
    channels = ops.split(scores, ops.constant(1, np.int64), n_classes).outputs()
    best, labels = channels[0], ops.constant(np.float32(1.0))
    for k, channel in enumerate(channels[1:], start=2):
        labels = ops.select(ops.greater(channel, best), ops.constant(np.float32(k)), labels)
        best = ops.maximum(best, channel)
    if n_classes == 1:
        labels = ops.add(ops.multiply(channels[0], np.float32(0.0)), labels)
    return _ending_in(model, ops.squeeze(ops.convert(labels, np.uint8), ops.constant([1], np.int64)))


def with_softmax(model: ov.Model) -> ov.Model:
    """Return a copy of `model` that gives probabilities (N, C, H, W) float32."""
    model = model.clone()
    return _ending_in(model, ops.softmax(model.get_results()[0].input_value(0), 1))


def _ending_in(model: ov.Model, node: ov.Node) -> ov.Model:
    """Make `node` the only result of `model`."""
    model.remove_result(model.get_results()[0])
    model.add_results([ops.result(node)])
    return model


def activation_bytes(model: ov.Model, edge: int = 256) -> float:
    """Return the memory in bytes per input px that float32 activations take at the fullest moment.

    Walks through the network in its order, adding each result and dropping it after its last use.
    """
    model = model.clone()
    model.reshape([1, 1, edge, edge])
    nodes = [n for n in model.get_ordered_ops() if n.get_type_name() != "Constant"]
    sizes = {}
    for node in nodes:
        shape = node.get_output_partial_shape(0) if node.get_output_size() else None
        sizes[node.get_friendly_name()] = (
            4 * math.prod(shape.to_shape()) if shape is not None and shape.is_static else 0
        )
    last_use: dict[str, int] = {}
    for k, node in enumerate(nodes):
        for value in node.input_values():
            last_use[value.get_node().get_friendly_name()] = k
    alive = peak = 0
    for k, node in enumerate(nodes):
        alive += sizes[node.get_friendly_name()]
        peak = max(peak, alive)
        for name in {v.get_node().get_friendly_name() for v in node.input_values()}:
            if last_use[name] == k:
                alive -= sizes.get(name, 0)
    return peak / edge**2
