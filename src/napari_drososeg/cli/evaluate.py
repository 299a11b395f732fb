"""``drososeg evaluate``: labels against truth."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_drososeg.cli import console
from napari_drososeg.cli.options import Json, Quiet, check_choice, parse_sections
from napari_drososeg.errors import DrososegError

if TYPE_CHECKING:
    from napari_drososeg.classes import ClassTable
    from napari_drososeg.evaluation import Evaluation


def evaluate(
    labels: Annotated[Path, typer.Argument(metavar="PRED", help="Labels to evaluate: file, folder or zarr.")],
    truth: Annotated[Path, typer.Argument(metavar="TRUTH", help="Ground-truth labels.")],
    sections: Annotated[
        str | None,
        typer.Option(
            help="Sections of TRUTH to compare, e.g. 13-15: the same sections of PRED, or all of PRED in order if it "
            "has as many sections as listed. 0-2:13-15 pairs PRED with TRUTH."
        ),
    ] = None,
    truth_format: Annotated[
        str, typer.Option(help="Values in TRUTH: classes (1, 2, 3), vnc (raw public data set), or auto.")
    ] = "auto",
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Network whose class table names the labels.")
    ] = None,
    classes: Annotated[
        Path | None, typer.Option(help="JSON list of the classes of the labels, as for drososeg train.")
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the scores of every section to this CSV file.")] = None,
    error_map: Annotated[
        Path | None,
        typer.Option(help="Write an error map with wrong pixels in yellow (.tif, or .png for one section)."),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare labels with ground truth.

    Prints IoU, F1 (Dice), accuracies and the confusion matrix. Pixels unlabelled in TRUTH (0) are not
    counted; pixels left unlabelled by PRED count as wrong.
    """
    check_choice("--truth-format", truth_format, ("auto", "classes", "vnc"))
    check_targets((labels, truth), csv, error_map)
    from napari_drososeg import evaluation
    from napari_drososeg.evaluation.comparison import checked_pairs
    from napari_drososeg.io import read_labels

    said, right = read_labels(labels), read_labels(truth)
    table = class_table(model, classes, said.classes or right.classes)
    pairs = checked_pairs(said, right, parse_pairs(sections, said.shape[0], right.shape[0]))
    if error_map is not None:
        evaluation.check_error_maps(error_map, len(pairs))
    # Found once here, so that the error map does not read all the truth again to find out.
    known = truth_format
    if known == "auto":
        known = evaluation.detect_truth_format(right, table, [z for _, z in pairs])
    with console.Bar(shown=not (quiet or json)) as bar:
        bar.start("comparing", len(pairs))
        result = evaluation.evaluate(
            said,
            right,
            table,
            pairs=pairs,
            truth_format=known,  # type: ignore[arg-type]  # checked above
            progress=lambda _done, _total: bar.advance(),
        )
    notify = console.notifier(quiet)
    if known != truth_format and known == "vnc":
        notify(evaluation.vnc_notice(right.name))
    for notice in result.notices:
        notify(notice)
    if error_map is not None:
        maps = evaluation.error_maps(
            said,
            right,
            table,
            pairs=pairs,
            truth_format=known,  # type: ignore[arg-type]
        )
        evaluation.write_error_maps(error_map, maps, (len(pairs), *right.shape[1:]))
    if csv is not None:
        with console.working():
            evaluation.write_csv(csv, result)
    if json:
        console.print_json({"labels": str(labels), "truth": str(truth), "truth_format": known, **result.to_dict()})
    else:
        show(result)


