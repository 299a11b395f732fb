"""What ``drososeg train`` trains on and from: read, split and checked before any time is spent."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from napari_drososeg.checkpoint import NetworkSpec, load_model
from napari_drososeg.classes import DROSOPHILA_CLASSES, ClassTable
from napari_drososeg.data.augmentation import Augmentation
from napari_drososeg.data.sections import AnnotatedSection, read_sections
from napari_drososeg.errors import DrososegError
from napari_drososeg.evaluation import detect_truth_format, vnc_notice
from napari_drososeg.io import Stack, read_labels, read_stack
from napari_drososeg.losses import LossConfig
from napari_drososeg.samples import ATTRIBUTION, map_vnc_labels
from napari_drososeg.samples.vnc import VOXEL_SIZE as VNC_VOXEL_SIZE
from napari_drososeg.training import TrainConfig, Training, find_problems, inherit_licence, refuse
from napari_drososeg.zoo import NetworkCard, find_card

VNC_LICENCE = "CC-BY-NC-SA-3.0"


@dataclass(frozen=True)
class Inputs:
    """What a training needs besides its settings.

    Parameters
    ----------
    sections, validation : list of AnnotatedSection
        What is trained on, and what is scored.
    problems : tuple of str
        What is wrong with the files.
    classes : ClassTable
        What label values mean.
    pixel_size : float
        In nm.
    card : NetworkCard or None
        Network to start from.
    vnc : bool
        Whether the labels are those of the public VNC stack.
    source : dict
        For the card: names and section numbers.
    notices : tuple of str
        What was changed while reading.
    """

    sections: list[AnnotatedSection]
    validation: list[AnnotatedSection]
    problems: tuple[str, ...]
    classes: ClassTable
    pixel_size: float
    card: NetworkCard | None
    vnc: bool
    source: dict[str, Any]
    notices: tuple[str, ...]

    @property
    def spec(self) -> NetworkSpec | None:
        """Description of the network to start from."""
        return None if self.card is None else self.card.spec

    @property
    def parent(self) -> str | None:
        """Name and SHA-256 of the network to start from."""
        return None if self.card is None else f"{self.card.name} {self.card.sha256}"

    @property
    def parent_name(self) -> str | None:
        """Its name."""
        return None if self.card is None else self.card.name

    def licence(self, own: str | None) -> str:
        """Return the licence of the result: the user's, that of known data and that of the parent together."""
        parents = [VNC_LICENCE] if self.vnc else []
        return inherit_licence(own, parents + ([self.spec.licence] if self.spec is not None else []))

    def describe(self) -> dict[str, Any]:
        """Return what the card says about the data."""
        return {**self.source, **({"citation": ATTRIBUTION} if self.vnc else {})}


def read_inputs(
    images: Path,
    labels: Path,
    classes: Path | None,
    start: str | None,
    sections: list[int] | None,
    validation: list[int] | float | None,
    pixel_size: float | None,
) -> Inputs:
    """Open everything and read the sections, past what is wrong with some.

    Raises
    ------
    DrososegError
        If something cannot be opened, the sections cannot be split, or the pixel size is not known.
    """
    stack, truth = read_stack(images), read_labels(labels)
    card = None if start is None else find_card(start)
    spec = None if card is None else card.spec
    table = read_classes(classes) if classes else truth.classes or (spec.classes if spec else DROSOPHILA_CLASSES)
    training, held_out = split(sections, validation, stack, truth)
    reader, vnc = label_reader(truth, table, [*training, *held_out])
    size = pixel_size or stack.pixel_size or (VNC_VOXEL_SIZE[2] if vnc else None)
    if size is None:
        raise DrososegError(f"The pixel size of '{stack.name}' is not known: give it in nm with --pixel-size.")
    read, problems = read_sections(stack, reader, training)
    scored, more = read_sections(stack, reader, held_out)
    source = {"data": stack.name, "sections": describe_sections(training)}
    if held_out:
        source["validation"] = describe_sections(held_out)
    notices = [*stack.notices, *truth.notices]
    if vnc:
        notices.append(f"{vnc_notice(truth.name)} That data's licence goes onto the network.")
    return Inputs(read, scored, (*problems, *more), table, size, card, vnc, source, tuple(notices))


