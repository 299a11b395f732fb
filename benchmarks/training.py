"""How fast the training core is against a bare loop of torch, on the same network, patches and number of steps.

    python benchmarks/training.py
    python benchmarks/training.py --width 1 --turns 12 --json training.json

The core trains as it does by default: cross entropy, mild augmentation, moving average of the weights, a log. The bare
loop is what one writes by hand: windows drawn and flipped by numpy, autocast to the same precision, channels
last, AdamW, cross entropy; no average, no log, no other augmentation. Both take turns of a few steps, so that a machine
that is slow for a while is slow for both; the median of the turns counts.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from napari_drososeg.data.sections import AnnotatedSection, annotated_section
from napari_drososeg.inference.config import processor_name
from napari_drososeg.models import create_model
from napari_drososeg.samples import synthetic_stack
from napari_drososeg.training import TrainConfig, Training, preferred_precision

GOAL = 0.95
DTYPES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def bare_loop(sections: Sequence[AnnotatedSection], config: TrainConfig, device: torch.device) -> Iterator[None]:
    """Train without end by a hand-written loop; yields after each step."""
    rng = np.random.default_rng(config.seed)
    torch.manual_seed(config.seed)
    model = create_model(config.architecture, config.n_classes, **config.arguments)
    model = model.to(device, memory_format=torch.channels_last).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    dtype = DTYPES.get(preferred_precision())
    edge = config.patch
    while True:
        images, labels = [], []
        for _ in range(config.batch):
            section = sections[rng.integers(len(sections))]
            y, x = (int(rng.integers(n - edge + 1)) for n in section.labels.shape)
            flip = (slice(None, None, rng.choice([-1, 1])), slice(None, None, rng.choice([-1, 1])))
            images.append(section.image[y : y + edge, x : x + edge][flip])
            labels.append(section.labels[y : y + edge, x : x + edge][flip])
        inputs = torch.from_numpy(np.stack(images)[:, None]).to(device, memory_format=torch.channels_last)
        targets = torch.from_numpy(np.stack(labels)).to(device).long() - 1
        optimiser.zero_grad()
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
            loss = functional.cross_entropy(model(inputs), targets, ignore_index=-1)
        loss.backward()
        optimiser.step()
        yield


def core(sections: Sequence[AnnotatedSection], config: TrainConfig, steps: int) -> Iterator[Any]:
    """Train by the core; yields after each `steps` steps."""
    with tempfile.TemporaryDirectory() as folder:
        yield from Training(sections, config, folder=Path(folder)).run(event_every=steps, validate_every=10**9)


def wait(device: torch.device) -> None:
    """Wait until the device has done all it was told to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def race(config: TrainConfig, turns: int, steps: int) -> dict[str, Any]:
    """Let both take turns; return the seconds of a step of each."""
    stack, truth = synthetic_stack((4, 1024, 1024))
    sections = [annotated_section(stack.read(z), truth[z], f"section {z}") for z in range(4)]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ours = core(sections, config, steps)
    bare = bare_loop(sections, config, device)
    seconds: dict[str, list[float]] = {"core": [], "bare": []}
    for turn in range(turns + 1):
        for name in ("core", "bare") if turn % 2 else ("bare", "core"):
            wait(device)
            begin = time.perf_counter()
            if name == "core":
                next(ours)
            else:
                for _ in range(steps):
                    next(bare)
            wait(device)
            if turn:  # the first one warms up
                seconds[name].append((time.perf_counter() - begin) / steps)
                print(f"turn {turn}: {name} {seconds[name][-1]:.3f} s a step", flush=True)
    return {name: median(values) for name, values in seconds.items()} | {"turns": seconds}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 1 if the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", default="unet")
    parser.add_argument("--width", type=float, default=0.5)
    parser.add_argument("--decoder-width", type=float, default=None)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--patch", type=int, default=256)
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--steps", type=int, default=4, help="of each turn")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    options = parser.parse_args(arguments)
    widths: dict[str, Any] = {"width": options.width}
    if options.decoder_width is not None:
        widths["decoder_width"] = options.decoder_width
    config = TrainConfig(
        architecture=options.architecture,
        arguments=widths,
        batch=options.batch,
        patch=options.patch,
        steps=(options.turns + 1) * options.steps + 1,
    )
    result = race(config, options.turns, options.steps)
    ratio = result["bare"] / result["core"]
    print(
        f"{options.architecture} {widths}, batch {options.batch} of {options.patch} px, {preferred_precision()}, "
        f"{processor_name()}, {os.cpu_count()} cores, torch {torch.__version__}\n"
        f"core {result['core']:.3f} s a step, bare loop {result['bare']:.3f} s a step, ratio {ratio:.3f} "
        f"(goal: at least {GOAL})"
    )
    if options.json:
        options.json.write_text(json.dumps(result | {"ratio": ratio, "options": vars(options)}, indent=2, default=str))
    return 0 if ratio >= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
