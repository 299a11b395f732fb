"""How fast this processor could be at best: the rate of plain 3 x 3 convolutions, which nothing built of them exceeds.

    python benchmarks/ceiling.py

`inference.py` puts what it prints beside the speeds that are reached.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import time
from typing import Any

import numpy as np

from napari_drososeg.inference.config import cpu_has_bf16

CHANNELS, EDGE, LAYERS = 256, 128, 6
"""Wide enough to reuse each weight and pixel often, small enough for the cache."""


def convolutions(precision: str) -> Any:
    """Compile a stack of convolutions and ReLUs for the processor; returns an OpenVINO request."""
    import openvino as ov
    from openvino import opset13 as ops

    random = np.random.default_rng(0)
    shape = (1, CHANNELS, EDGE, EDGE)
    images = ops.parameter(shape, np.float32)
    node = images
    for _ in range(LAYERS):
        kernel = random.normal(0, (2 / (9 * CHANNELS)) ** 0.5, (CHANNELS, CHANNELS, 3, 3)).astype(np.float32)
        node = ops.relu(ops.convolution(node, ops.constant(kernel), [1, 1], [1, 1], [1, 1], [1, 1]))
    model = ov.Model([ops.result(node)], [images])
    if precision == "int8":
        import nncf

        data = nncf.Dataset([random.normal(size=shape).astype(np.float32) for _ in range(2)])
        with contextlib.redirect_stdout(io.StringIO()):  # it draws progress bars and cannot be asked not to
            model = nncf.quantize(model, data, subset_size=2)
    hints = {"INFERENCE_PRECISION_HINT": "f32" if precision == "f32" else "bf16", "PERFORMANCE_HINT": "LATENCY"}
    request = ov.Core().compile_model(model, "CPU", hints).create_infer_request()
    request.set_input_tensor(ov.Tensor(random.normal(size=shape).astype(np.float32)))
    return request


def best_rate(precision: str, seconds: float) -> float:
    """Return the best rate of such convolutions in multiplications with addition a second."""
    request = convolutions(precision)
    request.infer()
    best, end = float("inf"), time.perf_counter() + seconds
    while best == float("inf") or time.perf_counter() < end:
        start = time.perf_counter()
        request.infer()
        best = min(best, time.perf_counter() - start)
    return LAYERS * 9 * CHANNELS**2 * EDGE**2 / best


def macs_per_pixel(network: str, edge: int = 256) -> float:
    """Return how many multiplications with addition a network needs for each px of an image."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from napari_drososeg.checkpoint import load_model
    from napari_drososeg.zoo import find_network

    _, model = load_model(find_network(network))
    counter = FlopCounterMode(display=False)
    with counter, torch.inference_mode():
        model(torch.zeros(1, 1, edge, edge))
    return float(counter.get_total_flops()) / 2 / edge**2


def measure(network: str, seconds: float) -> dict[str, Any]:
    """Return the work of a network, and for each precision the rate of convolutions and the Mpx/s it would give."""
    macs = macs_per_pixel(network)
    precisions = ("f32", "bf16", "int8") if cpu_has_bf16() else ("f32", "int8")
    rates = {p: best_rate(p, seconds) for p in precisions}
    return {
        "macs_per_pixel": macs,
        "macs_per_second": rates,
        "mpx_per_second": {p: rate / macs / 1e6 for p, rate in rates.items()},
    }


def words(found: dict[str, Any]) -> str:
    """Say it in a sentence."""
    rates = ", ".join(
        f"{p} {rate / 1e9:.0f} billion a second ({found['mpx_per_second'][p]:.2f} Mpx/s)"
        for p, rate in found["macs_per_second"].items()
    )
    return (
        f"The network needs {found['macs_per_pixel'] / 1e3:.0f} thousand multiplications with addition for each px. "
        f"OpenVINO does nothing but 3 x 3 convolutions of {CHANNELS} channels at: {rates}."
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="unet")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each precision")
    options = parser.parse_args()
    print(words(measure(options.network, options.seconds)))


if __name__ == "__main__":
    main()
