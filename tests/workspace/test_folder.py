from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import example, given, settings
from hypothesis import strategies as st

from napari_drososeg.classes import DROSOPHILA_CLASSES
from napari_drososeg.errors import DrososegError
from napari_drososeg.io import Stack, as_stack
from napari_drososeg.workspace import Workspace, create_workspace, default_folder, identity, open_workspace, rectangle
from napari_drososeg.workspace.chunks import ChunkedLabels
from napari_drososeg.workspace.identity import ImageIdentity
from napari_drososeg.workspace.regions import ReviewedRegion
from napari_drososeg.workspace.rounds import Round, Rounds

STROKE = slice(5, 8), slice(490, 551)


def paint(workspace: Workspace, z: int = 1, value: int = 2, at: tuple[slice, slice] = STROKE) -> None:
    old = workspace.annotation.read(z, *at)
    workspace.annotation.write(z, *at, np.full_like(old, value))


def shows(value: int) -> Any:
    return lambda z, ys, xs: np.full((ys.stop - ys.start, xs.stop - xs.start), value, np.uint8)


def test_it_stands_as_it_was_when_opened_again(workspace: Workspace, image: Stack) -> None:
    paint(workspace)
    region = workspace.regions.add(2, rectangle(slice(0, 10), slice(0, 20)), shown=shows(3), locked=True)
    workspace.save_settings(pixel_size=9.2)
    workspace.close()
    with open_workspace(workspace.folder, image) as again:
        assert again.annotation.counts(1)[2] == 3 * 61
        assert again.annotation.sections == [1]
        assert list(again.regions) == [region]
        assert (again.reviewed.read(2)[:10, :20] == 3).all()
        assert again.reviewed.counts()[3] == 200
        assert again.classes == DROSOPHILA_CLASSES
        assert again.settings == {"pixel_size": 9.2}
        assert again.stack().shape == image.shape
        assert again.trained_pixels() == {"cytoplasm": 0, "cell membrane": 183, "mitochondria": 0}
        assert again.locked(2).sum() == 200


def test_it_lies_beside_the_image() -> None:
    assert default_folder("/data/stack.tif") == Path("/data/stack.tif.drososeg").resolve()


def test_other_programs_read_it(workspace: Workspace) -> None:
    paint(workspace)
    array: Any = zarr.open_array(workspace.folder / "annotation.zarr", mode="r")
    expected = np.zeros((3, 96, 600), np.uint8)
    expected[1, *STROKE] = 2
    np.testing.assert_array_equal(array[:], expected)
    main = json.loads((workspace.folder / "workspace.json").read_text())
    assert (main["format"], main["version"]) == ("drososeg-workspace", 1)
    assert [c["name"] for c in main["classes"]] == list(DROSOPHILA_CLASSES.names)


def test_only_what_was_touched_is_on_disk(tmp_path: Path) -> None:
    labels = ChunkedLabels(tmp_path / "a.zarr", (1000, 100_000, 100_000))  # 10 TB
    labels.write(700, slice(99_990, 100_000), slice(511, 513), np.full((10, 2), 3, np.uint8))
    files = [p for p in (tmp_path / "a.zarr").rglob("*") if p.is_file() and p.name != "zarr.json"]
    assert len(files) == 2
    assert sum(f.stat().st_size for f in files) < 10_000
    again = ChunkedLabels(tmp_path / "a.zarr", (1000, 100_000, 100_000))
    assert again.counts()[3] == 20
    labels.write(700, slice(99_990, 100_000), slice(511, 513), np.zeros((10, 2), np.uint8))
    assert not any(f.exists() for f in files)


@settings(max_examples=40, deadline=None)
@given(
    writes=st.lists(
        st.tuples(st.integers(0, 1), st.integers(0, 590), st.integers(0, 80), st.integers(0, 3)), max_size=6
    )
)
def test_counts_are_those_of_the_array(writes: list[tuple[int, int, int, int]], tmp_path_factory: Any) -> None:
    labels = ChunkedLabels(tmp_path_factory.mktemp("c") / "a.zarr", (2, 90, 600))
    plain = np.zeros((2, 90, 600), np.uint8)
    for z, x, y, value in writes:
        at = slice(y, min(90, y + 9)), slice(x, min(600, x + 30))
        plain[z, *at] = value
        labels.write(z, *at, plain[z, *at])
    for z in range(2):
        np.testing.assert_array_equal(labels.read(z), plain[z])
        expected = np.bincount(plain[z].ravel(), minlength=256)
        assert labels.counts(z)[1:].tolist() == expected[1:].tolist()
    assert labels.counts()[1:].sum() == np.count_nonzero(plain)
    assert labels.sections == [z for z in range(2) if plain[z].any()]


