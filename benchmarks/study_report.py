"""What `study.py` writes: the study's tables with our columns, and a figure of errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_drososeg.data.augmentation import PRESETS
from napari_drososeg.zoo.facts import text

TITLES = {
    "fcn8": "FCN8", "segnet": "SegNet", "unet": "U-Net", "r2unet": "R2U-Net", "attention-unet": "Attention U-Net",
    "linknet": "LinkNet", "pspnet": "PSPNet", "fpn": "FPN", "deeplabv3plus": "DeepLabv3+", "transunet": "TransUNet",
    "swin-unet": "Swin-Unet",
}  # fmt: skip
STUDY = {
    "fcn8": (0.727, 0.858, 0.518, 0.805, 0.086),
    "segnet": (0.785, 0.897, 0.647, 0.811, 0.011),
    "unet": (0.837, 0.926, 0.745, 0.841, 0.079),
    "r2unet": (0.840, 0.926, 0.747, 0.848, 0.074),
    "attention-unet": (0.827, 0.924, 0.731, 0.825, 0.086),
    "linknet": (0.821, 0.922, 0.732, 0.848, 0.082),
    "pspnet": (0.795, 0.902, 0.676, 0.807, 0.064),
    "fpn": (0.833, 0.924, 0.742, 0.887, 0.083),
    "deeplabv3plus": (0.821, 0.909, 0.683, 0.870, 0.009),
    "transunet": (0.778, 0.909, 0.702, 0.724, 0.021),
    "swin-unet": (0.816, 0.918, 0.713, 0.818, 0.015),
}
"""The study's mIoU, IoU of cytoplasm, cell membrane and mitochondria, and seconds per image (i7-11800H)."""
GOALS = {"best mIoU": 0.86, "best cell membrane": 0.78, "best mitochondria": 0.87}
CREDIT = (
    "Data: Gerhard, Funke, Martel, Cardona, Fetter, figshare 2013, doi 10.6084/m9.figshare.856713, CC BY-NC-SA 3.0."
)