def check(inputs: Inputs, options: dict[str, Any], loss: str, augmentation: str) -> tuple[TrainConfig, bool]:
    """Return the configuration, and whether the network to start from goes on as it is.

    Raises
    ------
    DrososegError
        Naming all that keeps the training from working.
    """
    spec = inputs.spec
    architecture = options["architecture"] or (spec.architecture if spec is not None else "unet")
    arguments = options["arguments"]
    if spec is not None and architecture == spec.architecture:
        arguments = {**spec.arguments, **arguments}
    config = TrainConfig(
        **{**options, "architecture": architecture, "arguments": arguments},
        n_classes=len(inputs.classes),
        loss=LossConfig.parse(loss),
        augmentation=Augmentation.preset(augmentation),
    )
    # The same network with the same classes goes on; of another one, what fits is taken.
    same = (architecture, arguments, inputs.classes.names)
    whole = spec is not None and (spec.architecture, spec.arguments, spec.classes.names) == same
    found = find_problems(
        inputs.sections, config, validation=inputs.validation, classes=inputs.classes, fresh=not whole
    )
    refuse([*inputs.problems, *(found if inputs.sections or not inputs.problems else [])])
    return config, whole


def create(inputs: Inputs, config: TrainConfig, folder: Path | None, *, whole: bool) -> Training:
    """Set up what was checked."""
    weights = None
    if inputs.card is not None:
        assert inputs.card.path is not None  # find_card has downloaded it
        weights = load_model(inputs.card.path)[1].state_dict()
    return Training(
        inputs.sections,
        config,
        validation=inputs.validation,
        start=weights if whole else None,
        transfer=None if whole else weights,
        folder=folder,
    )


def read_classes(path: Path) -> ClassTable:
    """Read a class table from a JSON file.

    Raises
    ------
    DrososegError
        If it cannot be read or is none.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DrososegError(f"Cannot read '{path}': {error.strerror or error}.") from error
    except ValueError as error:
        raise DrososegError(f"'{path}' is not a JSON file ({error}).") from error
    if not isinstance(rows, list):
        raise DrososegError(f"'{path}' must contain a list of classes, each with 'value', 'name' and 'color'.")
    try:
        return ClassTable.from_list(rows)
    except DrososegError as error:
        raise DrososegError(f"'{path}': {error}") from error


def split(
    sections: list[int] | None, validation: list[int] | float | None, images: Stack, labels: Stack
) -> tuple[list[int], list[int]]:
    """Return the numbers of the sections to train on and to score.

    A share takes the last of them: neighbouring sections look alike, and should not be on both sides.

    Raises
    ------
    DrososegError
        If images and labels differ in number, or nothing is left to train on.
    """
    if sections is None and images.n_sections != labels.n_sections:
        raise DrososegError(
            f"'{images.name}' has {images.n_sections} sections, its labels have {labels.n_sections}: name those that "
            "have both with --sections."
        )
    chosen = list(range(images.n_sections)) if sections is None else sections
    if isinstance(validation, float):
        count = max(1, round(validation * len(chosen)))
        chosen, held_out = chosen[:-count], chosen[-count:]
    else:
        held_out = validation or []
        if sections is not None and (both := sorted(set(chosen) & set(held_out))):
            raise DrososegError(f"Section {both[0]} is in --sections and in --validation; it cannot be in both.")
        chosen = [z for z in chosen if z not in held_out]
    if not chosen:
        raise DrososegError("No section is left to train on; validate on fewer.")
    return chosen, held_out


def label_reader(
    truth: Stack, classes: ClassTable, sections: Sequence[int]
) -> tuple[Callable[[int], NDArray[Any]], bool]:
    """Return what reads the labels of a section, and whether they are the raw ones of the public VNC stack."""
    there = [z for z in sections if z < truth.n_sections]
    try:
        vnc = detect_truth_format(truth, classes, there) == "vnc" and classes.names == DROSOPHILA_CLASSES.names
    except DrososegError:
        vnc = False  # what is wrong is said section by section, with all else
    return (lambda z: map_vnc_labels(truth.read(z))) if vnc else truth.read, vnc


def describe_sections(numbers: Sequence[int]) -> str:
    """Write section numbers as people do, for example ``0-11, 13``."""
    parts: list[list[int]] = []
    for z in sorted(numbers):
        if parts and z == parts[-1][-1] + 1:
            parts[-1][1:] = [z]
        else:
            parts.append([z])
    return ", ".join("-".join(map(str, part)) for part in parts)