@settings(max_examples=60, deadline=None)
@given(
    corners=st.lists(st.tuples(st.floats(-5, 25), st.floats(-5, 30)), min_size=3, max_size=7),
    box=st.tuples(st.integers(0, 10), st.integers(0, 10), st.integers(1, 10), st.integers(1, 15)),
)
@example(corners=[(0.0, 0.0), (0.0, 0.0), (2.2e-311, 1.0)], box=(0, 0, 1, 1))  # an edge as good as level
def test_a_lasso_holds_the_pixels_whose_centre_is_inside(
    corners: list[tuple[float, float]], box: tuple[int, int, int, int]
) -> None:
    ys, xs = slice(box[0], box[0] + box[2]), slice(box[1], box[1] + box[3])
    found = ReviewedRegion(1, 0, tuple(corners)).mask(ys, xs)
    for y in range(ys.start, ys.stop):
        for x in range(xs.start, xs.stop):
            crossings = 0
            for (y0, x0), (y1, x1) in zip(corners, [*corners[1:], corners[0]], strict=True):
                if min(y0, y1) <= y < max(y0, y1):
                    crossings += np.ceil(x0 + (y - y0) / (y1 - y0) * (x1 - x0)) <= x
            assert found[y - ys.start, x - xs.start] == (crossings % 2 == 1)


def test_a_rectangle_holds_its_pixels() -> None:
    region = ReviewedRegion(1, 0, rectangle(slice(2, 5), slice(3, 9)))
    assert region.box((20, 20)) == (slice(2, 5), slice(3, 9))
    assert region.mask(slice(0, 20), slice(0, 20)).nonzero()[0].size == 18


def test_a_reviewed_region_stays_as_it_was_confirmed(workspace: Workspace) -> None:
    region = workspace.regions.add(0, ((10, 500), (10, 540), (40, 520)), shown=shows(3))
    n = int(workspace.reviewed.counts()[3])
    assert n > 500
    paint(workspace, z=0, at=(slice(12, 14), slice(505, 530)))
    shown = workspace.merge(0, slice(0, 96), slice(0, 600), np.ones((96, 600), np.uint8))
    assert [np.count_nonzero(shown == v) for v in (2, 3)] == [50, n - 50]
    assert workspace.trained_pixels(0) == {"cytoplasm": 0, "cell membrane": 50, "mitochondria": n - 50}
    workspace.regions.remove(region.number)
    assert workspace.trained_pixels(0) == {"cytoplasm": 0, "cell membrane": 50, "mitochondria": 0}


def test_taking_a_review_back_leaves_what_another_region_holds(workspace: Workspace) -> None:
    first = workspace.regions.add(0, rectangle(slice(0, 10), slice(0, 10)), shown=shows(1))
    workspace.regions.add(0, rectangle(slice(5, 15), slice(0, 10)), shown=shows(1))
    workspace.regions.remove(first.number)
    assert workspace.reviewed.counts()[1] == 100
    assert len(workspace.regions) == 1
    third = workspace.regions.add(1, shown=shows(2))
    assert third.number == 3
    assert workspace.reviewed.counts(1)[2] == 96 * 600


def test_a_locked_region_never_trains_whatever_is_painted_there(workspace: Workspace) -> None:
    region = workspace.regions.add(0, rectangle(slice(0, 10), slice(0, 10)), shown=shows(1), locked=True)
    paint(workspace, z=0, value=3, at=(slice(8, 12), slice(0, 10)))
    assert workspace.trained_pixels() == {"cytoplasm": 0, "cell membrane": 0, "mitochondria": 20}
    assert np.bincount(workspace.labels(0)[workspace.locked(0)]).tolist() == [0, 80, 0, 20]
    workspace.regions.lock(region.number, locked=False)
    assert workspace.trained_pixels() == {"cytoplasm": 80, "cell membrane": 0, "mitochondria": 40}


def test_nothing_labelled_is_nothing_to_review(workspace: Workspace) -> None:
    for polygon in ((), rectangle(slice(500, 600), slice(0, 9))):
        with pytest.raises(DrososegError, match="Nothing is labelled"):
            workspace.regions.add(0, polygon, shown=shows(0))
    assert len(workspace.regions) == 0


