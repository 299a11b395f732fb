"""Which tile next, and which are done: plain geometry on rectangles, no Qt.

A rectangle is ``(y0, y1, x0, x1)`` in pixels of one section, upper ends exclusive.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

Rect = tuple[int, int, int, int]


class _HasWrite(Protocol):
    @property
    def write(self) -> tuple[slice, slice]: ...


class TaskLike(Protocol):
    """What is needed of an inference task: its section and where its tile writes."""

    @property
    def z(self) -> int: ...

    @property
    def tile(self) -> _HasWrite: ...


@dataclass(frozen=True)
class View:
    """What the user looks at, in pixels of the image's finest level.

    Parameters
    ----------
    section : int
        The z index on screen.
    rect : Rect
        The part of the section that is on screen.
    """

    section: int
    rect: Rect

    @property
    def centre(self) -> tuple[float, float]:
        """Middle of the visible part, (y, x)."""
        y0, y1, x0, x1 = self.rect
        return ((y0 + y1) / 2, (x0 + x1) / 2)


def has_moved(before: View, now: View) -> bool:
    """Whether the user looks at something else: another section, or a part whose middle was not on screen."""
    (cy, cx), (y0, y1, x0, x1) = now.centre, before.rect
    return now.section != before.section or not (y0 <= cy <= y1 and x0 <= cx <= x1)


def rect_of(slices: tuple[slice, slice]) -> Rect:
    """Rectangle of a pair of (ys, xs) slices with plain start and stop."""
    ys, xs = slices
    return (ys.start, ys.stop, xs.start, xs.stop)


def area(rect: Rect) -> int:
    """Pixels in a rectangle."""
    return (rect[1] - rect[0]) * (rect[3] - rect[2])


def overlaps(a: Rect, b: Rect) -> bool:
    """Whether two rectangles share a pixel."""
    return a[0] < b[1] and b[0] < a[1] and a[2] < b[3] and b[2] < a[3]


def visit_order(tasks: Iterable[TaskLike], view: View) -> list[TaskLike]:
    """Sort tasks so that what the user looks at comes first.

    The section on screen first, in it what is visible, from the middle outwards; then the neighbouring sections,
    nearest first, the next one before the previous one.

    Parameters
    ----------
    tasks : iterable of tasks
        In any order.
    view : View
        What is on screen.

    Returns
    -------
    list of tasks
        The same tasks.
    """
    cy, cx = view.centre

    def key(task: TaskLike) -> tuple[int, bool, bool, float]:
        y0, y1, x0, x1 = rect = rect_of(task.tile.write)
        distance = ((y0 + y1) / 2 - cy) ** 2 + ((x0 + x1) / 2 - cx) ** 2
        return (abs(task.z - view.section), task.z < view.section, not overlaps(rect, view.rect), distance)

    return sorted(tasks, key=key)


def uncovered(rect: Rect, done: Sequence[Rect]) -> list[Rect]:
    """Cut rectangles out of another and return what is left.

    Tile grids differ between runs (another view, another free memory), so done work is kept as rectangles and
    compared by area, not by tile number.
    """
    left = [rect] if area(rect) else []  # blended tiles may be there for their neighbours alone
    for d in done:
        left = [piece for r in left for piece in _cut(r, d)]
        if not left:
            break
    return left


def _cut(r: Rect, d: Rect) -> list[Rect]:
    if not overlaps(r, d):
        return [r]
    y0, y1 = max(r[0], d[0]), min(r[1], d[1])
    pieces = [
        (r[0], y0, r[2], r[3]),
        (y1, r[1], r[2], r[3]),
        (y0, y1, r[2], d[2]),
        (y0, y1, d[3], r[3]),
    ]
    return [p for p in pieces if p[0] < p[1] and p[2] < p[3]]


class DoneMap:
    """Which pixels of which sections a job has finished."""

    def __init__(self) -> None:
        self._rects: dict[int, list[Rect]] = {}
        self._missing: dict[int, dict[Rect, int]] = {}  # answers: asked anew whenever the user looks elsewhere

    def add(self, z: int, rect: Rect) -> None:
        """Note a finished rectangle; those inside it are forgotten."""
        old = [r for r in self._rects.get(z, []) if uncovered(r, [rect])]
        self._rects[z] = [*old, rect]
        self._missing.pop(z, None)

    def remove(self, z: int, rect: Rect) -> None:
        """Note that a rectangle is to be done again."""
        self._rects[z] = [piece for r in self._rects.get(z, []) for piece in _cut(r, rect)]
        self._missing.pop(z, None)

    def covers(self, z: int, rect: Rect) -> bool:
        """Whether every pixel of the rectangle is finished."""
        return not uncovered(rect, self._rects.get(z, []))

    def missing(self, z: int, rect: Rect) -> int:
        """How many pixels of the rectangle are not finished."""
        known = self._missing.setdefault(z, {})
        if rect not in known:
            known[rect] = sum(area(r) for r in uncovered(rect, self._rects.get(z, [])))
        return known[rect]

    def sections(self, shape: tuple[int, int]) -> list[int]:
        """Sections of (Y, X) pixels that are finished whole."""
        return sorted(z for z in self._rects if self.covers(z, (0, shape[0], 0, shape[1])))

    def clear(self) -> None:
        """Forget everything."""
        self._rects.clear()
        self._missing.clear()


def unfinished(tasks: Sequence[TaskLike], done: DoneMap, *, whole_sections: bool) -> list[TaskLike]:
    """Leave out the tasks that are finished.

    Parameters
    ----------
    tasks : sequence of tasks
        Planned ones.
    done : DoneMap
        What is finished.
    whole_sections : bool
        Keep all tasks of a section that is not finished: networks with global context are blended from neighbouring
        tiles, so a tile cannot be made up for alone.
    """
    left = [t for t in tasks if not done.covers(t.z, rect_of(t.tile.write))]
    if not whole_sections:
        return left
    sections = {t.z for t in left}
    return [t for t in tasks if t.z in sections]


def unfinished_in(tasks: Sequence[TaskLike], done: DoneMap, z: int) -> int:
    """Count the tasks of a section that are not finished."""
    return len(unfinished([t for t in tasks if t.z == z], done, whole_sections=False))
