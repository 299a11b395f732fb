"""``drososeg demo``: everything once, on a stack made on the spot."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_drososeg.cli import console
from napari_drososeg.cli.options import Engine, Json, Model, Quiet, check_choice
from napari_drososeg.errors import DrososegError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_drososeg.evaluation import Evaluation
    from napari_drososeg.io import Stack

MARK = ".drososeg-demo"
"""Empty file in the folder of a demo, so that nothing but an earlier demo is ever replaced by one."""


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder for the results.")] = Path(
        "drososeg-demo"
    ),
    model: Model = None,
    n_sections: Annotated[int, typer.Option("--n-sections", min=1, help="Sections of the stack.")] = 4,
    size: Annotated[int, typer.Option(min=64, help="Width and height of a section in pixels.")] = 512,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the stack.")] = 0,
    engine: Engine = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Segment a synthetic stack and score the labels.

    Creates the stack itself, so it needs no data; writes it, its ground truth, the labels and a picture.
    Earlier results in FOLDER are replaced.
    """
    from napari_drososeg.batch.outcomes import areas_of
    from napari_drososeg.batch.plan import Part
    from napari_drososeg.batch.stacks import predict_file
    from napari_drososeg.evaluation import evaluate
    from napari_drososeg.inference import PredictConfig, Predictor
    from napari_drososeg.io import read_labels
    from napari_drososeg.samples import synthetic_stack
    from napari_drososeg.zoo import DEFAULT_NETWORK, find_network

    check_choice("--engine", engine, ("auto", "openvino", "torch"))
    check_folder(output)
    notify = console.notifier(quiet)
    path = find_network(model or DEFAULT_NETWORK)
    notify(f"creating a synthetic stack of {n_sections} sections of {size} x {size} pixels")
    stack, truth = synthetic_stack((n_sections, size, size), seed)
    predictor = Predictor(path, PredictConfig(engine=engine), notify=notify)
    notify(f"predicting with {predictor.spec.title} on {predictor.description}")
    with console.working():
        files = write_inputs(output, stack, truth)
        with console.Bar(shown=not (quiet or json)) as bar:
            path, counts, seconds = predict_file(stack, output / "labels.tif", "tiff", Part(), predictor, bar.show)
        files["labels"] = path
        labels = read_labels(path)
        areas = areas_of({0: counts}, predictor.spec.classes, stack.voxel_size)
        result = evaluate(labels, truth, predictor.spec.classes)
        files["overlay"] = draw(output / "overlay.png", stack, labels, truth, result)
    if json:
        console.print_json(
            {
                "network": predictor.spec.name,
                "engine": predictor.description,
                "seconds": round(seconds, 3),
                "files": {name: str(file) for name, file in files.items()},
                "classes": areas,
                "evaluation": result.to_dict(),
            }
        )
    elif not quiet:
        show(files, areas, result, console.duration(seconds), predictor.description)


def check_folder(folder: Path) -> None:
    """Refuse, before any work, a folder that cannot be written to or has files of the same names by somebody else.

    Raises
    ------
    DrososegError
        Naming the folder or the file.
    """
    from napari_drososeg.io.atomic import unwritable

    names = ("image.tif", "truth.tif", "labels.tif", "overlay.png")
    taken = next((folder / name for name in names if os.path.lexists(folder / name)), None)
    if taken is not None and not (folder / MARK).is_file():
        raise DrososegError(f"'{taken}' exists and no demo wrote it; choose another folder with --output.")
    if reason := unwritable(folder):
        raise DrososegError(f"{reason}; choose another folder with --output.")


def write_inputs(folder: Path, stack: Stack, truth: NDArray[Any]) -> dict[str, Path]:
    """Write the synthetic image and its truth, so that they can be opened in napari."""
    import numpy as np
    import tifffile

    from napari_drososeg.io import atomic, write_labels

    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).touch()
    image = folder / "image.tif"
    voxel = stack.voxel_size
    known = all(v is not None for v in voxel)
    with atomic.replacing(image) as partial:
        # ImageJ's way to say the voxel size is the one most programs read.
        tifffile.imwrite(
            partial,
            np.stack([stack.read(z) for z in range(stack.n_sections)]),
            imagej=True,
            metadata={"axes": "ZYX", **({"spacing": voxel[0] / 1000, "unit": "um"} if known else {})},  # type: ignore[operator]
            resolution=(1000 / voxel[2], 1000 / voxel[1]) if known else None,  # type: ignore[operator]
        )
    return {"image": image, "truth": write_labels(folder / "truth.tif", truth, voxel_size=voxel)}


def draw(path: Path, stack: Stack, labels: Stack, truth: NDArray[Any], result: Evaluation) -> Path:
    """Draw the middle section."""
    from napari_drososeg.cli.figure import draw_comparison

    z = stack.n_sections // 2
    notes = [f"IoU {value:.2f}" if value == value else "" for value in result.sections[z].scores.iou]
    return draw_comparison(path, stack.read(z), labels.read(z), truth[z], result.classes, notes)


def show(files: dict[str, Path], areas: list[dict[str, Any]], result: Evaluation, took: str, description: str) -> None:
    """Print scores, areas, and what to do next."""
    from napari_drososeg.cli.evaluate import number
    from napari_drososeg.cli.summary import area_table

    out = console.stdout_console()
    scores = console.table("Agreement with the truth", "class", "IoU", "F1 = Dice")
    for name, iou, f1 in zip(result.classes.names, result.pooled.iou, result.pooled.f1, strict=True):
        scores.add_row(name, number(iou), number(f1))
    scores.add_section()
    scores.add_row("mean", number(result.pooled.mean_iou), number(result.pooled.mean_f1))
    out.print(scores)
    # The generator was drawn after the training data and checked with the network, so it proves no quality.
    out.print(
        "This stack is drawn to be easy: it shows that everything works. Scores on real data: drososeg models NAME."
    )
    out.print(area_table(areas, "Areas of the labels"))
    out.print(f"Predicted in {took} on {description}.")
    for name, file in files.items():
        out.print(f"  {name:8} {file}", soft_wrap=True)
    out.print(f"Look at {files['overlay']}, or open the stack in napari:", soft_wrap=True)
    out.print(f"  napari {files['image']} {files['labels']}", soft_wrap=True)
    out.print("Then your own: drososeg predict my_stack.tif -o my_labels.tif")
