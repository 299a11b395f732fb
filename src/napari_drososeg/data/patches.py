"""Random patches of annotated sections.

Patch number i of batch number s is a function of the seed, s and i alone. That is what makes an interrupted training
resume exactly, and several devices draw together what one would draw: no state of a random generator is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision import tv_tensors

from napari_drososeg.data.augmentation import Augmentation, augment
from napari_drososeg.data.sections import AnnotatedSection
from napari_drososeg.errors import DrososegError

DENSE = 0.5
"""Where at least this share of a section is labelled, patches are drawn anywhere in it, else around labelled pixels."""


class Batch(NamedTuple):
    """A batch of N patches.

    Parameters
    ----------
    images : Tensor of float32, shape (N, 1, P, P)
        Normalised grey values.
    labels : Tensor of uint8, shape (N, P, P)
        0 is unlabelled.
    teacher : Tensor of float16, shape (N, C, P, P), or None
        Probabilities, 0 where there are none; None where no section has a teacher.
    """

    images: Tensor
    labels: Tensor
    teacher: Tensor | None


class PatchSampler:
    """Draw batches of random patches.

    A section counts by its area. Where less than `DENSE` of it is labelled, a labelled pixel is drawn and then a patch
    that has it somewhere. A patch without any label is drawn only where nothing is labelled at all, from a section that
    has a teacher.

    Parameters
    ----------
    sections : sequence of AnnotatedSection
        Any sizes.
    patch : int
        Edge in px.
    batch : int
        Patches a batch, of all ranks together.
    augmentation : Augmentation
        What is done to them.
    seed : int
        Same seed, same batches.
    class_patches : float
        Probability that a patch is centred on a pixel of a class drawn evenly among those that occur.
    rank, ranks : int
        Which share of each batch is drawn here.

    Raises
    ------
    DrososegError
        If there is no section, one is smaller than a patch, nothing is labelled and there is no teacher, or a batch
        cannot be shared out evenly.
    """

    def __init__(
        self,
        sections: Sequence[AnnotatedSection],
        patch: int,
        batch: int,
        augmentation: Augmentation,
        seed: int,
        *,
        class_patches: float = 0.0,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        if not sections:
            raise DrososegError("There is no annotated section to train on.")
        for number, section in enumerate(sections):
            if min(section.labels.shape) < patch:
                raise DrososegError(
                    f"{section.name or f'Annotated section {number}'} is {section.labels.shape} (y, x) px, smaller "
                    f"than a patch of {patch} px: choose a smaller patch."
                )
        if batch % ranks:
            raise DrososegError(f"A batch of {batch} patches cannot be split among {ranks} devices; use a multiple.")
        self.patch, self.augmentation, self.seed, self.class_patches = patch, augmentation, seed, class_patches
        self._mine = range(rank, batch, ranks)
        self._shapes = [s.labels.shape for s in sections]
        self._pixels = [LabelledPixels(s.labels) for s in sections]
        self._tensors = [_tensors(s) for s in sections]
        useful = [
            s.labels.size if p.total or s.teacher is not None else 0
            for s, p in zip(sections, self._pixels, strict=True)
        ]
        if not sum(useful):
            raise DrososegError("Nothing is labelled in any of the sections; annotate some pixels.")
        self._shares = np.array(useful) / sum(useful)
        n_classes = max(p.counts.size for p in self._pixels)
        counts = np.array([np.pad(p.counts, (0, n_classes - p.counts.size)) for p in self._pixels], np.float64)
        self._by_class = [(c + 1, column / column.sum()) for c, column in enumerate(counts.T) if column.any()]

    def __call__(self, step: int) -> Batch:
        """Return batch number `step`, or this rank's share of it."""
        patches = [self._draw(np.random.default_rng((self.seed, step, number))) for number in self._mine]
        images, labels, teachers = zip(*patches, strict=True)
        teacher = None
        if any(t is not None for t in teachers):
            like = next(t for t in teachers if t is not None)
            teacher = torch.stack([torch.zeros_like(like) if t is None else t for t in teachers])
        return Batch(torch.stack(images), torch.stack(labels), teacher)

    def _draw(self, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor | None]:
        index, origin = self._place(rng)
        image, labels, teacher = self._tensors[index]
        transform = augment(self.augmentation, rng, origin, self.patch)
        image, labels, teacher = transform(image, labels, teacher)
        plain = None if teacher is None else teacher.as_subclass(Tensor)
        return image.as_subclass(Tensor), labels.as_subclass(Tensor)[0], plain

    def _place(self, rng: np.random.Generator) -> tuple[int, tuple[int, int]]:
        """Draw a section, and the first row and column of a patch in it."""
        edge = self.patch
        if self._by_class and rng.uniform() < self.class_patches:
            value, shares = self._by_class[rng.integers(len(self._by_class))]
            index = int(rng.choice(len(shares), p=shares))
            inside = (edge // 2, edge // 2)
        else:
            index, value = int(rng.choice(len(self._shares), p=self._shares)), None
            pixels = self._pixels[index]
            if pixels.total == 0 or pixels.total >= DENSE * pixels.labels.size:
                y, x = (int(rng.integers(size - edge + 1)) for size in self._shapes[index])
                if pixels.total == 0 or pixels.labels[y : y + edge, x : x + edge].any():
                    return index, (y, x)
            inside = (int(rng.integers(edge)), int(rng.integers(edge)))
        pixel = self._pixels[index].draw(rng, value)
        height, width = self._shapes[index]
        y, x = (min(max(0, p - i), size - edge) for p, i, size in zip(pixel, inside, (height, width), strict=True))
        return index, (y, x)


class LabelledPixels:
    """The labelled pixels of a section, drawn evenly without a list of them in memory.

    Parameters
    ----------
    labels : ndarray of uint8, shape (Y, X)
        0 is unlabelled.

    Attributes
    ----------
    counts : ndarray of int64, shape (n,)
        Pixels of label 1, 2, ... up to the largest that occurs.
    total : int
        Their sum.
    """

    def __init__(self, labels: NDArray[np.uint8]) -> None:
        self.labels = labels
        n = int(labels.max(initial=0)) + 1
        self._in_row = np.stack([np.bincount(row, minlength=n) for row in labels])[:, 1:]  # (Y, n - 1)
        self.counts = self._in_row.sum(0)
        self.total = int(self.counts.sum())

    def draw(self, rng: np.random.Generator, value: int | None = None) -> tuple[int, int]:
        """Return row and column of a pixel with the label `value`, or with any; each is equally likely."""
        in_row = self._in_row.sum(1) if value is None else self._in_row[:, value - 1]
        up_to = np.cumsum(in_row)
        number = int(rng.integers(up_to[-1]))
        y = int(np.searchsorted(up_to, number, side="right"))
        line = self.labels[y] > 0 if value is None else self.labels[y] == value
        return y, int(np.flatnonzero(line)[number - (up_to[y] - in_row[y])])


def _tensors(section: AnnotatedSection) -> tuple[Any, Any, Any]:
    """Return image (1, Y, X), labels (1, Y, X) and teacher as torchvision's types, sharing memory where possible."""

    def tensor(array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.require(array, requirements=("C", "W")))

    return (
        tv_tensors.Image(tensor(section.image)[None]),
        tv_tensors.Mask(tensor(section.labels)[None]),
        None if section.teacher is None else tv_tensors.Mask(tensor(section.teacher)),
    )
