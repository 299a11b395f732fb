"""How networks take the grey values of an image: the fields for it, and where what the user says is kept."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from magicgui.widgets import CheckBox, FloatSpinBox

from napari_drososeg._widgets.controls.fields import line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from magicgui.widgets.bases import Widget
    from napari.layers import Image

    from napari_drososeg._widgets.layers.targets import Target
    from napari_drososeg.workspace import Workspace

GREY_KEY = "drososeg_grey_values"
"""Key in an image layer's metadata under which the user's answer is kept: it belongs to the image."""


@dataclass(frozen=True)
class GreyValues:
    """How grey values are taken.

    Parameters
    ----------
    invert : bool
        Whether they are turned round: the image is bright on dark.
    fill_nan : float, optional
        Grey value put in place of NaN; unless given, an image with NaN is refused.
    """

    invert: bool = False
    fill_nan: float | None = None


class GreyFields:
    """The fields: `invert`, `fill`, and `fill_value`, which is for where `fill` is ticked."""

    def __init__(self) -> None:
        self.invert = CheckBox(
            name="invert",
            text="Invert grey values",
            tooltip="For images with bright membranes: grey values are inverted for the network only.",
        )
        self.fill = CheckBox(
            name="fill",
            text="Fill NaN with",
            tooltip="Pixels without a value (NaN, infinity) are replaced by this grey value. Unticked, images with "
            "such pixels are refused.",
        )
        self.fill_value = FloatSpinBox(
            name="fill_value",
            value=0,
            min=-1e9,
            max=1e9,
            step=0.1,
            enabled=False,
            tooltip="The grey value that replaces NaN pixels.",
        )
        self.fill.changed.connect(lambda ticked: setattr(self.fill_value, "enabled", bool(ticked)))

    @property
    def rows(self) -> list[Widget]:
        """Lines of a form."""
        return [self.invert, line(self.fill, self.fill_value)]

    @property
    def value(self) -> GreyValues:
        """What they say."""
        return GreyValues(bool(self.invert.value), float(self.fill_value.value) if self.fill.value else None)

    def show(self, said: GreyValues) -> None:
        """Let them say something else, without a signal."""
        with self.invert.changed.blocked(), self.fill_value.changed.blocked():
            self.invert.value = said.invert
            if said.fill_nan is not None and said.fill_nan != self.fill_value.value:  # the user may be typing it
                self.fill_value.value = said.fill_nan
        with self.fill.changed.blocked():
            self.fill.value = said.fill_nan is not None
        self.fill_value.enabled = said.fill_nan is not None


def answer(image: Image, said: GreyValues) -> None:
    """Keep what the user says."""
    image.metadata = image.metadata | {GREY_KEY: asdict(said)}


def known(image: Image, workspace: Workspace | None, targets: Sequence[Target] = ()) -> GreyValues:
    """Return how an image is taken: as the user said, as the workspace says, or as its labels (`targets`) were made."""
    if (answered := image.metadata.get(GREY_KEY)) is not None:
        return GreyValues(**answered)
    if workspace is not None and "invert" in workspace.settings:
        return GreyValues(workspace.settings["invert"], workspace.settings.get("fill_nan"))
    return next((GreyValues(*t.done_grey) for t in reversed(targets) if t.network), GreyValues())


def keep(said: GreyValues, workspace: Workspace) -> None:
    """Keep it with the rounds that are trained with it."""
    if any(workspace.settings.get(name) != value for name, value in asdict(said).items()):
        workspace.save_settings(**asdict(said))
