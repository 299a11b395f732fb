"""What of the form cannot work, and why: known before the click. No Qt here."""

from __future__ import annotations

import sys
from importlib.util import find_spec

from napari_drososeg._widgets.work.job import Scope
from napari_drososeg.inference.config import cuda_driver
from napari_drososeg.inference.rescaling import RESCALE_AT_MOST


def device_problem(device: str) -> str | None:
    """Why a device cannot be used on this machine, or None."""
    if device.startswith("cuda") and not cuda_driver():
        return "This machine has no graphics card with a suitable driver; choose auto or cpu."
    if device == "mps" and sys.platform != "darwin":
        return "mps is for Apple computers; choose auto or cpu."
    return None


def engine_problem(engine: str, device: str) -> str | None:
    """Why an engine cannot be used, or None."""
    if engine != "openvino":
        return None
    if find_spec("openvino") is None:
        return "OpenVINO is not installed; choose auto or torch."
    if device not in ("auto", "cpu"):
        return f"OpenVINO runs on the CPU, not on {device}; choose auto or torch."
    return None


def precision_problem(precision: str, engine: str, device: str) -> str | None:
    """Why a precision cannot be used, or None."""
    if precision == "int8":
        if engine == "torch" or device not in ("auto", "cpu"):
            return "int8 needs OpenVINO on the CPU; choose that, or another precision."
        if find_spec("nncf") is None or find_spec("openvino") is None:
            return "int8 needs 'pip install napari-drososeg[int8]'; choose another precision."
    if precision == "bf16" and device in ("auto", "cpu") and not (device == "auto" and cuda_driver()):
        from napari_drososeg.inference.config import cpu_has_bf16

        if not cpu_has_bf16():
            return "This processor does not support bf16; choose auto or f32."
    if precision == "f16" and (device == "cpu" or engine == "openvino"):
        return "f16 is for graphics cards; choose bf16 or f32 on the CPU."
    return None


def machine_problems(device: str, engine: str, precision: str) -> dict[str, str]:
    """Which of the three cannot be used on this machine, and why."""
    found = {
        "device": device_problem(device),
        "engine": engine_problem(engine, device),
        "precision": precision_problem(precision, engine, device),
    }
    return {name: reason for name, reason in found.items() if reason}


def pixel_size_problem(pixel_size: float, network: float | None) -> str | None:
    """Why a pixel size in nm cannot be right, or None."""
    if pixel_size <= 0:
        return "Enter the pixel size in nanometres."
    if network and not network / RESCALE_AT_MOST <= pixel_size <= network * RESCALE_AT_MOST:
        return (
            f"A pixel size of {pixel_size:g} nm is too far from the {network:g} nm the network was trained at; check "
            "the unit (nanometres)."
        )
    return None


def problems(
    *,
    image: str | None,
    network: str | None,
    scope: Scope,
    first: int,
    last: int,
    flat_view: bool,
    pixel_size: float,
    network_pixel_size: float | None,
    device: str,
    engine: str,
    precision: str,
) -> dict[str, str]:
    """List the fields that cannot work.

    Parameters
    ----------
    image : str or None
        What is wrong with the image, None for nothing.
    network : str or None
        Why there is no network to use, None where there is one.
    scope, first, last
        What is to be segmented.
    flat_view : bool
        Whether the viewer shows rows and columns of a section, so that there is a section on screen.
    pixel_size, network_pixel_size : float
        In nm; the network's is None while it is not known.
    device, engine, precision : str
        As in `PredictConfig`.

    Returns
    -------
    dict of str to str
        Field name to reason, in the order of the form; empty when Run can be pressed.
    """
    found = {
        "image": image,
        "network": network,
        "scope": "This needs the 2D view of a section; choose another part."
        if scope in (Scope.VIEW, Scope.SECTION) and not flat_view
        else None,
        "range": f"The first section ({first}) comes after the last ({last})."
        if scope is Scope.RANGE and first > last
        else None,
        "pixel_size": pixel_size_problem(pixel_size, network_pixel_size) if image is None else None,
        "device": device_problem(device),
        "engine": engine_problem(engine, device),
        "precision": precision_problem(precision, engine, device),
    }
    return {name: reason for name, reason in found.items() if reason}
