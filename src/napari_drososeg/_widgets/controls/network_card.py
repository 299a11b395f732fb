"""What is said about a network before it is used. No Qt here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from napari_drososeg.models import ARCHITECTURES
from napari_drososeg.zoo import DEFAULT_NETWORK
from napari_drososeg.zoo.facts import facts

if TYPE_CHECKING:
    from napari_drososeg.zoo import NetworkCard


def choice_title(card: NetworkCard) -> str:
    """Title of a network in a combo, the default one marked."""
    return f"{card.title} (default)" if card.name == DEFAULT_NETWORK else card.title


def mean_iou(metrics: Mapping[str, Any]) -> float | None:
    """Mean IoU of a network's own record, 0 to 1, None where it has none."""
    value = metrics.get("mean_iou")
    return float(value) if isinstance(value, int | float) else None


def short_name(text: str, length: int = 48) -> str:
    """Cut a text at a word."""
    if len(text) <= length:
        return text
    return text[:length].rsplit(" ", 1)[0].rstrip(",;(") + "…"


def summary(card: NetworkCard, time: str | None = None) -> str:
    """Two lines for under the combo: how good, trained on what; licence, size, expected time."""
    spec = card.spec
    if spec is None:
        return f"downloaded when first used, {card.n_bytes / 1e6:.0f} MB"
    iou = mean_iou(spec.metrics)
    data = str(spec.training.get("data") or "")
    first = [f"{100 * iou:.0f} % mean IoU" if iou is not None else "not scored"]
    if data:
        first.append(f"trained on {short_name(data)}")
    second = [licence_note(spec.licence), f"{card.n_bytes / 1e6:.0f} MB" if card.n_bytes >= 1e6 else "< 1 MB"]
    if time:
        second.append(time)
    return "\n".join((", ".join(first), " · ".join(s for s in second if s)))


def licence_note(licence: str) -> str:
    """Licence with the one thing most people need to know of it."""
    return f"{licence}, non-commercial" if "NC" in licence.upper().split("-") else licence


def details(card: NetworkCard) -> str:
    """Everything known about a network, one fact a line."""
    spec = card.spec
    if spec is None:
        return f"{card.title} is downloaded when it is first used ({card.n_bytes / 1e6:.0f} MB)."
    lines = [
        f"{spec.title} ({spec.name}, version {spec.version})",
        f"Architecture: {spec.architecture}",
        f"Classes: {', '.join(f'{c.value} {c.name}' for c in spec.classes)}",
        f"Pixel size it was trained at: {spec.pixel_size:g} nm",
        f"Licence: {licence_note(spec.licence)}",
        f"Where: {card.source}, {card.path or 'downloaded when first used'}",
        f"Halo: {spec.halo} px, receptive field {spec.receptive_field} px",
    ]
    if (entry := ARCHITECTURES.get(spec.architecture)) is not None:
        lines += [f"Image sizes: {entry.sizes}", f"Reference: {entry.reference}"]
    if spec.parent:
        lines.append(f"Fine-tuned from: {spec.parent}")
    lines += [f"{heading[0].upper()}{heading[1:]}: {words}" for heading, words in facts(spec)]
    return "\n".join(lines)
