"""Unattended runs: many files, or a volume far larger than memory, on this machine or a cluster, restartable.

`plan_job` decides what becomes what; `Batch` does it and yields an `Event` for whatever happens. What is done is in the
`Manifest` beside the output, and nowhere else.
"""

from __future__ import annotations

from napari_drososeg.batch.config import BatchConfig
from napari_drososeg.batch.manifest import Manifest, manifest_path
from napari_drososeg.batch.outcomes import Event, Outcome
from napari_drososeg.batch.plan import Item, Job, Part, plan_job
from napari_drososeg.batch.preflight import Preflight
from napari_drososeg.batch.runner import Batch

__all__ = [
    "Batch",
    "BatchConfig",
    "Event",
    "Item",
    "Job",
    "Manifest",
    "Outcome",
    "Part",
    "Preflight",
    "manifest_path",
    "plan_job",
]
