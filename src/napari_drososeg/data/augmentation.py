"""Random changes of patches: image, labels and teacher together, or the image's grey values alone.

They are transforms of torchvision's v2 kind, over its `Image` and `Mask`, with two differences. They draw from a
generator that they are given: v2's own draw from torch's global one, which the network's dropout uses meanwhile in
another thread. And all that moves pixels is one resampling, where v2's own would interpolate, and blur thin membranes,
once each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as nn_functional
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from napari_drososeg.errors import DrososegError

ELASTIC_SPACING = 32
"""Distance in px of the points that an elastic deformation moves at random; between them it is smooth."""


@dataclass(frozen=True)
class Augmentation:
    """Random changes of a patch; each strength 0 (or False) turns one off.

    Parameters
    ----------
    turns : bool
        Flips and quarter turns: exact, nothing is interpolated.
    rotation : float
        Largest angle in degrees, drawn from ± this. 180 is any angle.
    zoom_in, zoom_out : float
        Largest magnification is ``1 + zoom_in``, smallest ``1 / (1 + zoom_out)``.
    elastic : float
        Standard deviation in px of random shifts every `ELASTIC_SPACING` px, with smooth ones between them.
    distortion : float
        Largest optical distortion, barrel or pincushion: how far the middle of an edge of the patch is moved, as a
        share of half the edge.
    resampled : float
        Share of the patches that any of these five may change. The others are cut out as they are, so that a network
        also sees pixels that nothing interpolated, as those are that it predicts from.
    brightness : float
        Largest shift, in standard deviations of the section.
    contrast : float
        Largest factor is ``1 + contrast``, smallest its inverse.
    gamma : float
        Largest exponent is ``1 + gamma``, smallest its inverse; grey values are brought to 0-1 over ±3 standard
        deviations for it.
    blur : float
        Largest standard deviation of a Gaussian blur in px.
    noise : float
        Largest standard deviation of added Gaussian noise, in standard deviations of the section.

    Raises
    ------
    DrososegError
        If a strength is negative, or the distortion would fold the corners of a patch.
    """

    turns: bool = True
    rotation: float = 0.0
    zoom_in: float = 0.0
    zoom_out: float = 0.0
    elastic: float = 0.0
    distortion: float = 0.0
    resampled: float = 1.0
    brightness: float = 0.25
    contrast: float = 0.25
    gamma: float = 0.25
    blur: float = 0.0
    noise: float = 0.1

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value < math.inf:
                raise DrososegError(f"The augmentation's {name} cannot be {value}; 0 turns it off.")
        if self.distortion >= 1 / 6:  # where 1 + 3 k r^2 reaches 0 in a corner, at r^2 = 2
            raise DrososegError(f"An optical distortion of {self.distortion:g} folds the patch; use less than 0.16.")
        if self.resampled > 1:
            raise DrososegError(f"The augmentation's resampled cannot be {self.resampled:g}; it is a share, 0 to 1.")

    @property
    def resamples(self) -> bool:
        """Whether pixels are moved to where there were none."""
        moves = any((self.rotation, self.zoom_in, self.zoom_out, self.elastic, self.distortion))
        return moves and self.resampled > 0

    @classmethod
    def preset(cls, name: str) -> Augmentation:
        """Return one of `PRESETS`.

        Raises
        ------
        DrososegError
            If there is none of this name.
        """
        if name not in PRESETS:
            raise DrososegError(f"Unknown augmentation '{name}'; choose one of: {', '.join(PRESETS)}.")
        return PRESETS[name]


PRESETS = {
    "none": Augmentation(turns=False, brightness=0, contrast=0, gamma=0, noise=0),
    "mild": Augmentation(),
    # half of the patches keep their pixels as they are, since that is how a network sees what it predicts from
    "medium": Augmentation(
        rotation=180,
        zoom_in=0.25,
        zoom_out=0.25,
        elastic=1.5,
        resampled=0.5,
        brightness=0.3,
        contrast=0.3,
        gamma=0.3,
        blur=0.5,
        noise=0.15,
    ),
    "strong": Augmentation(
        rotation=180,
        zoom_in=0.4,
        zoom_out=0.4,
        elastic=3,
        distortion=0.1,
        brightness=0.4,
        contrast=0.4,
        gamma=0.4,
        blur=1,
        noise=0.2,
    ),
    # flips, any angle and magnifications up to 1.5, of image and labels alike; no grey values
    "study": Augmentation(rotation=180, zoom_in=0.5, brightness=0, contrast=0, gamma=0, noise=0),
}
"""Augmentations by name. ``study`` is that of the reference study, ``medium`` what the zoo is trained with."""


class Window(v2.Transform):
    """Take a patch out of a section, which may turn, magnify and deform it.

    Parameters
    ----------
    augmentation : Augmentation
        What may happen.
    rng : numpy.random.Generator
        Decides.
    origin : tuple of int
        First row and column of the patch where nothing happens.
    patch : int
        Edge in px.

    Notes
    -----
    Takes an Image (1, Y, X) and Masks (K, Y, X) of whole sections, so that a turned patch reads the context that is
    there. Outside the section the image is mirrored, and masks are 0: unlabelled. The image is interpolated linearly,
    masks take the nearest pixel.
    """

    def __init__(
        self, augmentation: Augmentation, rng: np.random.Generator, origin: tuple[int, int], patch: int
    ) -> None:
        super().__init__()
        self.augmentation, self.rng, self.origin, self.patch = augmentation, rng, origin, patch

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:  # noqa: ARG002 - v2's name
        """Draw where each pixel of the patch is taken from: ``where`` (2, P, P) float32, rows and columns."""
        share = self.augmentation.resampled
        if not self.augmentation.resamples or (share < 1 and self.rng.uniform() >= share):
            return {}
        middle = (self.patch - 1) / 2
        where = sampling_grid(self.augmentation, self.rng, self.patch)
        where += np.asarray(self.origin, np.float32)[:, None, None] + np.float32(middle)
        return {"where": where}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Take the patch out of an Image or a Mask."""
        if not params:
            y, x = self.origin
            return tv_tensors.wrap(inpt[..., y : y + self.patch, x : x + self.patch], like=inpt)
        resample = _nearest if isinstance(inpt, tv_tensors.Mask) else _linear
        return tv_tensors.wrap(resample(inpt.as_subclass(Tensor), params["where"]), like=inpt)


