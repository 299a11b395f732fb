"""Volumes larger than memory: peak memory, throughput, workers, and what 100 workers would do with 1 TB.

    python benchmarks/volumes.py [--sizes 0.2 1 2] [--network unet] [--limit 300] [--folder /somewhere/large]

Writes synthetic volumes (zarr arrays of 4096 x 4096 px sections), predicts them with the command line in workers of one
thread each, and reads peak memory and times from the record. ``--limit`` bounds the Mpx predicted of each volume, by
choosing whole slabs of sections. Prints one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_drososeg.batch.manifest import Manifest, manifest_path
from napari_drososeg.inference import PredictConfig, Predictor
from napari_drososeg.inference.reading import TileReader
from napari_drososeg.io import as_stack, read_labels, read_stack
from napari_drososeg.io.zarr_volume import BLOCK

PROGRAM = "from napari_drososeg.cli import app; app()"
TERABYTE, MANY = 10**12, 100


def write_volume(path: Path, n_bytes: float, edge: int) -> tuple[int, int, int]:
    """Write a volume of about `n_bytes`: pieces of synthetic sections in ever other places."""
    import zarr

    from napari_drososeg.samples import synthetic_stack

    pieces = np.asarray(synthetic_stack((4, 512, 512), 0)[0].data)
    n_sections = max(1, round(n_bytes / edge**2))
    chunk = min(512, edge)
    array = zarr.create_array(
        path,
        shape=(n_sections, edge, edge),
        chunks=(1, chunk, chunk),
        dtype=np.uint8,
        attributes={"voxel_size": [50, 4.6, 4.6], "units": "nm"},
        dimension_names=("z", "y", "x"),
    )
    rng = np.random.default_rng(0)
    repeats = -(-edge // 512)
    for z in range(n_sections):
        section = np.tile(np.roll(pieces[z % 4], rng.integers(0, 512, 2), (0, 1)), (repeats, repeats))[:edge, :edge]
        array[z] = np.clip(section + rng.integers(-6, 7, section.shape), 1, 255).astype(np.uint8)
    return n_sections, edge, edge


def predict(source: Path, output: Path, workers: int, sections: int, options: argparse.Namespace) -> dict[str, Any]:
    """Predict with the command line; what it took."""
    command = [sys.executable, "-c", PROGRAM, "predict", str(source), "-o", str(output), "--overwrite", "--yes"]
    command += ["--model", options.network, "--workers", str(workers), "--threads", "1", "--quiet", "--device", "cpu"]
    command += ["--sections", f"0-{sections - 1}", "--block", ",".join(map(str, options.block)), "--no-check"]
    if options.engine:
        command += ["--engine", options.engine]
    start = time.perf_counter()
    subprocess.run(command, check=True)
    wall = time.perf_counter() - start
    manifest = Manifest(manifest_path(output, None))
    blocks = list(manifest.blocks[output.name].values())
    full = [b for b in blocks if b["level"] == 0 and b["counts"]]
    pixels = sum(sum(row) for b in full for row in b["counts"].values())
    seconds = sum(b["seconds"] for b in full)
    return {
        "workers": workers,
        "wall_seconds": wall,
        "pixels": pixels,
        "blocks": len(full),
        "levels_seconds": sum(b["seconds"] for b in blocks if b["level"]),
        "mpx_per_second_of_a_worker": pixels / seconds / 1e6,
        "busy": seconds / workers / wall,
        "overhead_seconds_per_block": max(0.0, wall - seconds / workers) / len(full),
        "peak_bytes_of_a_worker": max(b["peak_bytes"] for b in blocks),
        "tile": manifest.volumes[output.name]["tile"],
    }


def plain_engine(source: Path, options: argparse.Namespace) -> float:
    """Predict one section in memory with one thread, in the tiles that the engine chooses itself; Mpx/s."""
    predictor = Predictor(options.network, PredictConfig(device="cpu", engine=options.engine or "auto", threads=1))
    stack = read_stack(source)
    held = as_stack(np.stack([stack.read(0)]), voxel_size=stack.voxel_size)
    tasks = predictor.plan(held)
    list(predictor.run(held, tasks))  # compiles
    start = time.perf_counter()
    list(predictor.run(held, tasks))
    return held.shape[1] * held.shape[2] / (time.perf_counter() - start) / 1e6


def crop_is_equal(source: Path, output: Path, tile: int, options: argparse.Namespace) -> bool:
    """Compare the last block of section 0 with the same region predicted in memory."""
    predictor = Predictor(options.network, PredictConfig(device="cpu", engine=options.engine or "auto", threads=1))
    stack = read_stack(source)
    reader = TileReader(stack, predictor.spec.normalisation, predictor.config, str)
    roi = tuple(slice((n - 1) // b * b, n) for n, b in zip(stack.shape[1:], options.block[1:], strict=True))
    labels = read_labels(output)
    tasks = predictor.plan(stack, sections=[0], roi=(roi[0], roi[1]), tile=tile)
    found: list[NDArray[np.uint8]] = []
    for result in predictor.run(stack, tasks, statistics={0: reader.statistics(0)}):
        found.append(labels.read(0, *result.slices) == result.labels)
    return all(bool(each.all()) for each in found)


def estimate(one: dict[str, Any], per_block: float, block: tuple[int, int, int]) -> dict[str, float]:
    """Estimate `MANY` workers and 1 TB from one worker's speed and what a block costs the one that hands out work."""
    n_blocks = TERABYTE / np.prod(block)
    work = TERABYTE / 1e6 / one["mpx_per_second_of_a_worker"] / MANY
    client = n_blocks * per_block
    return {
        "blocks": float(n_blocks),
        "hours_of_the_workers": work / 3600,
        "hours_of_the_client": client / 3600,
        "efficiency": work / max(work, client),
        "workers_that_one_client_can_feed": float(TERABYTE / 1e6 / one["mpx_per_second_of_a_worker"] / client),
    }


