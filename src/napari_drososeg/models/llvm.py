"""Two LLVMs in one process end it; this keeps the second one out."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path


def spare_triton() -> None:
    """Keep triton, which torchvision imports in passing, out of a process that holds another LLVM.

    Mesa, the OpenGL of remote desktops, virtual machines and many graphics cards, compiles with an LLVM of its own.
    Where napari has loaded it, importing triton ends the whole program with a segmentation fault. Nothing here needs
    triton: it is what `torch.compile` writes programs for graphics cards with.
    """
    if "triton" not in sys.modules:
        with contextlib.suppress(OSError):  # not Linux, where alone torch brings triton along
            if "libLLVM" in Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace"):
                sys.modules["triton"] = None  # type: ignore[assignment]  # importing it now fails in peace