def test_another_image_is_refused_with_the_way_out(workspace: Workspace, image: Stack) -> None:
    workspace.close()
    pixels = np.stack([image.read(z) for z in range(3)])
    pixels[1, 50, 300] ^= 1
    for wrong, why in (
        (as_stack(pixels[:2]), "shape"),
        (as_stack(pixels.astype(np.uint16)), "uint16"),
        (as_stack(pixels), "its pixels differ"),
    ):
        with pytest.raises(DrososegError, match=f"{why}.*choose another folder"):
            open_workspace(workspace.folder, wrong)
    open_workspace(workspace.folder, replace(image, name="renamed")).close()  # not left locked by the refusals


def test_an_image_that_moved_is_asked_for(workspace: Workspace, image: Stack) -> None:
    assert image.path is not None
    moved = image.path.rename(image.path.with_name("moved.tif"))
    with pytest.raises(DrososegError, match="--image"):
        workspace.stack()
    assert workspace.stack(moved).shape == image.shape


def test_sections_of_an_image_in_no_file_are_copied(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).normal(0, 1, (4, 50, 60)).astype(np.float32)
    stack = as_stack(pixels, voxel_size=(40.0, 8.0, 8.0))
    with create_workspace(tmp_path / "w", stack) as workspace:
        with pytest.raises(DrososegError, match="not in a file"):
            workspace.stack()
        workspace.copy.add(stack, [2])
        workspace.copy.add(stack, [2, 0])
        copied = workspace.stack()
        assert workspace.copy.sections == [0, 2]
    assert copied.voxel_size == stack.voxel_size
    for z in (0, 2):
        np.testing.assert_array_equal(copied.read(z), pixels[z])


def test_what_is_no_workspace_is_left_alone(tmp_path: Path, image: Stack) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").touch()
    with pytest.raises(DrososegError, match="not a workspace"):
        create_workspace(tmp_path / "thesis", image)
    with pytest.raises(DrososegError, match="no workspace"):
        open_workspace(tmp_path / "thesis")
    assert [p.name for p in (tmp_path / "thesis").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 99}, "update napari-drososeg"),
        ({"format": "other"}, "not a workspace"),
        ({"image": {}}, "damaged"),
        ({"classes": [{"value": 5}]}, "class"),
    ],
)
def test_a_damaged_description_is_named(workspace: Workspace, change: dict[str, Any], message: str) -> None:
    workspace.close()
    main = workspace.folder / "workspace.json"
    main.write_text(json.dumps(json.loads(main.read_text()) | change))
    with pytest.raises(DrososegError, match=message):
        open_workspace(workspace.folder)


def test_a_damaged_chunk_is_named(workspace: Workspace) -> None:
    paint(workspace)
    workspace.close()
    chunk = workspace.folder / "annotation.zarr" / "c" / "1" / "0" / "1"
    chunk.write_bytes(chunk.read_bytes()[:20])
    with pytest.raises(DrososegError, match=r"c/1/0/1.*damaged"):
        open_workspace(workspace.folder)


