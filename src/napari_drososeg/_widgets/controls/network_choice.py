"""Which networks there are to choose from, how they predict, and what this machine makes of the chosen one."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from magicgui.widgets import ComboBox, FloatSpinBox, PushButton
from magicgui.widgets.bases import ValueWidget, Widget
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QMessageBox, QWidget

from napari_drososeg._widgets.controls import preferences
from napari_drososeg._widgets.controls.fields import FieldForm, note, small
from napari_drososeg._widgets.controls.grey_values import GreyFields
from napari_drososeg._widgets.controls.network_card import choice_title, details, summary
from napari_drososeg._widgets.controls.probing import Probe, Prober
from napari_drososeg.errors import DrososegError
from napari_drososeg.inference import PredictConfig
from napari_drososeg.inference.config import ORIENTATIONS
from napari_drososeg.zoo import DEFAULT_NETWORK, NetworkCard, list_networks

NO_NETWORK = "No network was found; install the package again or add one."


class NetworkChoice(FieldForm):
    """A form with the fields of a network and of how it predicts, and what they mean here.

    The fields are made here, and put into the form by whoever builds it: `network_rows`, `speed_rows`, `grey.rows`.

    Parameters
    ----------
    pixel_size_tip : str
        What the pixel size does.

    Signals
    -------
    altered
        Something else is chosen, or known of what is chosen: marks, texts and buttons may have to change.
    """

    altered = Signal()
    section: str
    """Under which name its choices are remembered."""

    def __init__(self, pixel_size_tip: str, parent: QWidget | None = None) -> None:
        super().__init__("Precision", parent)
        self._make_network()
        self._make_speed()
        self.grey = GreyFields()
        self.invert, self.fill, self.fill_value = self.grey.invert, self.grey.fill, self.grey.fill_value
        self.pixel_size = FloatSpinBox(name="pixel_size", value=0, min=0, max=100_000, step=0.1, tooltip=pixel_size_tip)
        self.cards: list[NetworkCard] = []
        self.prober = Prober(self)
        self.prober.answered.connect(self._probed)
        self._zoo_problem: str | None = None
        self._wanted_device: str | None = None  # remembered, but not known to be here yet

    # ---------------------------------------------------------------- the fields

    def _make_network(self) -> None:
        self.network = ComboBox(
            name="network",
            choices=(),
            tooltip="The trained network that classifies every pixel. Networks differ in what they were trained on: "
            "choose one whose images look like yours.",
        )
        self.info_button = PushButton(text="i", tooltip="Everything known about this network.")
        small(self.info_button)
        self.info_button.clicked.connect(lambda: self._show_details())
        self.card_text = note()

    def _make_speed(self) -> None:
        self.device = ComboBox(
            name="device",
            choices=["auto", "cpu"],  # graphics cards are added once they are found
            tooltip="Compute device: auto uses the graphics card if there is one that works. It changes the speed, "
            "and labels only in rare pixels.",
        )
        self.engine = ComboBox(
            name="engine",
            choices=["auto", "openvino", "torch"],
            tooltip="Inference engine: auto uses OpenVINO on a CPU, where it is several times faster.",
        )
        self.precision = ComboBox(
            name="precision",
            choices=["auto", "f32", "bf16", "f16", "int8"],
            tooltip="Numerical precision: f32 is the reference; bf16, f16 and int8 are faster and change a few "
            "pixels in a thousand.",
        )
        self.halo = ComboBox(
            name="halo",
            choices=["default", "exact"],
            tooltip="Context read around each tile: default leaves about 99.95 % of the labels as they would be "
            "without tiles, exact all of them but takes longer.",
        )
        self.orientations = ComboBox(
            name="orientations",
            choices=[(f"{n} orientation{'s' if n > 1 else ''}", n) for n in ORIENTATIONS],
            tooltip="Test-time augmentation: averages the prediction over this many flips and quarter turns of the "
            "image; more are slightly more accurate and take as many times as long. 1 uses the image as it is.",
        )

    def network_rows(self) -> list[Widget]:
        """Lines for the network, and what is said of it."""
        return [self.row("network", "Network", self.network, self.info_button), self.card_text]

    def speed_rows(self) -> list[Widget]:
        """Lines for what trades speed for exactness."""
        return [
            self.row("device", "Device", self.device),
            self.row("engine", "Engine", self.engine),
            self.row("precision", "Precision", self.precision),
            self.row("halo", "Halo", self.halo),
            self.row("orientations", "Average", self.orientations),
        ]

    @property
    def how(self) -> tuple[ValueWidget[Any], ...]:
        """The fields that say how it is predicted, but for the pixel size."""
        speed = (self.device, self.engine, self.precision, self.halo, self.orientations)
        return (*speed, self.invert, self.fill, self.fill_value)

    def config(self) -> PredictConfig:
        """How it is predicted, as the form says it."""
        return PredictConfig(
            device=self.device.value,
            engine=self.engine.value,
            precision=self.precision.value,
            halo=self.halo.value,
            pixel_size=float(self.pixel_size.value) or None,
            orientations=self.orientations.value,
            **asdict(self.grey.value),
        )

    def show_card(self, expected: str | None = None) -> None:
        """Say what is known of the network; `expected` is what it will take, in words."""
        card, runs_on = self.card, self.probed.description
        self.info_button.enabled = card is not None
        if card is None:
            text = tip = self._zoo_problem or NO_NETWORK
        else:
            lines = (summary(card, expected), f"Runs on {runs_on}" if runs_on else "")
            text, tip = "\n".join(each for each in lines if each), details(card)
        self.card_text.value = text
        self.card_text.tooltip = self.info_button.tooltip = tip

    def _show_details(self) -> None:
        if self.card is not None:
            box = QMessageBox(
                QMessageBox.Icon.NoIcon, self.card.title, details(self.card), QMessageBox.StandardButton.Close, self
            )
            box.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
            box.open()

    # ---------------------------------------------------------------- networks

    def load_networks(self) -> None:
        """Read the list of networks again."""
        left_out: list[str] = []
        try:
            self.cards = list_networks(left_out=left_out)
            self._zoo_problem = None if self.cards else next(iter(left_out), NO_NETWORK)
        except DrososegError as error:
            self.cards, self._zoo_problem = [], str(error)
        except (OSError, ValueError, KeyError, TypeError) as error:  # a registry cut short, a folder without rights
            self.cards, self._zoo_problem = [], f"The list of networks cannot be read ({error}). {NO_NETWORK}"
        chosen = self.network.value
        names = [card.name for card in self.cards]
        with self.network.changed.blocked():  # what Qt falls back to meanwhile is nobody's choice
            self.network.choices = [(choice_title(card), card.name) for card in self.cards]
            for name in (chosen, preferences.load(self.section).get("network"), DEFAULT_NETWORK):
                if name in names:
                    self.network.value = name
                    break
        if self.network.value != chosen:
            self.network.changed.emit(self.network.value)

    @property
    def card(self) -> NetworkCard | None:
        """The chosen network."""
        return next((c for c in self.cards if c.name == self.network.value), None)

    def network_problem(self) -> str | None:
        """Why the chosen network cannot be used, or None."""
        card = self.card
        if card is None:
            return self._zoo_problem or NO_NETWORK
        gone = card.path is not None and not card.path.exists()
        return f"The file of this network no longer exists: {card.path}. Choose another one." if gone else None

    def restore(self, names: tuple[str, ...]) -> None:
        """Take what was chosen last time."""
        device = preferences.restore(self.section, self, names).get("device")
        if isinstance(device, str):
            self._wanted_device = device  # the probe says whether it is here

    def remember(self, names: tuple[str, ...]) -> None:
        """Keep what is chosen for the next time."""
        choices = {name: getattr(self, name).value for name in names}
        if self._wanted_device is not None:
            choices["device"] = self._wanted_device
        if self.network.value is not None:
            choices["network"] = self.network.value
        preferences.update(self.section, choices)

    # ---------------------------------------------------------------- what this machine can do

    @property
    def probed(self) -> Probe:
        """What is known of the chosen network here; empty before anything is."""
        return self.prober.known(self.card.path if self.card else None, self.config())

    def probe(self, *, again: bool = False) -> None:
        """Find out whether device and precision exist and how fast the network is here; `again` for a new speed."""
        self.prober.ask(self.card.path if self.card else None, self.config(), again=again)

    def _probed(self, found: Probe) -> None:
        self._show_devices(found.devices)
        self.altered.emit()

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
