"""The class table: which label value means what, in which colour.

Everything that needs a class name, a colour or the number of classes takes it from a `ClassTable`. The table of
the shipped networks is `DROSOPHILA_CLASSES`; a checkpoint carries its own, so networks of other classes work too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from napari_drososeg.errors import DrososegError

UNLABELLED = 0
"""Label value of pixels without a class: transparent, ignored by training and evaluation."""

RGBA = tuple[float, float, float, float]


@dataclass(frozen=True)
class SegmentationClass:
    """One class of a table.

    Parameters
    ----------
    value : int
        Label value, 1 to 255. Network channel ``value - 1``.
    name : str
        What a person calls it.
    color : str
        ``#RRGGBB``.
    """

    value: int
    name: str
    color: str

    @property
    def rgb(self) -> tuple[int, int, int]:
        """Colour as three integers 0 to 255."""
        return (int(self.color[1:3], 16), int(self.color[3:5], 16), int(self.color[5:7], 16))


@dataclass(frozen=True)
class ClassTable:
    """An ordered table of classes with label values 1, 2, ..., n.

    Parameters
    ----------
    classes : tuple of SegmentationClass
        At least one; values must be 1, 2, ... in order, names unique.

    Raises
    ------
    DrososegError
        If the values have gaps, a name repeats or a colour is not ``#RRGGBB``.
    """

    classes: tuple[SegmentationClass, ...]

    def __post_init__(self) -> None:
        values = [c.value for c in self.classes]
        if not values or values != list(range(1, len(values) + 1)) or len(values) > 255:
            raise DrososegError(f"A class table needs the label values 1, 2, 3, ... in order, not {values}.")
        if len(set(self.names)) != len(values):
            raise DrososegError(f"Class names must differ: {', '.join(self.names)}.")
        for c in self.classes:
            if not re.fullmatch(r"#[0-9A-Fa-f]{6}", c.color):
                raise DrososegError(f"The colour of class '{c.name}' must be written #RRGGBB, not '{c.color}'.")

    def __len__(self) -> int:
        return len(self.classes)

    def __iter__(self) -> Iterator[SegmentationClass]:
        return iter(self.classes)

    @property
    def names(self) -> tuple[str, ...]:
        """Class names in label order."""
        return tuple(c.name for c in self.classes)

    @property
    def colors(self) -> tuple[str, ...]:
        """Colours ``#RRGGBB`` in label order."""
        return tuple(c.color for c in self.classes)

    def color_dict(self) -> dict[int | None, RGBA]:
        """Colours for a labels layer.

        Returns
        -------
        dict of int or None to tuple of four floats
            RGBA in 0 to 1 for each label value; `UNLABELLED` and ``None`` (every other value) are transparent.
        """
        transparent = (0.0, 0.0, 0.0, 0.0)
        table: dict[int | None, RGBA] = {None: transparent, UNLABELLED: transparent}
        for c in self.classes:
            r, g, b = c.rgb
            table[c.value] = (r / 255, g / 255, b / 255, 1.0)
        return table

    def to_list(self) -> list[dict[str, int | str]]:
        """Return the table as JSON-ready dictionaries with the keys ``value``, ``name`` and ``color``."""
        return [asdict(c) for c in self.classes]

    @classmethod
    def from_list(cls, rows: Sequence[Mapping[str, object]]) -> ClassTable:
        """Build a table from what `to_list` returns.

        Raises
        ------
        DrososegError
            If a row lacks a key, a value is not a number, or the table is not valid.
        """
        try:
            return cls(tuple(SegmentationClass(int(str(r["value"])), str(r["name"]), str(r["color"])) for r in rows))
        except DrososegError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise DrososegError("Each class needs a 'value' (1, 2, 3, ...), a 'name' and a 'color'.") from error


DROSOPHILA_CLASSES = ClassTable(
    (
        SegmentationClass(1, "cytoplasm", "#56B4E9"),
        SegmentationClass(2, "cell membrane", "#E69F00"),
        SegmentationClass(3, "mitochondria", "#CC79A7"),
    )
)
"""The three classes of the reference study in colours that colour-blind people can tell apart (Okabe-Ito)."""
