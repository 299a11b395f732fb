"""What the Batch form says: the job that follows from it, and what a thread found out about its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari.qt.threading import create_worker
from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import QWidget

from napari_drososeg._widgets.batch.file_table import printable
from napari_drososeg._widgets.batch.form import BatchForm
from napari_drososeg._widgets.batch.job import BatchJob, clean_path
from napari_drososeg._widgets.batch.outlook import Outlook, look_at
from napari_drososeg._widgets.controls import checks
from napari_drososeg._widgets.controls.fields import MARK
from napari_drososeg._widgets.work.job import duration

REMEMBERED = (
    "source", "output", "files", "pattern", "subfolders", "form", "areas", "overlays", "device", "engine",
    "precision", "halo", "orientations", "workers", "check_sections",
)  # fmt: skip
"""What belongs to the images, such as their pixel size, is not; the folders are, so that a run can be gone on with. Nor
is what becomes of finished outputs: *redo all* would replace them the next day, when the rest is wanted."""

EMPTY = "Choose a folder of images."
LOOK_MS = 300


class BatchChoice(BatchForm):
    """The form with its meaning. Says nothing of runs.

    Signals
    -------
    looked
        `outlook` is about what the form says.
    """

    looked = Signal()
    section = "batch"

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.outlook: Outlook | None = None
        self.looked_job: BatchJob | None = None
        """What `outlook` is about; it counts while this is what the form says."""
        self.shown_job: BatchJob | None = None
        """What the table shows."""
        self._looking: BatchJob | None = None
        self._failed_look = ""
        self._proposed = ""
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.setInterval(LOOK_MS)
        self._later.timeout.connect(self._look)

    def _restore(self) -> None:
        self.restore(REMEMBERED)
        self._proposed = proposed_output(self.source.value)

    def _remember(self, _changed: Any = None) -> None:
        self.remember(REMEMBERED)

    # ---------------------------------------------------------------- what is chosen

    def job(self) -> BatchJob | None:
        """Return what Run would do, or None where the form does not say it yet."""
        source, output = clean_path(self.source.value), clean_path(self.output.value)
        if not source or not output or self.network_problem():
            return None
        one_stack = bool(self.files.value)
        return BatchJob(
            source=source,
            output=output,
            network=self.network.value,
            form=self.form.value,
            pattern="*" if one_stack else self.pattern.value.strip() or "*",
            subfolders=bool(self.subfolders.value) and not one_stack,
            one_stack=one_stack,
            areas=bool(self.areas.value),
            probabilities=bool(self.probabilities.value),
            overlays=bool(self.overlays.value),
            overwrite=bool(self.existing.value),
            check_sections=bool(self.check_sections.value),
            workers=int(self.workers.value),
            predict=self.config(),
        )

    def problems(self) -> dict[str, str]:
        """Fields that cannot work, with the reason, in the order of the form."""
        found: dict[str, str | None] = dict.fromkeys(self.fields)
        found["network"] = self.network_problem()
        device, engine, precision = self.device.value, self.engine.value, self.precision.value
        found["device"] = checks.device_problem(device)
        found["engine"] = checks.engine_problem(engine, device)
        found["precision"] = checks.precision_problem(precision, engine, device)
        spec = self.card.spec if self.card is not None else None
        if self.pixel_size.value:
            found["pixel_size"] = checks.pixel_size_problem(
                self.pixel_size.value, spec.pixel_size if spec is not None else None
            )
        if not any(found[n] for n in ("device", "engine", "precision")):
            found["device"] = self.probed.problem
        if not self.source.value.strip():
            found["source"] = EMPTY
        elif not self.output.value.strip():
            found["output"] = "Choose a folder for the labels."
        elif self.outlook is not None and self.looked_job == self.job():
            found |= self.outlook.problems
        elif self._failed_look:
            found["source"] = self._failed_look
        return {name: reason for name, reason in found.items() if reason}

    def _propose_output(self) -> None:
        """Put the labels beside the images, as long as the user has not said another place."""
        if self.output.value.strip() in ("", self._proposed):
            self._proposed = proposed_output(self.source.value)
            self.output.value = self._proposed

    # ---------------------------------------------------------------- what is there

    def look_soon(self, _changed: Any = None) -> None:
        """Look at the files once the user has stopped typing."""
        if not self._closed:
            self._failed_look = ""
            self.altered.emit()
            self._later.start()

    def _look(self) -> None:
        """Find out about the files in a worker thread; one at a time, a folder may have thousands."""
        job, card = self.job(), self.card
        if self._closed or self._looking is not None or job is None or card is None:
            return
        self._looking = job
        worker = create_worker(look_at, job, card, _start_thread=False)
        worker.returned.connect(self._looked)  # methods, which Qt disconnects when the widget goes
        worker.errored.connect(self._look_failed)
        worker.finished.connect(self._look_ended)
        worker.start()

    def _looked(self, outlook: Outlook) -> None:
        self.outlook, self.looked_job = outlook, self._looking

    def _look_failed(self, error: Exception) -> None:
        self.outlook, self.looked_job = None, None
        self._failed_look = f"The input cannot be read: {error}"

    def _look_ended(self) -> None:
        job, self._looking = self._looking, None
        if self._closed:
            return
        if job != self.job():  # something else was chosen meanwhile
            self._later.start()
        else:
            self.looked.emit()

    # ---------------------------------------------------------------- what is said of it

    def _show_texts(self) -> None:
        self.summary.value = self._summary()
        self.summary.visible = bool(self.summary.value)
        self.show_card()

    def _summary(self) -> str:
        """Say how many files there are, how large they are and how long they will take."""
        job, outlook = self.job(), self.outlook
        if job is None:
            return ""
        if outlook is None or self.looked_job != job:
            return "" if self._failed_look else "Reading the folder …"
        n, rate = len(outlook.rows), self.probed.seconds_per_pixel
        if not n:
            return ""
        parts = ["1 stack" if job.one_stack else f"{n:,} file{'s' if n > 1 else ''}"]
        parts += [f"{outlook.n_done:,} done"] if outlook.n_done else []
        parts += [size_in_words(outlook.n_bytes)] if outlook.n_bytes else []
        if outlook.n_done == n:
            parts.append("nothing left to do")
        elif rate is None:
            parts.append("time unknown until this network has run on this machine")
        elif outlook.pixels is not None:  # else none of the headers that were read is readable
            parts.append(f"about {duration(rate * outlook.pixels / max(1, job.workers))}")
        lines = [", ".join(parts)]
        spec = self.card.spec if self.card is not None else None
        if outlook.sizes_unknown and spec is not None:
            size = f"the network's {spec.pixel_size:g} nm is used"
            lines.append(f"{MARK}The files do not give a pixel size: {size}, unless set under Advanced.")
        if outlook.left_out:
            n = len(outlook.left_out)
            lines.append(f"left out: {n} other{'s' if n > 1 else ''}, such as {printable(outlook.left_out[0])}")
        return "\n".join(lines)


def size_in_words(n_bytes: int) -> str:
    """Write a size on disk, for example ``13 MB``."""
    for factor, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if n_bytes >= factor:
            return f"{n_bytes / factor:.3g} {unit}"
    return f"{n_bytes / 1e3:.0f} kB"


def proposed_output(source: str) -> str:
    """Return a folder for the labels of a folder or file of images, beside it."""
    path = clean_path(source)
    if not path or not Path(path).name:
        return ""
    place = Path(path)
    name = place.name.split(".")[0] if place.suffix else place.name
    return str(place.with_name(f"{name}-labels"))
