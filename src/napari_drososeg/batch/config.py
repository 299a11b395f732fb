"""How a run goes, and what of that cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from napari_drososeg.batch.beside import check_beside, drawn_at, overlays_of, probabilities_of
from napari_drososeg.batch.executors import Executor, LocalWorkers, ThisProcess
from napari_drososeg.batch.plan import Item, Job, Part, guarded
from napari_drososeg.errors import DrososegError
from napari_drososeg.inference import PredictConfig
from napari_drososeg.io import atomic
from napari_drososeg.io.zarr_volume import check_block


@dataclass(frozen=True)
class BatchConfig:
    """How a run goes.

    Parameters
    ----------
    predict : PredictConfig
        How to predict.
    part : Part
        Which part of each stack.
    probabilities : Path, optional
        Zarr to write the probabilities of the one stack to, or folder for a zarr of each item of a folder.
    overlays : Path, optional
        Folder for pictures of the labels over the image: one of each section.
    areas : Path, optional
        CSV to write the area table to.
    block : tuple of int, optional
        (z, y, x) in px of the blocks that volumes are made in; see `napari_drososeg.io.zarr_volume.BLOCK`.
    check_sections : bool
        Whether to look for missing, repeated, shifted and contrast-jumping sections first.
    resume, overwrite : bool
        Go on with an earlier run, or replace what it made.
    workers : int
        Local processes; 0 is this process alone.
    scheduler : str, optional
        Address or file of the scheduler of a dask.distributed cluster.
    """

    predict: PredictConfig = field(default_factory=PredictConfig)
    part: Part = field(default_factory=Part)
    probabilities: Path | None = None
    overlays: Path | None = None
    areas: Path | None = None
    block: tuple[int, int, int] | None = None
    check_sections: bool = True
    resume: bool = False
    overwrite: bool = False
    workers: int = 0
    scheduler: str | None = None

    def check(self, job: Job) -> None:
        """Refuse, before any time is spent, what would be refused later.

        Raises
        ------
        DrososegError
            If outputs exist and nothing was said about it, cannot be written, or the choices do not go with the job.
        """
        again = self.resume or self.overwrite
        if not again:
            existing = [p for p in self.places(job) if p.exists() or p.is_symlink()]
            if existing:
                more = f" (and {len(existing) - 1} more)" if len(existing) > 1 else ""
                raise DrososegError(f"'{existing[0]}' exists{more}; use --overwrite, --resume or another output.")
        if job.folder is not None and len(job.items) > 1 and self.part != Part():
            raise DrososegError(
                "--sections and --roi select within one stack, but a folder as output means one stack per file; name "
                "an output file such as labels.tif."
            )
        check_beside(job, self.probabilities, self.overlays, replace=again, trust=self.resume)
        if self.areas is not None:
            if self.areas.suffix.lower() != ".csv" or self.areas.is_dir():
                raise DrososegError(f"Areas are written as .csv, not as '{self.areas.name}'.")
            for item in job.items:
                guarded(Item(item.source, self.areas))
        if self.block is not None and job.format != "ome-zarr":
            raise DrososegError("--block needs a .zarr output; other formats are written whole.")
        if self.block is not None:
            check_block(self.block)
        for folder in dict.fromkeys(path.parent for path in self.places(job)):
            if reason := atomic.unwritable(folder):
                raise DrososegError(f"{reason}; choose another output.")

    def places(self, job: Job) -> Iterator[Path]:
        """Iterate over everything that is written, as it is or would be called."""
        for item in job.items:
            yield item.written
            if (zarr := probabilities_of(job, item, self.probabilities)) is not None:
                yield zarr
            if self.overlays is not None:
                yield drawn_at(overlays_of(job, item, self.overlays))
        if self.areas is not None:
            yield self.areas

    def executor(self) -> Executor:
        """Return who is to do the tasks."""
        if self.scheduler is not None:
            from napari_drososeg.batch.cluster import DaskCluster

            return DaskCluster(self.scheduler)
        return LocalWorkers(self.workers) if self.workers else ThisProcess()
