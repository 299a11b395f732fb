"""How a network was made and how good it is, in words: what its card shows to people.

The programs' own record is `NetworkSpec.training` and `NetworkSpec.metrics`, which `drososeg models NAME --json` prints
in full; here curves are told by their ends, and what a recipe does not use is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from napari_drososeg.checkpoint import NetworkSpec

_SAID_ELSEWHERE = ("architecture", "arguments", "n_classes", "steps", "loss", "plateau", "augmentation")
_OFF_AT_ZERO = ("average", "class_patches", "distillation", "freeze_norms", "weight_decay", "warm_up")


def facts(spec: NetworkSpec) -> list[tuple[str, str]]:
    """Return pairs of a heading and a text.

    Parameters
    ----------
    spec : NetworkSpec
        Of any network: what its record lacks is left out, and what is not known here is shown as it is.
    """
    record = dict(spec.training)
    rows = []
    if data := record.pop("data", None):
        sections = record.pop("sections", None)
        rows.append(("trained on", f"{text(data)}{f', sections {sections}' if sections else ''}"))
    if licence := record.pop("licence", None):
        rows.append(("licence of the data", text(licence)))
    rows.append(("training", _course(record)))
    for key, heading in (("development", "development run"), ("parent", "before that")):
        if isinstance(record.get(key), Mapping):
            earlier = dict(record.pop(key))
            rows.append((heading, _course(earlier)))
    if isinstance(record.get("recipe"), Mapping):
        rows.append(("recipe", _recipe(record.pop("recipe"))))
    rows += [(key.replace("_", " "), text(value)) for key, value in record.items()]
    return [(heading, words) for heading, words in [*_scores(spec), *rows] if words]


def text(value: object) -> str:
    """Return a value of a record as text: a number in four digits, what holds several in one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{str(key).replace('_', ' ')} {text(each)}" for key, each in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(text(each) for each in value)
    if value is None:
        return "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _scores(spec: NetworkSpec) -> list[tuple[str, str]]:
    """Return how good and how fast a network is."""
    record, names, rows = dict(spec.metrics), spec.classes.names, []
    if (mean := record.pop("mean_iou", None)) is not None:
        where = [f"sections {record.pop('sections')}" if "sections" in record else "", record.pop("note", "")]
        scored = ", ".join(text(part) for part in where if part)
        rows.append(("mean IoU", text(mean) + (f" ({scored})" if scored else "")))
    iou = record.pop("iou", None)
    if isinstance(iou, list | tuple) and len(iou) == len(names):
        iou = dict(zip(names, iou, strict=True))
    if isinstance(iou, Mapping):  # as the classes are ordered, and then what is none of them
        iou = {name: iou[name] for name in dict.fromkeys((*names, *iou)) if name in iou}
    if iou is not None:
        rows.append(("IoU", text(iou)))
    if (rate := record.pop("megapixels_per_second", None)) is not None:
        on = record.pop("measured_on", None)
        rows.append(("speed", f"{text(rate)} Mpx/s" + (f" ({on})" if on else "")))
    return rows + [(key.replace("_", " "), text(value)) for key, value in record.items()]


def _course(record: dict[str, Any]) -> str:
    """Take out of a record how a run of training went: steps, time, machine, start, curve."""
    if record.get("start") == "random":
        record["start"] = "random weights"
    forms = {"steps": "{} steps", "minutes": "in {} minutes", "machine": "on {}", "start": "from {}"}
    run = " ".join(form.format(text(record.pop(key))) for key, form in forms.items() if key in record)
    curve = record.pop("curve", None)
    if not isinstance(curve, Mapping):
        return "; ".join(part for part in (run, text(curve) if curve else "") if part)
    ends = [
        f"{key.replace('_', ' ').replace('iou', 'IoU')} {text(values[0])} to {text(values[-1])}"
        for key, values in curve.items()
        if key != "step" and isinstance(values, list | tuple) and values
    ]
    return "; ".join(part for part in (run, ", ".join(ends)) if part)


def _recipe(recipe: Mapping[str, Any]) -> str:
    """Return a recipe without what it does not use."""
    loss, changes = (dict(recipe.get(key) or {}) for key in ("loss", "augmentation"))
    terms = dict(loss.get("terms") or [])
    sums = " + ".join(name if factor == 1 else f"{text(factor)} {name}" for name, factor in terms.items())
    if "weighted" in terms:
        sums += f" (weights {text(loss.get('class_weights'))})"
    if "focal" in terms:
        sums += f" (alpha {text(loss.get('alpha'))}, gamma {text(loss.get('gamma'))})"
    kept = {
        key: value for key, value in recipe.items() if key not in _SAID_ELSEWHERE and (value or key not in _OFF_AT_ZERO)
    }
    if recipe.get("schedule") == "plateau":
        kept["plateau"] = recipe.get("plateau")
    used = {key: value for key, value in changes.items() if value}
    parts = (f"loss {sums}" if sums else "", text(kept), f"augmentation: {text(used)}" if used else "")
    return "; ".join(part for part in parts if part)