def accuracy_table(rows: dict[str, Any]) -> list[str]:
    """Return Table 1: the study's scores, ours pooled over all pixels, ours averaged over sections."""
    lines = [
        "| network | mIoU, study | mIoU, ours | difference | cytoplasm | cell membrane | mitochondria | averaged | "
        "pixel accuracy | F1 |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, row in rows.items():
        study, pooled = STUDY[name], row["pooled"]
        classes = [f"{s:.3f} / {o:.3f}" for s, o in zip(study[1:4], pooled["iou"], strict=True)]
        lines.append(
            f"| {TITLES[name]} | {study[0]:.3f} | {pooled['mean_iou']:.4f} | {pooled['mean_iou'] - study[0]:+.3f} | "
            f"{' | '.join(classes)} | {row['averaged']['mean_iou']:.4f} | {pooled['pixel_accuracy']:.4f} | "
            f"{pooled['mean_f1']:.4f} |"
        )
    return lines


def goals(rows: dict[str, Any]) -> list[str]:
    """Return what was to be reached and what was."""
    above = sum(row["pooled"]["mean_iou"] >= STUDY[name][0] for name, row in rows.items())
    best = {
        "best mIoU": max(row["pooled"]["mean_iou"] for row in rows.values()),
        "best cell membrane": max(row["pooled"]["iou"][1] for row in rows.values()),
        "best mitochondria": max(row["pooled"]["iou"][2] for row in rows.values()),
    }
    lines = [f"- {above} of {len(rows)} networks are at or above their row of the study."]
    for name, goal in GOALS.items():
        verdict = "reached" if best[name] >= goal else f"missed by {goal - best[name]:.3f}"
        lines.append(f"- {name}: {best[name]:.4f}, goal {goal:.2f}: {verdict}.")
    return lines


def orientations_table(rows: dict[str, Any], plain: dict[str, Any]) -> list[str]:
    """Return what the mean of eight orientations brings, for networks whose plain score is of the same weights."""
    lines = [
        "| network | mIoU | mIoU, 8 orientations | difference | cytoplasm | cell membrane | mitochondria |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, row in rows.items():
        if row["sha256"] != plain.get(name, {}).get("sha256"):
            continue
        before, after = plain[name]["pooled"]["mean_iou"], row["pooled"]["mean_iou"]
        iou = " | ".join(f"{v:.3f}" for v in row["pooled"]["iou"])
        lines.append(f"| {TITLES[name]} | {before:.4f} | {after:.4f} | {after - before:+.4f} | {iou} |")
    return lines


def named(augmentation: dict[str, Any]) -> str:
    """Return the name of the preset that this is, or all of its strengths."""
    for name, preset in PRESETS.items():
        if augmentation == {key: value for key, value in vars(preset).items() if value}:
            return name
    return text(augmentation)


def training_table(rows: dict[str, Any]) -> list[str]:
    """Return how the scored networks were made."""
    lines = [
        "| network | arguments | start | loss | augmentation | steps | batch | patch, px | minutes | on | MB |",
        "| --- | --- | --- | --- | --- | ---: | ---: | ---: | ---: | --- | ---: |",
    ]
    for name, row in rows.items():
        start = str(row["start"] or "random").split(",")[0]
        loss, batch, patch = (row.get(key) or "not recorded" for key in ("loss", "batch", "patch"))
        augmentation = named(row["augmentation"]) if row.get("augmentation") else "not recorded"
        machine = row.get("trained_with")
        device = ("CUDA" if "cuda" in machine else "CPU") if machine else "not recorded"
        lines.append(
            f"| {TITLES[name]} | {text(row['arguments'])} | {start} | {loss} | {augmentation} | {row['steps']} | "
            f"{batch} | {patch} | {row['minutes']} | {device} | {row['bytes'] / 1e6:.2f} |"
        )
    return lines


def speed_table(rows: dict[str, Any]) -> list[str]:
    """Return Table 2: seconds per 256 x 256 px image."""
    ways = list(next(iter(rows.values())))
    names = {"torch": "torch f32", "bf16": "OpenVINO bf16", "int8": "OpenVINO int8", "f32": "OpenVINO f32"}
    head = " | ".join(names[w] for w in ways)
    ratios = " | ".join(f"torch / {w}" for w in ways[1:])
    lines = [f"| network | study | {head} | {ratios} |", "| --- |" + " ---: |" * (2 * len(ways))]
    for name, row in rows.items():
        seconds = " | ".join(f"{row[w]:.4f}" for w in ways)
        gains = " | ".join(f"{row['torch'] / row[w]:.1f}" for w in ways[1:])
        lines.append(f"| {TITLES[name]} | {STUDY[name][4]:.3f} | {seconds} | {gains} |")
    return lines


def protocol_table(rows: dict[str, Any], plain: dict[str, Any]) -> list[str]:
    """Return the scores by the study's own protocol, beside those of Table 1."""
    lines = [
        "| network | parameters | mIoU, study | mIoU, ours | cytoplasm | cell membrane | mitochondria | pooled | "
        "epochs | ended by | Table 1 |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- | ---: |",
    ]
    for name, row in rows.items():
        iou = " | ".join(f"{v:.3f}" for v in row["averaged"]["iou"])
        pooled = f"{row['pooled']['mean_iou']:.4f}" if "pooled" in row else "not kept"
        beside = f"{plain[name]['pooled']['mean_iou']:.4f}" if name in plain else ""
        lines.append(
            f"| {TITLES[name]} | {row['parameters'] / 1e6:.1f} M | {STUDY[name][0]:.3f} | "
            f"{row['averaged']['mean_iou']:.4f} | {iou} | {pooled} | {row['epochs']} | {row['stopped']} | {beside} |"
        )
    return lines


def stamp(part: dict[str, Any]) -> str:
    """Say when, where and from which commit a part was run."""
    computer, changed = part["machine"], "+" * part["commit"].endswith("+")
    packages = ", ".join(f"{k} {computer[k]}" for k in ("torch", "openvino") if k in computer)
    return (
        f"{part['date']}, commit {part['commit'][:10]}{changed}, {computer['processor']}, {computer['cores']} cores; "
        f"{packages}."
    )


def stamps(rows: dict[str, Any]) -> str:
    """Say of rows that were not all run at once when, where and from which commit."""
    found: dict[str, list[str]] = {}
    for name, row in rows.items():
        found.setdefault(stamp(row["measured"]), []).append(TITLES[name])
    if len(found) == 1:
        return next(iter(found))
    return " ".join(f"{', '.join(names)}: {text}" for text, names in found.items())


def digests(rows: dict[str, Any]) -> str:
    """Say of which data the scores are."""
    found = sorted({row["data_sha256"][:16] for row in rows.values() if "data_sha256" in row})
    lacking = ", ".join(TITLES[name] for name, row in rows.items() if "data_sha256" not in row)
    return f" Data SHA-256 {' and '.join(found)}{f' (not recorded: {lacking})' if lacking else ''}." if found else ""


def tiles(rows: dict[str, Any]) -> str:
    """Say how many tiles there were."""
    found = sorted({tuple(row["tiles"]) for row in rows.values()})
    return "".join(f" Tiles: {n} to train, {v} to validate, {t} to test." for n, v, t in found)


def report(result: dict[str, Any]) -> str:
    """Return all parts that were run as one Markdown page."""
    blocks = [
        "# The study's tables",
        "Made by `python benchmarks/study.py`. The reference study is *Supervised Deep Learning methods for semantic "
        "image segmentation* (Canopee Data Science Practice): eleven networks on the public Drosophila stack. Its test "
        "tiles come from the same sections as its training tiles, next to them and just above and below them; ours in "
        "the first table come from sections that no training tile came from.",
    ]
    if part := result.get("leak-free"):
        blocks += [
            "## Table 1: accuracy without leaks",
            f"Trained on sections 00-11, scored on {part['sections']}: {stamps(part['rows'])} IoU pooled over all "
            "pixels, *study / ours* for each class; *averaged* is the mean of the sections' mIoUs. Labels as "
            f"`drososeg predict` gives them.{digests(part['rows'])} A plus sign marks a commit with changes.",
            "\n".join(accuracy_table(part["rows"])),
            "\n".join(goals(part["rows"])),
            "How these were made, by `scripts/train_zoo.py` (AdamW, one-cycle schedule, reduced width); what they owe "
            "to scores on these sections that were seen before is in [What may flatter the scores]"
            "(zoo.md#what-may-flatter-the-scores).",
            "\n".join(training_table(part["rows"])),
        ]
        if part["figure"]:
            absent = ", ".join(TITLES[name] for name in part["rows"] if name not in part["figure"])
            blocks += [
                "![Errors of each network](benchmark.png)",
                "Section 13, a quarter of it: image, truth, and in yellow what each network got wrong"
                f"{f' (not drawn: {absent})' if absent else ''}. {CREDIT}",
            ]
    if part := result.get("orientations"):
        blocks += [
            "## Eight orientations",
            "The same weights, with the mean of the probabilities over eight flips and turns, in eight times the time "
            f"(`drososeg predict --orientations 8`): {stamps(part['rows'])}",
            "\n".join(orientations_table(part["rows"], result.get("leak-free", {}).get("rows", {}))),
        ]
    if part := result.get("ensemble"):
        pooled = part["pooled"]
        cytoplasm, membrane, mitochondria = (f"{value:.4f}" for value in pooled["iou"])
        blocks += [
            "## All together",
            f"The mean of the probabilities of {', '.join(TITLES[name] for name in part['sha256'])}: mIoU "
            f"{pooled['mean_iou']:.4f}; cytoplasm {cytoplasm}, cell membrane {membrane}, mitochondria {mitochondria} "
            f"({stamp(part['measured']).rstrip('.')}). {part['errors_at_borders']:.0%} of its errors are in the "
            f"{part['borders']:.0%} of the pixels that lie on either side of where classes meet in the truth. Without "
            f"these the mIoU is {part['away_from_borders']['mean_iou']:.4f}, that of cell membrane "
            f"{part['away_from_borders']['iou'][1]:.4f}.",
        ]
    if parts := result.get("speed"):
        blocks += [
            "## Table 2: seconds per image of 256 x 256 px",
            "From grey values to labels, median of several turns that all networks of a table took together. The "
            "study's column was measured on an i7-11800H with eight cores and full-width networks.",
        ]
        for part in parts.values():
            bf16 = "with" if "bf16" in part["ways"] else "without"
            blocks += [
                f"A processor {bf16} bf16, {part['turns']} turns: {stamp(part)}",
                "\n".join(speed_table(part["rows"])),
            ]
    if part := result.get("protocol"):
        blocks += [
            "## The study's own protocol",
            f"Random split of 256 x 256 px tiles, focal loss, its augmentation and schedule: {stamps(part['rows'])} "
            "IoU averaged over the test tiles, as the study says of its own. How it counts a class that a tile does "
            "not have is not known; here a tile without mitochondria in which some are found counts as 0 for that "
            "class, which lowers the average much. *Pooled* is over the pixels of all tiles. Tiles of neighbouring "
            "sections share content, so these scores leak. Training begins with random weights; what ended before 300 "
            "epochs by a limit of minutes or epochs was cut short. *Table 1* is the mIoU without leaks of the reduced "
            f"network.{tiles(part['rows'])}",
            "\n".join(protocol_table(part["rows"], result.get("leak-free", {}).get("rows", {}))),
        ]
        if missing := [title for name, title in TITLES.items() if name not in part["rows"]]:
            blocks += [f"Not run: {', '.join(missing)}."]
    else:
        blocks += ["The study's own protocol was not run; `--parts protocol` runs it."]
    return "\n\n".join(blocks) + "\n"


def write_figure(
    path: Path, image: NDArray[np.uint8], truth: NDArray[np.uint8], predictions: dict[str, NDArray[np.uint8]]
) -> None:
    """Draw a crop of the image, its truth and each network's errors in yellow."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    from napari_drososeg.classes import DROSOPHILA_CLASSES
    from napari_drososeg.evaluation import error_map
    from napari_drososeg.metrics import Scores, confusion_matrix

    crop = slice(0, 512), slice(0, 512)
    colours = np.array([(0, 0, 0)] + [tuple(bytes.fromhex(c.color[1:])) for c in DROSOPHILA_CLASSES], np.uint8)
    panels = {"image": np.stack([image[crop]] * 3, -1), "truth": colours[truth[crop]]}
    for name, labels in predictions.items():
        scores = Scores.from_confusion(confusion_matrix(truth[crop], labels[crop], len(DROSOPHILA_CLASSES)))
        panels[f"{TITLES[name]}, mIoU {scores.mean_iou:.3f}"] = error_map(labels[crop], truth[crop], image[crop] // 2)
    columns = 5
    rows = -(-len(panels) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(2.6 * columns, 2.8 * rows))
    for axis in axes.flat:
        axis.axis("off")
    for axis, (title, panel) in zip(axes.flat, panels.items(), strict=False):
        axis.imshow(panel)
        axis.set_title(title, fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
