"""Which networks there are to choose from, and what this machine makes of the chosen one."""

from __future__ import annotations

from typing import Any

from magicgui.widgets import ComboBox
from qtpy.QtCore import Signal

from napari_drososeg._widgets import preferences
from napari_drososeg._widgets.fields import FieldForm
from napari_drososeg._widgets.probing import Probe, Prober
from napari_drososeg.errors import DrososegError
from napari_drososeg.inference import PredictConfig
from napari_drososeg.zoo import DEFAULT_NETWORK, NetworkCard, list_networks

AVERAGES = [("1 orientation", 1), ("2 orientations", 2), ("4 orientations", 4), ("8 orientations", 8)]
AVERAGE_TOOLTIP = (
    "Averages the prediction over so many flips and quarter turns of the image: more of them are a little more "
    "accurate and take as many times as long. 1 is the image as it is."
)
NO_NETWORK = "There is no network; install the package again or add one."


class NetworkChoice(FieldForm):
    """A form with the fields ``network``, ``device``, ``engine`` and ``precision``, and what they mean here.

    Signals
    -------
    altered
        Something else is chosen, or known of what is chosen: marks, texts and buttons may have to change.
    """

    altered = Signal()
    section: str
    """Under which name its choices are remembered."""

    network: ComboBox
    device: ComboBox
    engine: ComboBox
    precision: ComboBox

    def __init__(self, widest: str, parent: Any = None) -> None:
        super().__init__(widest, parent)
        self.cards: list[NetworkCard] = []
        self.prober = Prober(self)
        self.prober.answered.connect(self._probed)
        self._zoo_problem: str | None = None
        self._wanted_device: str | None = None  # remembered, but not known to be here yet

    def config(self) -> PredictConfig:
        """How it is predicted, as the form says it."""
        return PredictConfig(self.device.value, self.engine.value, self.precision.value)

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
        self.network.choices = [(card.title, card.name) for card in self.cards]
        names = [card.name for card in self.cards]
        for name in (chosen, preferences.load(self.section).get("network"), DEFAULT_NETWORK):
            if name in names:
                self.network.value = name
                break

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
        return f"The file of this network is no longer there: {card.path}. Choose another one." if gone else None

    def restore(self, names: tuple[str, ...]) -> None:
        """Take what was chosen last time."""
        for name, value in preferences.load(self.section).items():
            if name in names:
                try:
                    getattr(self, name).value = value
                except (ValueError, TypeError):  # a choice of an older version, or of another machine
                    if name == "device" and isinstance(value, str):
                        self._wanted_device = value  # the probe says whether it is here

    def remember(self, names: tuple[str, ...]) -> None:
        """Keep what is chosen for the next time."""
        before = preferences.load(self.section)
        choices = {name: getattr(self, name).value for name in names}
        if self._wanted_device is not None:
            choices["device"] = self._wanted_device
        if self.network.value is not None:
            choices["network"] = self.network.value
        if {**before, **choices} != before:
            preferences.save(self.section, {**before, **choices})

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
