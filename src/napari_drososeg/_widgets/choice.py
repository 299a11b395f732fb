"""What the Segment form says: networks, image, pixel size, and the job that follows from them."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari.layers import Image
from napari.qt.threading import create_worker
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QWidget

from napari_drososeg._widgets import checks, preferences
from napari_drososeg._widgets.form import Form
from napari_drososeg._widgets.job import Job, Scope, halo_of, read_pixels
from napari_drososeg._widgets.layers import image_problem, shape_of, view_of, voxel_size_of
from napari_drososeg.errors import DrososegError
from napari_drososeg.inference import PredictConfig, accelerators, choose, estimate_seconds
from napari_drososeg.zoo import DEFAULT_NETWORK, NetworkCard, list_networks

if TYPE_CHECKING:
    import napari

    from napari_drososeg.checkpoint import NetworkSpec

REMEMBERED = ("scope", "device", "engine", "precision", "halo", "probabilities", "uncertainty")
PIXEL_SIZE_KEY = "drososeg_pixel_size"
"""Key in an image layer's metadata under which the user's answer is kept: it belongs to the image."""


NO_NETWORK = "There is no network; install the package again or add one."
TILE = 768
"""Longest edge of a tile on a CPU in px, halo included."""


class Life:
    """Whether a widget is at its end; outlives the Qt object, for what comes back from threads afterwards."""

    over = False


class Choice(Form):
    """The form with its meaning: reads layers and networks, gives the job. Says nothing of runs.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer whose layers are read.
    """

    def __init__(self, viewer: napari.Viewer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.viewer = viewer
        self.cards: list[NetworkCard] = []
        self._image: Image | None = None
        life = self._life = Life()
        self.destroyed.connect(lambda: setattr(life, "over", True))  # not a method: it would be gone by then
        self._probes: dict[tuple[str, str, str, str] | None, Probe] = {}
        self._zoo_problem: str | None = None
        self._wanted_device: str | None = None  # remembered, but not known to be here yet
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.setInterval(150)
        self._later.timeout.connect(self.update_state)

    @property
    def _closed(self) -> bool:
        return self._life.over

    def update_state(self) -> None:
        """Bring marks, texts and buttons up to date with what is chosen."""
        raise NotImplementedError

    def load_networks(self) -> None:
        """Read the list of networks again."""
        try:
            self.cards = list_networks()
            self._zoo_problem = None if self.cards else NO_NETWORK
        except DrososegError as error:
            self.cards, self._zoo_problem = [], str(error)
        except (OSError, ValueError, KeyError, TypeError) as error:  # a registry cut short, a folder without rights
            self.cards, self._zoo_problem = [], f"The list of networks cannot be read ({error}). {NO_NETWORK}"
        chosen = self.network.value
        self.network.choices = [(card.title, card.name) for card in self.cards]
        names = [card.name for card in self.cards]
        for name in (chosen, preferences.load("segment").get("network"), DEFAULT_NETWORK):
            if name in names:
                self.network.value = name
                break

    def _restore(self) -> None:
        for name, value in preferences.load("segment").items():
            if name in REMEMBERED:
                # a choice of an older version, or of another machine
                try:
                    getattr(self, name).value = Scope(value) if name == "scope" else value
                except (ValueError, TypeError):
                    if name == "device" and isinstance(value, str):
                        self._wanted_device = value  # the probe says whether it is here

    def _remember(self, _changed: Any = None) -> None:
        before = preferences.load("segment")
        choices = {name: getattr(self, name).value for name in REMEMBERED}
        if self._wanted_device is not None:
            choices["device"] = self._wanted_device
        if self.network.value is not None:
            choices["network"] = self.network.value
        if {**before, **choices} != before:
            preferences.save("segment", {**before, **choices})

    # ---------------------------------------------------------------- what is chosen

    @property
    def card(self) -> NetworkCard | None:
        """The chosen network."""
        return next((c for c in self.cards if c.name == self.network.value), None)

    def reset_choices(self, _event: Any = None) -> None:
        """Read the viewer's layers again. napari calls this when layers come, go or are renamed."""
        if self._closed:
            return
        self.image.reset_choices()
        if self.image.value is not self._image:
            self._image_changed()
        else:
            self.update_state()

    def _image_changed(self) -> None:
        image = self.image.value
        if image is self._image:
            return
        if self._image is not None:
            with contextlib.suppress(TypeError, ValueError, RuntimeError):
                self._image.events.disconnect(self._image_altered)
        self._image = image
        if image is not None:
            for name in ("scale", "units", "data"):
                getattr(image.events, name).connect(self._image_altered)
            self._fill_range()
        self._fill_pixel_size()
        self.update_state()

    def _image_altered(self, event: Any) -> None:
        """Read again what the form took from the layer: it has another scale, unit or data."""
        if self._closed:
            return
        if event.type == "data":
            self._fill_range()
        else:
            self._fill_pixel_size()
        self._look_later()

    def _fill_range(self) -> None:
        if self._image is not None and image_problem(self._image) is None:
            n = shape_of(self._image)[0]
            for field in (self.first, self.last):
                field.max = n - 1
            self.first.value, self.last.value = 0, n - 1

    def _fill_pixel_size(self) -> None:
        known = self._known_pixel_size()
        answered = self._image.metadata.get(PIXEL_SIZE_KEY) if self._image is not None else None
        card = self.card
        guess = card.spec.pixel_size if card is not None and card.spec is not None else 0.0
        with self.pixel_size.changed.blocked():
            self.pixel_size.value = round(known or answered or guess, 4)

    def _network_changed(self) -> None:
        if self._known_pixel_size() is None and PIXEL_SIZE_KEY not in self._metadata():
            self._fill_pixel_size()
        self.update_state()

    def _known_pixel_size(self) -> float | None:
        if self._image is None or image_problem(self._image) is not None:
            return None
        _, y, x = voxel_size_of(self._image)
        return None if y is None or x is None else (y + x) / 2

    def _pixel_size_changed(self) -> None:
        if self._image is not None and self.pixel_size.value > 0:
            self._image.metadata[PIXEL_SIZE_KEY] = self.pixel_size.value
        self.update_state()

    def config(self) -> PredictConfig:
        """How it is predicted, as the form says it."""
        return PredictConfig(
            device=self.device.value,
            engine=self.engine.value,
            precision=self.precision.value,
            halo=self.halo.value,
            tile=tile_edge(self.card.spec if self.card else None, self.halo.value),
            pixel_size=float(self.pixel_size.value) or None,
            invert=bool(self.invert.value),
            fill_nan=float(self.fill_value.value) if self.fill.value else None,
        )

    def job(self, scope: Scope | None = None) -> Job | None:
        """Return what Run would do, or None where the form does not say it yet."""
        image, card = self._image, self.card
        if image is None or card is None or image_problem(image) is not None:
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

    def _metadata(self) -> dict[str, Any]:
        return self._image.metadata if self._image is not None else {}

    def _pixel_question(self) -> str | None:
        if self._image is None or self._known_pixel_size() or PIXEL_SIZE_KEY in self._metadata():
            return None
        return (
            f"The image does not say how large its pixels are. Is {self.pixel_size.value:g} nm right? "
            "You are asked once: Segment takes what stands here."
        )

    def problems(self) -> dict[str, str]:
        """Fields that cannot work, with the reason."""
        card = self.card
        spec = card.spec if card is not None else None
        displayed = tuple(self.viewer.dims.displayed)
        found = checks.problems(
            image=image_problem(self._image),
            network=None if card is not None else self._zoo_problem or NO_NETWORK,
            scope=self.scope.value,
            first=self.first.value,
            last=self.last.value,
            flat_view=displayed == tuple(range(self.viewer.dims.ndim))[-2:],
            pixel_size=self.pixel_size.value,
            network_pixel_size=spec.pixel_size if spec is not None else None,
            device=self.device.value,
            engine=self.engine.value,
            precision=self.precision.value,
        )
        probe = self._probes.get(self._probe_key())
        if probe is not None and probe.problem and not {"device", "engine", "precision"} & set(found):
            found["device"] = probe.problem
        return found

    # ---------------------------------------------------------------- what this machine can do

    def _probe_key(self) -> tuple[str, str, str, str] | None:
        card = self.card
        if card is None or card.path is None:
            return None
        return (card.sha256, self.device.value, self.engine.value, self.precision.value)

    def probe(self, *, again: bool = False) -> None:
        """Find out in a worker thread whether device and precision exist and how fast the network is here.

        Both may load torch or OpenVINO, which takes seconds.
        """
        key, card = self._probe_key(), self.card
        if key is None or card is None or (key in self._probes and not again):
            return
        self._probes.setdefault(key, Probe())
        worker = create_worker(run_probe, key, str(card.path), self.config(), _start_thread=False)
        worker.returned.connect(self._probed)  # a method, which Qt disconnects when the widget goes
        worker.start()

    def _probed(self, answer: tuple[tuple[str, str, str, str], Probe]) -> None:
        key, found = answer
        self._probes[key] = found
        self._show_devices(found.devices)
        self._look_later()

    def _show_devices(self, found: tuple[str, ...]) -> None:
        """List the devices that are here, and take the remembered one if it is among them."""
        known = tuple(self.device.choices)
        devices = ("auto", "cpu", *found)
        if not set(devices) <= set(known):
            with self.device.changed.blocked():
                self.device.choices = (*known, *(d for d in devices if d not in known))
        wanted, self._wanted_device = self._wanted_device, None
        if wanted in devices and self.device.value == "auto":
            self.device.value = wanted

    def expected_seconds(self, job: Job) -> float | None:
        """How long a job would take on this machine, as far as it was measured before."""
        found, card, image = self._probes.get(self._probe_key()), self.card, self._image
        if found is None or found.seconds_per_pixel is None or card is None or card.spec is None or image is None:
            return None
        pixels = read_pixels(job, card.spec, shape_of(image))
        return None if pixels is None else pixels * found.seconds_per_pixel

    @property
    def runs_on(self) -> str:
        """Device, engine and precision that Run would use, empty while they are not known."""
        found = self._probes.get(self._probe_key())
        return found.description if found is not None else ""


def tile_edge(spec: NetworkSpec | None, halo: str) -> int:
    """Edge of a tile, halo included, small enough that tiles stream in and Cancel is heard within about a second."""
    context = 0 if spec is None else halo_of(spec, halo)
    stride = 32 if spec is None else spec.stride
    edge = max(TILE if not checks.cuda_driver() else 2 * TILE, 4 * context + TILE // 2)
    return -(-edge // stride) * stride


@dataclass(frozen=True)
class Probe:
    """What is known of a network on this machine: its speed, why it cannot run, on what it runs, what else there is."""

    seconds_per_pixel: float | None = None
    problem: str | None = None
    description: str = ""
    devices: tuple[str, ...] = ()


def run_probe(
    key: tuple[str, str, str, str], network: str, config: PredictConfig
) -> tuple[tuple[str, str, str, str], Probe]:
    """Find out about a network on this machine; slow, for a worker thread. Returns the key with the answer."""
    devices = accelerators()
    try:
        return key, Probe(estimate_seconds(network, 1, config), None, choose(config).description, devices)
    except DrososegError as error:
        return key, Probe(problem=str(error), devices=devices)