def recording_seconds(folder: Path, n: int = 200) -> float:
    """Time to record a block, synced: all that is done one after the other, however many workers there are."""
    from napari_drososeg.batch.plan import Item

    manifest = Manifest(folder / "recording.jsonl")
    counts = {str(z): [1, 2, 3, 4] for z in range(16)}
    start = time.perf_counter()
    for k in range(n):
        manifest.note_block(
            Item(folder, folder / "x.zarr"), 0, (k, 0, 0), labels="0" * 32, file="0" * 32, counts=counts
        )
    return (time.perf_counter() - start) / n


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=float, nargs="+", default=[0.2, 1.0, 2.0], help="GB")
    parser.add_argument("--edge", type=int, default=4096, help="px of a section")
    parser.add_argument("--block", type=int, nargs=3, default=list(BLOCK))
    parser.add_argument("--limit", type=float, default=300, help="Mpx predicted of each volume at most")
    parser.add_argument("--network", default="unet")
    parser.add_argument("--engine", default="")
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        root = Path(temporary)
        results: dict[str, Any] = {"cores": os.cpu_count(), "volumes": []}
        for size in options.sizes:
            source = root / f"{size:g}.zarr"
            shape = write_volume(source, size * 1e9, options.edge)
            slab = options.block[0]
            wanted = max(1, int(options.limit * 1e6 / options.edge**2))
            sections = min(shape[0], max(slab, wanted // slab * slab))
            output = root / f"{size:g}-labels.zarr"
            found = predict(source, output, 1, sections, options)
            equal = crop_is_equal(source, output, found["tile"], options)
            results["volumes"].append({"gigabytes": size, "shape": shape, "crop_is_equal": equal, **found})
        one = results["volumes"][0]
        source = root / f"{options.sizes[0]:g}.zarr"
        sections = one["pixels"] // options.edge**2
        results["two_workers"] = two = predict(source, root / "two.zarr", 2, sections, options)
        results["efficiency_of_two"] = two["pixels"] / two["wall_seconds"] / (2 * one["pixels"] / one["wall_seconds"])
        results["plain_engine_mpx_per_second"] = plain = plain_engine(source, options)
        results["worker_over_plain_engine"] = one["mpx_per_second_of_a_worker"] / plain
        results["recording_seconds_per_block"] = recording = recording_seconds(root)
        results["estimate_100_workers_1_TB"] = estimate(one, recording, tuple(options.block))
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
