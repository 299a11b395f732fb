"""The whole pipeline, from files to files, against the bare engine; and its memory. Run by `inference.py`.

``python whole_pipeline.py NETWORK FOLDER OUT REPEATS`` prints one line of JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from contestants import peak_bytes
from napari_drososeg.inference import PredictConfig, Predictor, write_behind
from napari_drososeg.inference.reading import TileReader
from napari_drososeg.io import Stack, open_labels_writer, read_stack


def from_files_to_files(predictor: Predictor, folder: Path, out: Path) -> float:
    """Predict a folder of sections into one TIFF; seconds."""
    start = time.perf_counter()
    stack = read_stack(folder)
    with open_labels_writer(out, stack.shape, "tiff", predictor.spec.classes) as writer:
        results = predictor.run(stack, predictor.plan(stack))
        for _ in write_behind(results, lambda r: writer.write(r.z, r.labels, r.slices)):
            pass
    return time.perf_counter() - start


def bare_engine(predictor: Predictor, stack: Stack) -> float:
    """Only the network, on sections that are already in memory and normalised; seconds."""
    reader = TileReader(stack, predictor.spec.normalisation, predictor.config, lambda _: None)
    tasks = predictor.plan(stack)
    engine = predictor.engine
    images = [reader.read(t.z, t.tile)[None, None] for t in tasks[:4]]  # enough that caches do not help
    start = time.perf_counter()
    for k in range(len(tasks)):
        engine.infer(images[k % len(images)], "labels")
    return time.perf_counter() - start


def main(network: str, folder: str, out: str, repeats: int) -> None:
    """Measure and print."""
    config = PredictConfig(device="cpu", batch=1)
    predictor = Predictor(network, config)
    stack = read_stack(folder)
    whole, bare = [], []
    if repeats:
        bare_engine(predictor, stack)  # compiles
    for _ in range(repeats):
        bare.append(bare_engine(predictor, stack))
        whole.append(from_files_to_files(predictor, Path(folder), Path(out)))
    if not repeats:  # memory only
        from_files_to_files(predictor, Path(folder), Path(out))
    print(
        json.dumps(
            {
                "description": predictor.description,
                "shape": stack.shape,
                "bare_seconds": bare,
                "whole_seconds": whole,
                "peak": peak_bytes(),
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
