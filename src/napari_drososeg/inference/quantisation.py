"""int8 by post-training quantisation: about twice the speed of bf16 on processors with VNNI.

The ranges of activations are taken from patches of the stack that is being predicted, so that they fit its contrast; in
a run that fills a folder, from those of its first file.
It is done in a process of its own, and the result is cached under the hashes of the checkpoint and of those patches.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from napari_drososeg.errors import DrososegError
from napari_drososeg.inference.child import run_child
from napari_drososeg.inference.conversion import cache_name, cached

QUANTISATION = 1
"""Part of the cache's key: raise it when the recipe below changes."""


PATCHES = "patches.npz"


def has_nncf() -> bool:
    """Whether the quantiser is installed."""
    return importlib.util.find_spec("nncf") is not None


def digest(patches: list[NDArray[np.float32]]) -> str:
    """Return what tells patches from others."""
    found = hashlib.sha256()
    for patch in patches:
        found.update(patch.tobytes())
    return found.hexdigest()[:12]


def quantised(
    checkpoint: Path,
    patches: list[NDArray[np.float32]],
    *,
    notify: Callable[[str], None],
    cancelled: Callable[[], bool] | None = None,
) -> ov.Model:
    """Return a checkpoint with int8 convolutions, from the cache or quantised now.

    Parameters
    ----------
    checkpoint : Path
        The network.
    patches : list of ndarray of float32, (1, 1, H, W)
        Normalised pixels of the stack at hand; sides are multiples of the stride.
    notify : callable
        Told that it takes a while.
    cancelled : callable, optional
        Asked while it is quantised, see `run_child`.

    Raises
    ------
    DrososegError
        If the quantiser is not installed or fails, and there is nothing in the cache.
    Interrupted
        If it was cancelled.
    """
    name = f"{cache_name(checkpoint)}-int8-{QUANTISATION}-{digest(patches)}"

    def make(folder: Path) -> None:
        if not has_nncf():
            raise DrososegError(
                "int8 needs the quantiser: run 'pip install \"napari-drososeg[int8]\"', or use another precision."
            )
        notify("Preparing the int8 network, once; this takes up to a minute.")
        np.savez(folder / PATCHES, *patches)
        try:
            run_child("quantise", checkpoint, folder, cancelled)
        except DrososegError as error:
            raise DrososegError(f"The int8 network cannot be made ({error}) Use another precision.") from error

    return cached(name, make)


def read_patches(folder: Path) -> list[NDArray[np.float32]]:
    """Read the patches that `quantised` left in a folder, and delete their file."""
    with np.load(folder / PATCHES) as kept:
        patches = [kept[name] for name in kept.files]
    (folder / PATCHES).unlink()
    return patches


def quantise(model: ov.Model, patches: list[NDArray[np.float32]]) -> ov.Model:
    """Quantise the convolutions of `model`, calibrated on `patches` (1, 1, H, W).

    The first and the last convolution stay in floating point: they cost little and all detail passes through them.
    """
    # said by torch about compilers, while the quantiser is imported; of no concern to users
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    import nncf

    logging.getLogger("nncf").setLevel(logging.ERROR)
    convolutions = [n.get_friendly_name() for n in model.get_ordered_ops() if n.get_type_name() == "Convolution"]
    kept = [convolutions[0], convolutions[-1]] if len(convolutions) > 2 else []
    with contextlib.redirect_stdout(io.StringIO()):  # it draws progress bars and cannot be asked not to
        result: Any = nncf.quantize(
            model,
            nncf.Dataset(patches),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(patches),
            ignored_scope=nncf.IgnoredScope(names=kept),
        )
    return result
