"""The run record that a result layer carries in its metadata: plain values, ready for JSON. No Qt here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

import napari_drososeg

if TYPE_CHECKING:
    from napari_drososeg._widgets.work.job import Job
    from napari_drososeg.checkpoint import NetworkSpec


def run_record(
    job: Job,
    spec: NetworkSpec,
    *,
    image: str,
    sections: Sequence[int],
    seconds: float,
    description: str,
    notices: Sequence[str],
    time: datetime | None,
) -> dict[str, Any]:
    """Say how labels were made.

    Parameters
    ----------
    job : Job
        The last run.
    spec : NetworkSpec
        Its network.
    image : str
        Name of the image layer.
    sections : sequence of int
        Sections that are finished whole.
    seconds : float
        Time of all runs into this layer together.
    description : str
        Device, engine and precision that were used.
    notices : sequence of str
        What the engine had to say.
    time : datetime or None
        When the last run ended, None while it runs.

    Returns
    -------
    dict
        Strings, numbers, lists and dictionaries only.
    """
    return {
        "image": image,
        "network": spec.name,
        "title": spec.title,
        "sha256": job.sha256,
        "licence": spec.licence,
        "classes": spec.classes.to_list(),
        "config": asdict(job.config),
        "sections_done": list(sections),
        "seconds": round(seconds, 2),
        "description": description,
        "notices": list(notices),
        "time": time.isoformat(timespec="seconds") if time else None,
        "version": napari_drososeg.__version__,
    }