def sampling_grid(augmentation: Augmentation, rng: np.random.Generator, patch: int) -> NDArray[np.float32]:
    """Return for each pixel of a patch the place it is taken from, as rows and columns from the middle, in px.

    Optical distortion is radial, ``r (1 + k r^2)``. The elastic deformation is that of Ronneberger, Fischer, Brox:
    U-Net. MICCAI 2015: random shifts on a coarse grid, bicubic between.

    Returns
    -------
    ndarray of float32, shape (2, P, P)
    """
    half = (patch - 1) / 2
    line = np.linspace(-half, half, patch, dtype=np.float32)
    angle = math.radians(augmentation.rotation * rng.uniform(-1, 1))
    low, high = -math.log1p(augmentation.zoom_out), math.log1p(augmentation.zoom_in)
    scale = math.exp(-rng.uniform(low, high))
    bend = augmentation.distortion * rng.uniform(-1, 1) / half**2
    y, x = line[:, None], line[None, :]
    radial = np.float32(scale) * (1 + np.float32(bend) * (y * y + x * x))
    cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    where: NDArray[np.float32] = np.stack([(cos * y - sin * x) * radial, (sin * y + cos * x) * radial])
    if augmentation.elastic:
        points = -(-patch // ELASTIC_SPACING) + 1
        shifts = augmentation.elastic * rng.standard_normal((1, 2, points, points), dtype=np.float32)
        smooth = nn_functional.interpolate(
            torch.from_numpy(shifts), size=(patch, patch), mode="bicubic", align_corners=True
        )
        where += smooth[0].numpy()
    return where


def _linear(section: Tensor, where: NDArray[np.float32]) -> Tensor:
    """Interpolate a section (1, Y, X) at places (2, P, P); mirrored outside."""
    height, width = section.shape[-2:]
    scale = np.array([2 / max(1, width - 1), 2 / max(1, height - 1)], np.float32)
    grid = torch.from_numpy(np.moveaxis(where[::-1], 0, -1) * scale - np.float32(1))
    return nn_functional.grid_sample(section[None], grid[None], padding_mode="reflection", align_corners=True)[0]


def _nearest(section: Tensor, where: NDArray[np.float32]) -> Tensor:
    """Take the nearest pixels of a section (K, Y, X) at places (2, P, P); 0 outside."""
    height, width = section.shape[-2:]
    rows, columns = torch.from_numpy(np.rint(where).astype(np.int64))
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    return section[..., rows.clamp(0, height - 1), columns.clamp(0, width - 1)] * inside


class Turn(v2.Transform):
    """Flip and turn by quarters, exactly.

    Parameters
    ----------
    rng : numpy.random.Generator
        Decides.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__()
        self.rng = rng

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:  # noqa: ARG002 - v2's name
        """Draw one of the eight orientations of a square."""
        return {"quarters": int(self.rng.integers(4)), "flip": bool(self.rng.integers(2))}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Turn an Image or a Mask."""
        turned = tv_tensors.wrap(torch.rot90(inpt.as_subclass(Tensor), params["quarters"], (-2, -1)), like=inpt)
        return functional.horizontal_flip(turned) if params["flip"] else turned


class GreyValues(v2.Transform):
    """Change the image alone: contrast, brightness, gamma, blur, noise, in this order.

    Parameters
    ----------
    augmentation : Augmentation
        What may happen.
    rng : numpy.random.Generator
        Decides.
    """

    def __init__(self, augmentation: Augmentation, rng: np.random.Generator) -> None:
        super().__init__()
        self.augmentation, self.rng = augmentation, rng

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:  # noqa: ARG002 - v2's name
        """Change an Image; Masks pass."""
        if not isinstance(inpt, tv_tensors.Image):
            return inpt
        strength, rng = self.augmentation, self.rng
        image = inpt.as_subclass(Tensor)
        # v2's own contrast and brightness are for values from 0 to 1; these have mean 0 and standard deviation 1.
        if strength.contrast or strength.brightness:
            image = image * self._factor(strength.contrast) + strength.brightness * rng.uniform(-1, 1)
        if strength.gamma:
            exponent = self._factor(strength.gamma)
            image = functional.adjust_gamma((image / 6 + 0.5).clamp_(0, 1), exponent) * 6 - 3
        if strength.blur and (sigma := strength.blur * rng.uniform()) > 0.1:  # less is nothing, and costs the same
            image = functional.gaussian_blur(image, [2 * math.ceil(3 * sigma) + 1] * 2, [sigma] * 2)
        if strength.noise:
            noise = rng.standard_normal(image.shape, dtype=np.float32)
            image = image + strength.noise * rng.uniform() * torch.from_numpy(noise)
        return tv_tensors.wrap(image, like=inpt)

    def _factor(self, strength: float) -> float:
        return float((1 + strength) ** self.rng.uniform(-1, 1))


def augment(augmentation: Augmentation, rng: np.random.Generator, origin: tuple[int, int], patch: int) -> v2.Transform:
    """Return the transform that makes one patch: an Image (1, Y, X) and Masks (K, Y, X) to edges of `patch`."""
    steps: list[v2.Transform] = [Window(augmentation, rng, origin, patch)]
    if augmentation.turns:
        steps.append(Turn(rng))
    return v2.Compose([*steps, GreyValues(augmentation, rng)])
