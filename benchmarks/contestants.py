"""The ways to segment a section that `inference.py` compares, each run in a process of its own.

Every one goes from a uint8 section in memory to uint8 labels, with the same weights, the same normalisation and the
same class decision. Started by `inference.py` as ``python contestants.py JSON``; then it answers each line on its
standard input with one line of JSON.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_drososeg.inference.memory import is_out_of_memory

Segment = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]

CONTESTANTS: dict[str, dict[str, Any]] = {
    "MONAI, defaults": {"kind": "monai", "overlap": 0.25, "mode": "constant"},
    "MONAI, 0.5 Gaussian": {"kind": "monai", "overlap": 0.5, "mode": "gaussian"},
    "torch, whole section": {"kind": "torch"},
    "ours, f32, exact halo": {"kind": "ours", "precision": "f32", "halo": "exact"},
    "ours, f32": {"kind": "ours", "precision": "f32", "halo": "default"},
    "ours, bf16, exact halo": {"kind": "ours", "precision": "bf16", "halo": "exact"},
    "ours, bf16": {"kind": "ours", "precision": "bf16", "halo": "default"},
    "ours, int8, exact halo": {"kind": "ours", "precision": "int8", "halo": "exact"},
    "ours, int8": {"kind": "ours", "precision": "int8", "halo": "default"},
}
REFERENCE = "torch, whole section"
BASELINE = "MONAI, defaults"
MONAI_ROI = (256, 256)
"""MONAI has no default for this; the size of the patches that the network was trained on."""


def peak_bytes() -> int:
    """Return the largest resident size of this process so far."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else size * 1024


def ours(network: str, calibration: NDArray[np.uint8], precision: str, halo: Any) -> Segment:
    """Our engine, as `drososeg predict` uses it; int8 is calibrated on the sections at hand."""
    from napari_drososeg.inference import PredictConfig, Predictor
    from napari_drososeg.io import as_stack

    predictor = Predictor(network, PredictConfig(device="cpu", precision=precision, halo=halo))

    def prepare() -> None:
        size = predictor.spec.pixel_size
        stack = as_stack(calibration, voxel_size=(None, size, size))
        next(predictor.run(stack, predictor.plan(stack)[:1]))

    if precision == "int8":
        prepare()

    def segment(section: NDArray[np.uint8]) -> NDArray[np.uint8]:
        size = predictor.spec.pixel_size
        stack = as_stack(section[None], voxel_size=(None, size, size))
        labels = np.empty(section.shape, np.uint8)
        for result in predictor.run(stack, predictor.plan(stack)):
            labels[result.slices] = result.labels
        return labels

    return segment


def with_torch(network: str, run: Callable[[Any, Any], Any]) -> Segment:
    """Plain torch: float32, NCHW; `run` maps (model, images) to logits."""
    import torch

    from napari_drososeg.checkpoint import load_model
    from napari_drososeg.data import measure, normalise
    from napari_drososeg.inference.engine import decide
    from napari_drososeg.zoo import find_network

    _, model = load_model(find_network(network))

    @torch.inference_mode()
    def segment(section: NDArray[np.uint8]) -> NDArray[np.uint8]:
        images = torch.from_numpy(normalise(section, measure(section)))[None, None]
        return decide(run(model, images)[0].numpy())

    return segment


def make(network: str, calibration: NDArray[np.uint8], kind: str, **options: Any) -> Segment:
    """Build one of `CONTESTANTS`."""
    if kind == "ours":
        return ours(network, calibration, **options)
    if kind == "torch":
        return with_torch(network, lambda model, images: model(images))
    from monai.inferers import SlidingWindowInferer

    inferer = SlidingWindowInferer(roi_size=MONAI_ROI, overlap=options["overlap"], mode=options["mode"])
    return with_torch(network, lambda model, images: inferer(images, model))


def serve(job: dict[str, Any]) -> None:
    """Answer requests: each names a section and, if labels are wanted, a file for them."""
    answers = sys.stdout
    sys.stdout = sys.stderr  # whatever libraries print is not an answer
    sections = np.load(job["sections"], mmap_mode="r")
    segment = make(job["network"], np.load(job["calibration"]), **job["options"])
    before = peak_bytes()
    for line in sys.stdin:
        request = json.loads(line)
        section = np.ascontiguousarray(sections[request["section"]])
        try:
            start = time.perf_counter()
            labels = segment(section)
            answer: dict[str, Any] = {"seconds": time.perf_counter() - start}
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            answer = {"error": "out of memory"}
        else:
            if request["labels"]:
                np.save(Path(request["labels"]), labels)
        answer |= {"peak": peak_bytes(), "loaded": before}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))
