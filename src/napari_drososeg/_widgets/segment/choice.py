"""What the Segment form says: networks, image, pixel size, and the job that follows from them."""

from __future__ import annotations

import contextlib
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from napari.layers import Image
from napari.qt.threading import create_worker
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QWidget

from napari_drososeg._widgets.controls import checks, pixel_size
from napari_drososeg._widgets.controls.fields import MARK
from napari_drososeg._widgets.layers.images import (
    image_problem,
    shape_of,
    shows_sections,
    stack_of,
    view_of,
    voxel_size_of,
)
from napari_drososeg._widgets.segment.form import Form
from napari_drososeg._widgets.work.job import Job, Scope, halo_of, read_pixels
from napari_drososeg.data.contrast import looks_inverted
from napari_drososeg.inference import PredictConfig
from napari_drososeg.io.units import not_square

if TYPE_CHECKING:
    import napari

    from napari_drososeg.checkpoint import NetworkSpec

REMEMBERED = ("scope", "device", "engine", "precision", "halo", "orientations", "probabilities", "uncertainty")
SEEN_OF_IMAGE = ("scale", "units", "metadata", "data")
"""Events of an image layer after which the form reads it again."""


TILE = 768
"""Longest edge of a tile on a CPU in px, halo included."""


class Choice(Form):
    """The form with its meaning: reads layers and networks, gives the job. Says nothing of runs.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer whose layers are read.
    """

    section = "segment"

    def __init__(self, viewer: napari.Viewer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.viewer = viewer
        self._image: Image | None = None
        self._inverted = False  # what is known of it
        self._judging = 0  # number of the last time that this was asked
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.setInterval(150)
        self._later.timeout.connect(self.altered)

    # ---------------------------------------------------------------- what is chosen

    def reset_choices(self, _event: Any = None) -> None:
        """Read the viewer's layers again. napari calls this when layers come, go or are renamed."""
        if self._closed:
            return
        self.image.reset_choices()
        if self.image.value is not self._image:
            self._image_changed()
        else:
            self.altered.emit()

    def _image_changed(self) -> None:
        image = self.image.value
        if image is self._image:
            return
        if self._image is not None:
            for name in SEEN_OF_IMAGE:
                with contextlib.suppress(TypeError, ValueError, RuntimeError):
                    getattr(self._image.events, name).disconnect(self._image_altered)
        self._image = image
        if image is not None:
            for name in SEEN_OF_IMAGE:
                getattr(image.events, name).connect(self._image_altered)
            self._fill_range()
        self._fill_pixel_size()
        self._judge_contrast()
        self.altered.emit()

    def _judge_contrast(self) -> None:
        """Find out in a thread whether the image looks inverted: it may have to be read from far away."""
        image, self._inverted = self._image, False
        self._judging += 1  # what is still asked of another image counts no longer
        if image is None or image_problem(image):
            return

        asked, there = self._judging, weakref.ref(image)  # Qt keeps what is connected longer than it is needed

        def judge() -> bool:
            with contextlib.suppress(Exception):  # an image that cannot be read: Segment says so
                return (found := there()) is not None and looks_inverted(stack_of(found))
            return False

        def judged(inverted: bool) -> None:
            if not self._closed and self._judging == asked:
                self._inverted = inverted
                self.altered.emit()

        worker = create_worker(judge, _start_thread=False)
        worker.returned.connect(judged)
        worker.start()

    @property
    def contrast_hint(self) -> str:
        """One line where the image looks inverted and is taken as it is, or is inverted and does not look so."""
        if self._inverted == self.invert.value:
            return ""
        if self.invert.value:  # perhaps for the image before; the field may be hidden
            return "Grey values are inverted for the network, as set under Advanced."
        return f"{MARK}The membranes look bright, not dark: if they are, tick 'Invert grey values' under Advanced."

    def _image_altered(self, event: Any) -> None:
        """Read again what the form took from the layer: it has another scale, unit, answered pixel size or data."""
        if self._closed:
            return
        if event.type == "data":
            self._fill_range()
            self._judge_contrast()
        else:
            if event.type != "metadata" and self._image is not None:
                pixel_size.restated(self._image)
            self._fill_pixel_size()
        self._look_later()

    def _fill_range(self) -> None:
        if self._image is not None and image_problem(self._image) is None:
            n = shape_of(self._image)[0]
            for field in (self.first, self.last):
                field.max = n - 1
            self.first.value, self.last.value = 0, n - 1

    def _fill_pixel_size(self) -> None:
        card = self.card
        guess = card.spec.pixel_size if card is not None and card.spec is not None else 0.0
        pixel_size.put_size(self.pixel_size, self._known_pixel_size() or guess)

    def _network_changed(self) -> None:
        if self._known_pixel_size() is None:
            self._fill_pixel_size()
        self.altered.emit()

    def _known_pixel_size(self) -> float | None:
        """Pixel size as the user or else the image says it."""
        if self._image is None or image_problem(self._image) is not None:
            return None
        return pixel_size.answered(self._image) or pixel_size.stated(self._image)

    def _pixel_size_changed(self) -> None:
        if self._image is not None and (self.pixel_size.value > 0 or pixel_size.stated(self._image)):
            pixel_size.answer(self._image, self.pixel_size.value)
        self.altered.emit()

    def config(self) -> PredictConfig:
        """How it is predicted, as the form says it."""
        return replace(super().config(), tile=tile_edge(self.card.spec if self.card else None, self.halo.value))

    def job(self, scope: Scope | None = None) -> Job | None:
        """Return what Run would do, or None where the form does not say it yet."""
        image, card = self._image, self.card
        if image is None or card is None or image_problem(image) or self.network_problem():
            return None
        scope = scope or self.scope.value
        n = shape_of(image)[0]
        view = view_of(self.viewer, image)
        sections = {
            Scope.STACK: range(n),
            Scope.RANGE: range(self.first.value, self.last.value + 1),
        }.get(scope, range(view.section, view.section + 1))
        outputs = {"labels"}
        if self.probabilities.value:
            outputs.add("probabilities")
        if self.uncertainty.value:
            outputs.add("entropy")
        return Job(
            network=str(card.path) if card.path is not None else card.name,
            network_name=card.name,
            sha256=card.sha256,
            config=self.config(),
            sections=tuple(sections),
            rect=view.rect if scope is Scope.VIEW else None,
            outputs=frozenset(outputs),
        )

    def _look_later(self, _event: Any = None) -> None:
        if not self._closed and not self._later.isActive():
            self._later.start()

    def _pixel_question(self) -> str | None:
        if self._image is None or image_problem(self._image) is not None:
            return None
        said, own = pixel_size.answered(self._image), pixel_size.stated(self._image)
        if said and own and abs(said - own) > 0.01 * own:
            return f"The image gives a pixel size of {own:g} nm; the value entered here is used instead. 0 restores it."
        if said or own:
            return None if said else not_square(voxel_size_of(self._image))
        return (
            f"The image does not give its pixel size. Is {self.pixel_size.value:g} nm right? You are asked once: "
            "Segment uses the value shown here."
        )

    def problems(self) -> dict[str, str]:
        """Fields that cannot work, with the reason."""
        card = self.card
        spec = card.spec if card is not None else None
        found = checks.problems(
            image=image_problem(self._image),
            network=self.network_problem(),
            scope=self.scope.value,
            first=self.first.value,
            last=self.last.value,
            flat_view=shows_sections(self.viewer),
            pixel_size=self.pixel_size.value,
            network_pixel_size=spec.pixel_size if spec is not None else None,
            device=self.device.value,
            engine=self.engine.value,
            precision=self.precision.value,
        )
        problem = self.probed.problem
        if problem and not {"device", "engine", "precision"} & set(found):
            found["device"] = problem
        return found

    # ---------------------------------------------------------------- what this machine can do

    def expected_seconds(self, job: Job) -> float | None:
        """How long a job would take on this machine, as far as it was measured before."""
        rate, card, image = self.probed.seconds_per_pixel, self.card, self._image
        if rate is None or card is None or card.spec is None or image is None:
            return None
        pixels = read_pixels(job, card.spec, shape_of(image))
        return None if pixels is None else pixels * rate


def tile_edge(spec: NetworkSpec | None, halo: str) -> int:
    """Edge of a tile, halo included, small enough that tiles stream in and Cancel is heard within about a second.

    With several orientations it is so many seconds: smaller tiles would read their halos more often.
    """
    if spec is not None and spec.tile:
        return spec.tile
    context = 0 if spec is None else halo_of(spec, halo)
    stride = 32 if spec is None else spec.stride
    edge = max(TILE if not checks.cuda_driver() else 2 * TILE, 4 * context + TILE // 2)
    return -(-edge // stride) * stride
