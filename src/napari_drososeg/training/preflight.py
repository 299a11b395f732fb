"""What can be known to fail before any time is spent: all of it, in one message."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from napari_drososeg.classes import ClassTable
from napari_drososeg.data.sections import AnnotatedSection
from napari_drososeg.errors import DrososegError
from napari_drososeg.models import find_architecture
from napari_drososeg.training.config import TrainConfig


def class_counts(sections: Sequence[AnnotatedSection], n_classes: int) -> list[int]:
    """Return the number of pixels labelled 1, 2, ... `n_classes` in all sections."""
    total = np.zeros(n_classes + 1, np.int64)
    for section in sections:
        total += np.bincount(section.labels.ravel(), minlength=n_classes + 1)[: n_classes + 1]
    return [int(n) for n in total[1:]]


def find_problems(
    sections: Sequence[AnnotatedSection],
    config: TrainConfig,
    *,
    validation: Sequence[AnnotatedSection] = (),
    classes: ClassTable | None = None,
    fresh: bool = True,
) -> list[str]:
    """Look for what keeps a training from working.

    Parameters
    ----------
    sections, validation : sequence of AnnotatedSection
        What is to be trained on, and scored.
    config : TrainConfig
        How.
    classes : ClassTable, optional
        Names of the classes, for messages.
    fresh : bool
        Whether the network knows nothing yet: then each class must be labelled somewhere.

    Returns
    -------
    list of str
        One clause for each problem.
    """
    if not sections:
        return ["there is no annotated section to train on"]
    problems: list[str] = []
    n = config.n_classes
    for number, section in enumerate([*sections, *validation]):
        name = section.name or f"annotated section {number}"
        height, width = section.image.shape
        if section.labels.shape != section.image.shape:
            problems.append(f"{name}: the image is {section.image.shape}, its labels are {section.labels.shape} px")
        elif number < len(sections) and min(height, width) < config.patch:
            problems.append(f"{name} is {height} x {width} px, smaller than a patch of {config.patch} px")
        if section.teacher is not None and section.teacher.shape != (n, height, width):
            problems.append(f"{name}: the teacher is {section.teacher.shape}, not {(n, height, width)}")
        if (largest := int(section.labels.max(initial=0))) > n:
            problems.append(f"{name} contains the label {largest}, but there are only {n} classes")
    counts = class_counts(sections, n)
    names = classes.names if classes is not None else [f"class {value}" for value in range(1, n + 1)]
    background = "0 means unlabelled, and the background needs a class of its own"
    if n == 1:
        problems.append(f"there is nothing to tell {names[0]} from, the only class: {background}")
    if not any(counts):
        if not (config.distillation and any(s.teacher is not None for s in sections)):
            problems.append("nothing is labelled in any of the sections: annotate some pixels")
    elif fresh and n > 1 and sum(count > 0 for count in counts) == 1:
        only = next(name for name, count in zip(names, counts, strict=True) if count)
        problems.append(f"nothing but {only} is labelled: {background}")
    elif fresh:
        for value, (name, count) in enumerate(zip(names, counts, strict=True), start=1):
            if not count:
                problems.append(f"no pixel is labelled {name} ({value}): annotate some, or leave the class out")
    if validation and not any(class_counts(validation, n)):
        problems.append("nothing is labelled in the validation sections")
    if config.schedule == "plateau" and not validation:
        problems.append("the schedule plateau follows the validation loss: name validation sections")
    if config.batch % (config.devices * config.nodes):
        shares = config.devices * config.nodes
        problems.append(f"a batch of {config.batch} patches cannot be split among {shares} devices: use a multiple")
    elif config.batch == config.devices * config.nodes and not config.freeze_norms:
        stride = find_architecture(config.architecture).stride
        if config.patch <= stride:  # one pixel is left at its deepest: a batch norm cannot tell its spread
            problems.append(
                f"a batch of one patch of {config.patch} px is too little for {config.architecture}: use larger "
                f"patches than {stride} px, or more of them"
            )
    return problems


def refuse(problems: Sequence[str]) -> None:
    """Raise if there are problems.

    Raises
    ------
    DrososegError
        Naming all of them.
    """
    if problems:
        text = "; ".join(problems)
        raise DrososegError(text[0].upper() + text[1:] + ".")
