"""An evaluation as rows, for CSV files and clipboards."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING

from napari_drososeg.io import atomic

if TYPE_CHECKING:
    from napari_drososeg.evaluation.comparison import Evaluation

SCORES = ("iou", "f1", "dice", "precision", "recall")
MEANS = ("mean_iou", "mean_f1", "mean_dice")


def table_rows(result: Evaluation) -> list[list[str]]:
    """Return the scores of every section and class, then the pooled and the averaged ones.

    Returns
    -------
    list of list of str
        The first row is the header. For each class: scores, pixels of it in the truth, and how many of these carry
        which label (the confusion matrix). For each section a row ``mean of classes`` with the pixel accuracies and
        all pixels. What is not defined is empty.
    """
    names = result.classes.names
    counts = [f"labelled {name}" for name in (*names, "nothing")]
    accuracies = ["pixel_accuracy", "mean_pixel_accuracy"]
    rows = [["labels_section", "truth_section", "class", *SCORES, *accuracies, "pixels", *counts]]
    groups = [(str(s.labels_section), str(s.truth_section), s.scores, s.confusion) for s in result.sections]
    groups.append(("pooled", "pooled", result.pooled, result.confusion))
    groups.append(("mean", "mean", result.averaged, result.confusion))
    for labels_section, truth_section, scores, confusion in groups:
        data, key = scores.to_dict(), [labels_section, truth_section]
        for i, name in enumerate(names):
            cells = [_cell(data[score][i]) for score in SCORES]
            rows.append([*key, name, *cells, "", "", str(confusion[i].sum()), *map(str, confusion[i])])
        means = [_cell(data[mean]) for mean in MEANS]
        rows.append([*key, "mean of classes", *means, "", "", *(_cell(data[a]) for a in accuracies)])
        rows[-1] += [str(scores.pixels), *[""] * len(counts)]
    return rows


def write_csv(path: Path, result: Evaluation) -> Path:
    """Write `table_rows` as a CSV file; it appears when it is complete.

    Raises
    ------
    DrososegError
        If it cannot be written.
    """
    text = io.StringIO(newline="")
    csv.writer(text).writerows(table_rows(result))
    return atomic.write_bytes(path, text.getvalue().encode())


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"
