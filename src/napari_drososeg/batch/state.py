"""What a run knows: which inputs are done, what is to be done, with which network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from napari_drososeg.batch.beside import drawn_at, overlays_of, probabilities_of
from napari_drososeg.batch.config import BatchConfig
from napari_drososeg.batch.inspection import Opened, open_item
from napari_drososeg.batch.manifest import Manifest, manifest_path
from napari_drososeg.batch.outcomes import Outcome, State, areas_of
from napari_drososeg.batch.overlays import check_drawable
from napari_drososeg.batch.plan import Item, Job
from napari_drososeg.batch.preflight import Preflight, look_ahead
from napari_drososeg.batch.volume import partial_path
from napari_drososeg.errors import DrososegError
from napari_drososeg.inference import Predictor
from napari_drososeg.io import Stack, read_stack
from napari_drososeg.zoo import NetworkCard


class BatchState:
    """What a run knows before, while and after it is done.

    Parameters
    ----------
    job : Job
        What to do.
    card : NetworkCard
        With which network; it is on this machine.
    config : BatchConfig
        How.
    notify : callable
        Told, in one sentence each, of what a user should know.

    Attributes
    ----------
    outcomes : dict
        What became of each item, by its target; complete after `run`.
    waiting : list of Item
        What is to be predicted, known after `prepare`.
    undrawn : list of Item
        Whose labels are done, and whose overlays are to be drawn; known after `prepare`.
    fixed : dict
        Engine, precision, halo in px, memory in bytes and what int8 is calibrated on, that an earlier run fixed and
        this one keeps to.
    """

    def __init__(self, job: Job, card: NetworkCard, config: BatchConfig, notify: Callable[[str], None]) -> None:
        self.job = job
        self.card = card
        self.config = config
        self.manifest = Manifest(manifest_path(job.items[0].target, job.folder))
        self.outcomes: dict[Path, Outcome] = {}
        self.waiting: list[Item] = list(job.items)
        self.undrawn: list[Item] = []
        self.notify = notify
        self.fixed: dict[str, Any] = {}
        self._asked = config.predict
        self._predictor: Predictor | None = None

    @property
    def description(self) -> str:
        """What it runs on, such as ``"CPU, OpenVINO, bf16"``; empty before the network is loaded."""
        return self._predictor.description if self._predictor is not None else ""

    def settings(self) -> dict[str, Any]:
        """Return what decides about the result, in the words of the options."""
        part, predict = self.config.part, self._asked
        roi = part.roi
        return {
            "network": f"{self.card.name} ({self.card.sha256[:12]})",
            "--format": self.job.format,
            "--sections": None if part.sections is None else ",".join(map(str, part.sections)),
            "--roi": None if roi is None else f"{roi[0].start}:{roi[0].stop},{roi[1].start}:{roi[1].stop}",
            "--block": None if self.config.block is None else ",".join(map(str, self.config.block)),
            **{
                f"--{name.replace('_', '-')}": getattr(predict, name)
                for name in ("precision", "halo", "orientations", "tile", "pixel_size", "invert", "fill_nan")
            },
        }

    def prepare(self, ask_pixel_size: Callable[[Stack], float | None] | None = None) -> None:
        """Find what is to be done and load the network; nothing is written.

        Parameters
        ----------
        ask_pixel_size : callable, optional
            Asked for the pixel size in nm of the one stack, where nobody knows it.

        Raises
        ------
        DrososegError
            If an earlier run cannot be gone on with, the one input cannot be read, or the network cannot run here.
        """
        if self.config.resume:
            self.manifest.check(self.settings())
            self._take_over()
        config = self.config
        begun = config.resume and bool(self.manifest.run)
        if config.resume:
            known = [(i, self.has_labels(i), self.has_overlays(i)) for i in self.job.items]
            self.waiting = [i for i, labels, _ in known if not labels]
            self.undrawn = [i for i, labels, overlays in known if labels and not overlays]
            self.outcomes = {i.target: self.outcome(i, "skipped") for i, *both in known if all(both)}
        elif left := [p for i in self.waiting if (p := partial_path(i.target)).is_dir() and not config.overwrite]:
            raise DrososegError(
                f"'{left[0]}' was left by an interrupted run; use --resume to continue it, or --overwrite."
            )
        if not (self.waiting or self.undrawn):
            return
        if len(self.job.items) == 1:  # what is wrong with the only stack shows at once, before the network is loaded
            stack = read_stack(self.job.items[0].source)
            config.part.check(stack)
            if config.overlays is not None:
                check_drawable(stack, config.part)
            unknown = stack.pixel_size is None and config.predict.pixel_size is None
            if unknown and ask_pixel_size is not None and not begun:  # what is done was made without an answer
                size = ask_pixel_size(stack)
                self._asked = replace(self._asked, pixel_size=size)
                self.config = replace(config, predict=replace(config.predict, pixel_size=size))
        assert self.card.path is not None  # find_card has downloaded it
        apart = len(self.job.items) > 1 or self.job.format == "ome-zarr" or config.workers or config.scheduler
        self._predictor = Predictor(self.card.path, self.config.predict, notify=self.notify, fixed=bool(apart))

    def preflight(self) -> Preflight:
        """Return what `run` will take; after `prepare`."""
        opened, undrawn = self.opened(self.waiting), self.opened(self.undrawn)
        return look_ahead(opened, undrawn, len(self.outcomes), self.job, self.config, self.card, self._predictor)

    def opened(self, items: Sequence[Item]) -> list[Opened | str]:
        """Open inputs; a text says why one cannot be."""
        part, size, overlays = self.config.part, self.config.predict.pixel_size, self.config.overlays is not None
        return [open_item(i, part, size, overlays=overlays) for i in items]

    def has_labels(self, item: Item) -> bool:
        """Whether the labels of an item, and its probabilities where they are wanted, are done; see `Manifest`."""
        return self.manifest.is_done(item, probabilities_of(self.job, item, self.config.probabilities))

    def has_overlays(self, item: Item) -> bool:
        """Whether the overlays of an item are done, or none are wanted; see `Manifest`."""
        folder = self.config.overlays
        return folder is None or self.manifest.are_drawn(item, drawn_at(overlays_of(self.job, item, folder)))

    def _take_over(self) -> None:
        """Take engine, precision and halo of the earlier run, so that its results and those to come fit."""
        fixed = self.manifest.run.get("fixed")
        if not fixed:
            return
        predict = self.config.predict
        if predict.engine not in ("auto", fixed["engine"]):
            raise DrososegError(
                f"--resume would mix two kinds of results: --engine was {fixed['engine']}, now {predict.engine}. "
                "Use the earlier one, another output, or --overwrite to start again."
            )
        taken = {name: fixed[name] for name in ("engine", "precision", "halo")}
        self.config = replace(self.config, predict=replace(predict, **taken))
        self.fixed = dict(fixed)

    def outcome(self, item: Item, state: State, **more: Any) -> Outcome:
        """Return the outcome of an item; what is done as the manifest has it."""
        entry = self.manifest.items.get(self.manifest.name(item), {})
        counts = {int(z): row for z, row in entry.get("counts", {}).items()}
        size = tuple(entry.get("voxel_size", (None, None, None)))
        shape = tuple(entry["shape"]) if state in ("done", "skipped") and "shape" in entry else None
        if state not in ("done", "skipped") or self.card.spec is None:
            return Outcome(item.source, item.target, state, **more)
        areas = areas_of(counts, self.card.spec.classes, size)
        target = item.target.with_name(Path(entry["written"]).name) if "written" in entry else item.target
        return Outcome(item.source, target, state, shape=shape, counts=counts, voxel_size=size, areas=areas, **more)
