"""How a network was made and how good it is, in words: what its card shows to people.

The programs' own record is `NetworkSpec.training` and `NetworkSpec.metrics`, which `drososeg models NAME --json` prints
in full; here curves are told by their ends, and what a recipe leaves at nothing is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from napari_drososeg.checkpoint import NetworkSpec

_SAID_ELSEWHERE = ("architecture", "arguments", "n_classes", "steps", "loss", "plateau")


def facts(spec: NetworkSpec) -> list[tuple[str, str]]:
    """Return pairs of a heading and a text.

    Parameters
    ----------
    spec : NetworkSpec
        Of any network: what its record lacks is left out, and what is not known here is shown as it is.
    """
    rows, training, metrics = [], dict(spec.training), dict(spec.metrics)
    sections = training.pop("sections", None)
    if data := training.pop("data", None):
        rows.append(("trained on", f"{data}{f', sections {sections}' if sections else ''}"))
    if licence := training.pop("licence", None):
        rows.append(("licence of the data", str(licence)))
    rows += [("training", _course(training)), ("development run", _course(training.pop("development", {})))]
    rows.append(("recipe", _recipe(training.pop("recipe", {}))))
    rows += _plain(training)
    if (mean := metrics.pop("mean_iou", None)) is not None:
        rows.append(("mean IoU", f"{mean:.4f}{_on(metrics)}"))
    iou = metrics.pop("iou", None)
    if isinstance(iou, Mapping):
        order = {name: number for number, name in enumerate(spec.classes.names)}
        in_order = sorted(iou, key=lambda name: order.get(name, len(order)))
        rows.append(("IoU", ", ".join(f"{name} {text(iou[name])}" for name in in_order)))
    if rate := metrics.pop("megapixels_per_second", None):
        rows.append(("speed", f"{rate:.2f} Mpx/s ({metrics.pop('measured_on', 'not said on what')})"))
    rows += _plain(metrics)
    return [(heading, words) for heading, words in rows if words]


def text(value: object) -> str:
    """Return a value of a record as text: a number in four digits, what holds several in one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{str(key).replace('_', ' ')} {text(each)}" for key, each in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(text(each) for each in value)
    if value is None:
        return "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _plain(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(key.replace("_", " "), text(value)) for key, value in record.items()]


def _on(metrics: dict[str, Any]) -> str:
    """Take out of a record which sections were scored, and what is noted about it."""
    sections, note = metrics.pop("sections", None), metrics.pop("note", None)
    parts = [f"sections {sections}" if sections else "", str(note or "")]
    return f" ({', '.join(part for part in parts if part)})" if any(parts) else ""


def _course(record: dict[str, Any]) -> str:
    """Take out of a record how a run of training went: steps, time, start, machine, curve."""
    parts = []
    if steps := record.pop("steps", None):
        parts.append(f"{steps} steps")
    if minutes := record.pop("minutes", None):
        parts.append(f"in {minutes:g} minutes")
    if machine := record.pop("machine", None):
        parts.append(f"on {machine}")
    if start := record.pop("start", None):
        parts.append(f"from {start}" + (" weights" if start == "random" else ""))
    curve = record.pop("curve", {})
    ends = [
        f"{key.replace('_', ' ').replace('iou', 'IoU')} {text(values[0])} to {text(values[-1])}"
        for key, values in curve.items()
        if key != "step"
    ]
    return "; ".join(part for part in (" ".join(parts), ", ".join(ends)) if part)


def _recipe(recipe: Mapping[str, Any]) -> str:
    """Return a recipe without what it leaves at nothing."""
    kept = {key: value for key, value in recipe.items() if key not in _SAID_ELSEWHERE and value not in (0, False)}
    augmentation = kept.pop("augmentation", {})
    changes = {key: value for key, value in augmentation.items() if value not in (0, False)}
    loss = recipe.get("loss", {})
    terms = "+".join(name if factor == 1 else f"{factor:g}*{name}" for name, factor in loss.get("terms", []))
    if loss.get("class_weights"):
        terms += f" {text(loss['class_weights'])}"
    if recipe.get("schedule") == "plateau":
        kept["plateau"] = recipe.get("plateau", {})
    parts = [f"loss {terms}" if terms else "", text(kept), f"augmentation: {text(changes)}" if changes else ""]
    return "; ".join(part for part in parts if part)
