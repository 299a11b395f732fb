"""A whole unattended job: a volume on disk, checked, segmented in blocks, interrupted, resumed, measured.

    python examples/unattended.py [FOLDER] [NETWORK]

It makes its own volume, so it needs no data. For your own, change SOURCE below; everything else stays.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import zarr

from napari_drososeg.batch import Batch, BatchConfig, plan_job
from napari_drososeg.inference import PredictConfig
from napari_drososeg.io import read_labels
from napari_drososeg.samples import synthetic_stack
from napari_drososeg.zoo import find_card


def main(folder: Path, network: str) -> None:
    """Do the job in a folder."""
    source, output, areas = folder / "volume.zarr", folder / "labels.zarr", folder / "areas.csv"
    if not source.exists():
        stack, _ = synthetic_stack((6, 300, 300), 0)
        sections = np.asarray(stack.data).copy()
        sections[4] = sections[3]  # a section that was imaged twice
        zarr.create_array(source, data=sections, chunks=(1, 128, 128))

    # What becomes what; wrong paths and outputs that would hurt the input are refused here.
    job = plan_job(source, str(output), None)
    config = BatchConfig(
        predict=PredictConfig(pixel_size=4.6, device="cpu"),
        block=(2, 128, 128),  # tiny, for this tiny volume; leave it out for yours
        areas=areas,
        workers=0,  # or how many processes, or scheduler="tcp://..." for a cluster
    )

    # Begin, and stop after five blocks, as a power cut would.
    batch = Batch(job, find_card(network), config, notify=print)
    batch.prepare()
    flight = batch.preflight()
    print(f"{flight.pixels / 1e6:.1f} Mpx, at most {flight.bytes_needed / 1e6:.1f} MB of labels")
    events = batch.run()
    for event in events:
        if event.finding is not None:
            print(f"section {event.finding.section}: {event.finding.kind}, {event.finding.detail}")
        if event.kind == "progress" and event.done == 5:
            break
    events.close()

    # Go on. Nothing that is done is done again, and the bytes are those of a run without a break.
    batch = Batch(job, find_card(network), replace(config, resume=True), notify=print)
    batch.prepare()
    for event in batch.run():
        if event.kind == "progress":
            print(f"{event.text} {event.done} of {event.total}")
        if event.outcome is not None:
            print(event.outcome.state, event.outcome.error or "")
            for row in event.outcome.areas:
                print(f"  {row['name']}: {100 * row['fraction']:.1f} %")

    labels = read_labels(output)
    print(f"{output}: {labels.shape} (z, y, x), areas in {areas}, record in {batch.manifest.path}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."), sys.argv[2] if len(sys.argv) > 2 else "unet")
