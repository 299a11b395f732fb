"""The engine for processors: OpenVINO, in f32, bf16 or int8.

A checkpoint is converted once. What comes out lies in the cache folder under the hash of the checkpoint and the
version of OpenVINO, so that later predictions need no torch at all.
"""

from __future__ import annotations

import copy
import math
import shutil
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as ops

from napari_drososeg.checkpoint import load_model, load_spec, sha256
from napari_drososeg.inference.cache import cache_folder
from napari_drososeg.inference.engine import Output

CONVERSION = 2
"""Part of the cache's key: raise it when the conversion below changes."""

MAX_DIFFERENCE = 2e-3
"""Largest difference of logits that a conversion may show, relative to their largest value."""


class ConversionError(RuntimeError):
    """A network that OpenVINO cannot represent for images of any size."""


class OpenVinoEngine:
    """A converted network on the processor.

    Parameters
    ----------
    model : openvino.Model
        (N, 1, H, W) float32 -> logits (N, C, H, W), any size.
    precision : {"f32", "bf16"}
        Of what is not quantised.
    """

    on_cpu = True

    def __init__(self, model: ov.Model, precision: str) -> None:
        self._model = model
        self._precision = precision
        self._lock = threading.Lock()
        self._requests: dict[tuple[Output, tuple[int, ...]], ov.InferRequest] = {}
        self.bytes_per_pixel = activation_bytes(model) * (0.5 if precision == "bf16" else 1.0) * 1.5

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
            if len(self._requests) > 1:  # two are enough for what one run asks for; the rest would only hold memory
                self._requests.clear()
            model = with_labels(self._model) if output == "labels" else with_softmax(self._model)
            model.reshape(list(shape))
            hints = {
                "INFERENCE_PRECISION_HINT": self._precision,
                "PERFORMANCE_HINT": "LATENCY",
            }
            compiled = ov.Core().compile_model(model, "CPU", hints)
            self._requests[key] = compiled.create_infer_request()
        return self._requests[key]


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


def cache_name(checkpoint: Path) -> str:
    """Return what a converted checkpoint is kept under: it changes with the weights, OpenVINO and our conversion."""
    return f"{sha256(checkpoint)[:24]}-{version()}-{CONVERSION}"


def convert_elsewhere(checkpoint: Path) -> None:
    """Fill the cache for a checkpoint from a process of its own, if it is not there yet.

    Conversion needs torch, and importing torch holds Python's lock for seconds: in a thread of a program with windows
    they would all stand still. If it fails, `converted` tries again and says why.
    """
    if (_cache_folder(cache_name(checkpoint)) / "model.xml").exists():
        return
    code = f"import sys; from pathlib import Path; from {__name__} import converted; converted(Path(sys.argv[1]))"
    subprocess.run(
        [sys.executable, "-c", code, str(checkpoint)],
        check=False,
        capture_output=True,
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
    )


def converted(checkpoint: Path) -> ov.Model:
    """Return a checkpoint as an OpenVINO model with free batch and size, from the cache or converted now.

    Raises
    ------
    ConversionError
        If OpenVINO cannot represent the network, or gives other results than torch.
    """
    return cached(cache_name(checkpoint), lambda: convert(checkpoint))


def version() -> str:
    """Return OpenVINO's version number, fit for a file name."""
    return str(ov.__version__).split("-")[0]


def _cache_folder(name: str) -> Path:
    return cache_folder() / "openvino" / name


def cached(name: str, make: Callable[[], ov.Model]) -> ov.Model:
    """Return the model kept under `name`, or make it and keep it.

    Written to a temporary folder and renamed, so that two programs starting at once, or one that is killed, leave a
    whole model or none. Where the cache cannot be written the model is used all the same.
    """
    folder = _cache_folder(name)
    if (folder / "model.xml").exists():
        try:
            return ov.Core().read_model(folder / "model.xml")
        except RuntimeError:  # damaged by something else than us: make it again
            shutil.rmtree(folder, ignore_errors=True)
    model = make()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder.parent))
    except OSError:
        return model
    try:
        ov.save_model(model, temporary / "model.xml", compress_to_fp16=False)
        temporary.rename(folder)
    except (OSError, RuntimeError):  # disk full, or another program was first
        shutil.rmtree(temporary, ignore_errors=True)
    return model


def convert(checkpoint: Path) -> ov.Model:
    """Convert a checkpoint and check the result against torch at two sizes; see `converted`."""
    import torch

    from napari_drososeg.models.blocks import fold_upsampling

    spec, model = load_model(checkpoint)
    network = getattr(model, "network", model)  # without the padding to the stride, which tiles do not need
    stride = load_spec(checkpoint).stride
    example = torch.randn(1, 1, 8 * stride, 8 * stride, generator=torch.Generator().manual_seed(0))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tracing is deprecated in torch, but is what OpenVINO knows best
            folded = fold_upsampling(copy.deepcopy(network))
            result = ov.convert_model(folded, example_input=example, input=[-1, 1, -1, -1])
        compiled = ov.Core().compile_model(result, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        for height, width in ((8, 8), (6, 10)):
            images = torch.randn(2, 1, height * stride, width * stride)
            with torch.inference_mode():
                expected = network(images).numpy()
            found = compiled(images.numpy())[0]
            if not np.allclose(found, expected, rtol=0, atol=MAX_DIFFERENCE * np.abs(expected).max()):
                raise ConversionError(f"OpenVINO gives other results than torch for '{spec.name}'.")
    except ConversionError:
        raise
    except Exception as error:  # OpenVINO raises its own exceptions, without a common base
        raise ConversionError(f"OpenVINO cannot convert '{spec.name}' ({str(error).splitlines()[0]}).") from error
    return result