def run(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


OPEN = "import sys; from napari_drososeg.workspace import open_workspace\n"


def test_a_second_process_is_refused_and_may_read(workspace: Workspace) -> None:
    paint(workspace)
    second = run(OPEN + "open_workspace(sys.argv[1])", workspace.folder)
    _, error = second.communicate()
    assert second.returncode == 1
    assert f"is open in another process ({os.getpid()})" in error
    reader = run(OPEN + "print(open_workspace(sys.argv[1], write=False).annotation.counts()[2])", workspace.folder)
    assert reader.communicate()[0].strip() == "183"
    workspace.close()
    third = run(OPEN + "open_workspace(sys.argv[1])", workspace.folder)
    assert third.communicate() == ("", "")


def test_a_reader_leaves_a_half_written_chunk_alone_and_the_owner_removes_it(workspace: Workspace) -> None:
    paint(workspace)
    part = workspace.folder / "annotation.zarr" / "c" / "1" / "0" / ".1.abcd.part"
    part.write_bytes(b"half")
    workspace.close()
    open_workspace(workspace.folder, write=False)
    assert part.exists()
    open_workspace(workspace.folder).close()
    assert not part.exists()


def test_a_reader_cannot_write(workspace: Workspace) -> None:
    with (
        open_workspace(workspace.folder, write=False) as reader,
        pytest.raises(DrososegError, match="read-only"),
    ):
        reader.save_settings(pixel_size=4.0)


def test_a_machine_that_cannot_be_asked_keeps_its_lock(workspace: Workspace) -> None:
    workspace.close()
    lock = workspace.folder / ".lock"
    lock.write_text(json.dumps({"host": "elsewhere", "process": 1, "since": "2020-01-01T00:00:00"}))
    with pytest.raises(DrososegError, match=r"machine elsewhere.*delete"):
        open_workspace(workspace.folder)
    lock.unlink()
    open_workspace(workspace.folder).close()


PAINT = (
    OPEN
    + """
import numpy as np
ws = open_workspace(sys.argv[1])
tracker = ws.tracker()
shown = np.ones((96, 600), np.uint8)
written = shown.copy()
box = slice(0, 96), slice(0, 600)
rng = np.random.default_rng(0)
for stroke in range(100000):
    y, x = rng.integers(93), rng.integers(539)
    shown[y:y + 3, x:x + 61] = rng.integers(1, 4)
    tracker.absorb(1, *box, shown, written)
    np.save(sys.argv[2] + ".part.npy", np.where(shown != written, shown, 0))
    import os; os.replace(sys.argv[2] + ".part.npy", sys.argv[2])
    print(stroke, flush=True)
"""
)


@pytest.mark.parametrize("after", [1, 7, 20])
def test_killed_while_painting_every_finished_stroke_is_there(workspace: Workspace, tmp_path: Path, after: int) -> None:
    workspace.close()
    with run(PAINT, workspace.folder, tmp_path / "saved.npy") as process:
        assert process.stdout is not None
        for _ in range(after):
            process.stdout.readline()
        time.sleep(0.01 * (after % 4))
        process.send_signal(signal.SIGKILL)
    saved = np.load(tmp_path / "saved.npy")
    with open_workspace(workspace.folder) as again:  # the lock died with the process
        found = again.annotation.read(1)
    # What was saved is there; on top of it there may be the stroke it was killed in.
    different = (found != saved).nonzero()
    assert all(v.size == 0 or np.ptp(v) < n for v, n in zip(different, (3, 61), strict=True))
    assert np.count_nonzero(saved) > 0


def test_two_threads_that_copy_sections_do_not_undo_each_other(workspace: Workspace, image: Stack) -> None:
    begun, go = threading.Event(), threading.Event()

    class Slow:
        def read(self, z: int) -> np.ndarray:
            begun.set()
            assert go.wait(60)
            return image.read(z)

    first = threading.Thread(target=workspace.copy.add, args=(Slow(), [0, 1]))
    second = threading.Thread(target=workspace.copy.add, args=(image, [1, 2]))
    first.start()
    assert begun.wait(60)
    second.start()
    second.join(1)
    go.set()
    first.join()
    second.join()
    assert workspace.copy.sections == [0, 1, 2]
    copied = workspace.copy.stack()
    assert copied is not None
    for z in range(3):
        np.testing.assert_array_equal(copied.read(z), image.read(z))


def test_an_image_is_known_by_few_reads_of_small_sections(monkeypatch: pytest.MonkeyPatch) -> None:
    class Counting:
        reads = 0
        shape, dtype, ndim = (5, 300, 200), np.dtype(np.uint8), 3

        def __getitem__(self, at: Any) -> np.ndarray:
            self.reads += 1
            return (np.indices(self.shape).sum(axis=0) % 251).astype(np.uint8)[at]

    data = Counting()
    known = ImageIdentity.of(as_stack(data))
    assert data.reads == 3
    monkeypatch.setattr(identity, "WHOLE", 0)  # as of large sections: blocks, and the same digest
    assert ImageIdentity.of(as_stack(data)).sha256 == known.sha256
    assert data.reads == 3 + 27


def test_a_file_system_without_locks_is_worked_on(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")
    workspace.close()

    def without(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", without)
    with open_workspace(workspace.folder) as opened:
        paint(opened)


def test_rounds_are_read_again_only_when_they_have_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Widgets ask for them several times a second, perhaps over a network."""
    rounds = Rounds(tmp_path)
    made = Round(1, "unet", {}, {}, (0,), {}, {}, 1.0, adopted=True, verdict="fine")
    rounds.add(made)
    reads: list[Path] = []
    read = Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda path, **how: (reads.append(path), read(path, **how))[1])
    assert [rounds.all() for _ in range(3)] == [[made]] * 3
    assert len(reads) == 1
    rounds.add(replace(made, verdict="better"))
    assert [r.verdict for r in rounds] == ["better"]