def check_targets(inputs: tuple[Path, ...], csv: Path | None, error_map: Path | None) -> None:
    """Refuse, before any work, to write over what is compared or over a file of another kind.

    Raises
    ------
    DrososegError
        Naming the file and the option.
    """
    from napari_drososeg.io.targets import same_file

    wanted = [("--csv", csv, (".csv",)), ("--error-map", error_map, (".tif", ".tiff", ".png"))]
    for option, path, suffixes in wanted:
        if path is None:
            continue
        place = path.resolve()
        for source in (each.resolve() for each in inputs):
            if same_file(place, source) or source in place.parents:
                raise DrososegError(f"{option} '{path}' is one of the inputs or inside one; choose another path.")
        if path.is_dir() or (path.exists() and path.suffix.lower() not in suffixes):
            raise DrososegError(f"{option} '{path}' exists and is not a {suffixes[0]} file; choose another name.")
    if csv is not None and error_map is not None and csv.resolve() == error_map.resolve():
        raise DrososegError(f"--csv and --error-map would both be written to '{csv}'; choose another name.")


def class_table(model: str | None, path: Path | None, written: ClassTable | None) -> ClassTable:
    """Return the class table of a network or a JSON file, or else one written in labels, or that of the shipped ones.

    Raises
    ------
    DrososegError
        If both are given, or what is given cannot be read.
    """
    if path is not None:
        if model is not None:
            raise DrososegError("--model and --classes both say what the labels mean; give one of them.")
        from napari_drososeg.cli.train_inputs import read_classes

        return read_classes(path)
    if model is None:
        from napari_drososeg.classes import DROSOPHILA_CLASSES

        return written or DROSOPHILA_CLASSES
    from napari_drososeg.checkpoint import load_spec
    from napari_drososeg.zoo import find_network

    return load_spec(find_network(model)).classes


def parse_pairs(text: str | None, n_labels: int, n_truth: int) -> list[tuple[int, int]]:
    """Read ``--sections`` of evaluate: nothing, sections of the truth, or ``PRED:TRUTH`` sections.

    Raises
    ------
    DrososegError
        If it cannot be read or does not fit the stacks.
    """
    from napari_drososeg.evaluation import pair_sections

    if text is None:
        return pair_sections(n_labels, n_truth)
    if ":" not in text:
        return pair_sections(n_labels, n_truth, parse_sections(text))
    ours, _, theirs = text.partition(":")
    left, right = parse_sections(ours), parse_sections(theirs)
    if len(left) != len(right):
        raise DrososegError(
            f"--sections {text} pairs {len(left)} sections with {len(right)}; give the same number of each."
        )
    return list(zip(left, right, strict=True))


def show(result: Evaluation) -> None:
    """Print the tables of an evaluation."""
    out = console.stdout_console()
    pooled, averaged = result.pooled, result.averaged
    n = len(result.sections)
    truth_pixels = result.confusion.sum(axis=1)
    for title, s in (("pooled", pooled), ("mean over sections", averaged)) if n > 1 else (("pooled", pooled),):
        scores = console.table(
            f"{n} section{'s' if n > 1 else ''}, {title}", "class", "IoU", "F1 = Dice", "precision", "recall", "pixels"
        )
        for i, name in enumerate(result.classes.names):
            row = (s.iou[i], s.f1[i], s.precision[i], s.recall[i])
            scores.add_row(name, *(number(v) for v in row), f"{truth_pixels[i]:,}")
        out.print(scores)
    means = console.table(None, "", "mean IoU", "mean F1 = Dice", "pixel accuracy", "mean pixel accuracy")
    for title, s in (("pooled", pooled), ("mean over sections", averaged)):
        values = (s.mean_iou, s.mean_f1, s.pixel_accuracy, s.mean_pixel_accuracy)
        means.add_row(title, *(number(v) for v in values))
    out.print(means)
    confusion = console.table("Share of each true class (rows) by label", "truth", *result.classes.names, "unlabelled")
    for name, row in zip(result.classes.names, result.confusion, strict=True):
        total = row.sum()
        confusion.add_row(name, *(console.percent(v / total if total else None) for v in row))
    out.print(confusion)


def number(value: float) -> str:
    """Write a score with four digits; a dash where it is not defined."""
    return "-" if math.isnan(value) else f"{value:.4f}"
