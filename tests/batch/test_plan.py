"""Which inputs become which outputs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from napari_drososeg.batch.plan import plan_job
from napari_drososeg.errors import DrososegError
from napari_drososeg.io.targets import format_of


@pytest.fixture
def sections(tmp_path: Path) -> Path:
    folder = tmp_path / "raw"
    folder.mkdir()
    for name in ("10.tif", "9.tif", "notes.txt", ".hidden.tif", "2.ome.tif"):
        (folder / name).write_bytes(b"x")
    (folder / "deeper").mkdir()
    return folder


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.tif", "tiff"),
        ("a.TIFF", "tiff"),
        ("a.ome.tif", "ome-tiff"),
        ("a.zarr", "ome-zarr"),
        ("a.ome.zarr", "ome-zarr"),
        ("a.png", "png"),
        ("labels", None),
        ("a.jpg", None),
    ],
)
def test_the_name_says_the_format(name: str, expected: str | None) -> None:
    assert format_of(Path(name)) == expected


def test_a_file_as_output_makes_one_stack(sections: Path, tmp_path: Path) -> None:
    job = plan_job(sections, str(tmp_path / "labels.zarr"), None)
    assert [(i.source, i.target.name) for i in job.items] == [(sections, "labels.zarr")]
    assert (job.format, job.folder) == ("ome-zarr", None)


def test_a_folder_as_output_makes_one_item_per_file(sections: Path, tmp_path: Path) -> None:
    job = plan_job(sections, str(tmp_path / "out"), "ome-tiff")
    assert [i.source.name for i in job.items] == ["2.ome.tif", "9.tif", "10.tif"]
    assert [i.target.name for i in job.items] == ["2.ome.tif", "9.ome.tif", "10.ome.tif"]
    assert job.left_out == ("deeper", "notes.txt")


def test_an_existing_folder_is_a_folder_whatever_its_name(sections: Path, tmp_path: Path) -> None:
    (tmp_path / "out.tif").mkdir()
    assert len(plan_job(sections, str(tmp_path / "out.tif"), None).items) == 3
    assert len(plan_job(sections, str(tmp_path / "new.tif") + "/", None).items) == 3


def test_a_suffix_that_is_not_ours_is_no_folder_by_mistake(sections: Path, tmp_path: Path) -> None:
    for name in ("z.jpg", "labels.tfi"):
        with pytest.raises(DrososegError, match=rf"ends in .*\.tif, .*\.zarr, and a folder in a slash: '.*{name}/'"):
            plan_job(sections, str(tmp_path / name), None)
        assert plan_job(sections, str(tmp_path / name) + "/", None).folder == tmp_path / name
    for name in ("run.v2", "labels", "2026.01.31", "a.backup"):
        assert plan_job(sections, str(tmp_path / name), None).folder == tmp_path / name
    (tmp_path / "old.jpg").mkdir()
    assert plan_job(sections, str(tmp_path / "old.jpg"), None).folder == tmp_path / "old.jpg"


def test_one_file_into_a_folder(sections: Path, tmp_path: Path) -> None:
    job = plan_job(sections / "9.tif", str(tmp_path / "out"), None)
    assert [i.target for i in job.items] == [tmp_path / "out" / "9.tif"]


def test_ome_tiff_may_be_called_tif(sections: Path, tmp_path: Path) -> None:
    assert plan_job(sections, str(tmp_path / "a.tif"), "ome-tiff").format == "ome-tiff"


def test_what_cannot_work_is_refused(sections: Path, tmp_path: Path) -> None:
    def refused(match: str, *arguments) -> None:
        with pytest.raises(DrososegError, match=match):
            plan_job(*arguments)

    refused("does not exist", tmp_path / "nothing", "out.tif", None)
    refused("does not match --format png", sections, "out.tif", "png")
    refused("the input itself", sections / "9.tif", str(sections / "9.tif"), None)
    refused("the input itself", sections, str(sections), None)
    refused("lies inside the input", sections, str(sections / "labels.tif"), None)
    (tmp_path / "thing").write_bytes(b"x")
    refused("without a known suffix", sections, str(tmp_path / "thing"), None)
    empty = tmp_path / "empty"
    empty.mkdir()
    refused("no images", empty, str(tmp_path / "out"), None)


def test_two_inputs_of_one_name_are_refused(sections: Path, tmp_path: Path) -> None:
    (sections / "9.png").write_bytes(b"x")
    with pytest.raises(DrososegError, match=r"'9.png' and '9.tif' would both|'9.tif' and '9.png' would both"):
        plan_job(sections, str(tmp_path / "out"), None)


def test_outputs_never_replace_inputs(tmp_path: Path) -> None:
    stack = tmp_path / "stack.zarr"
    stack.mkdir()
    with pytest.raises(DrososegError, match="lies inside the input"):
        plan_job(stack, str(stack / "labels.zarr"), None)
    inner = tmp_path / "out.zarr"
    inner.mkdir()
    (inner / "a.tif").write_bytes(b"x")
    with pytest.raises(DrososegError, match="contains the input"):
        plan_job(inner / "a.tif", str(inner), None)


def test_a_file_is_known_under_another_name(sections: Path, tmp_path: Path) -> None:
    """As where names may differ in case: neither may be written over the other."""
    other = tmp_path / "Labels.tif"
    os.link(sections / "9.tif", other)
    with pytest.raises(DrososegError, match="is the input itself"):
        plan_job(sections / "9.tif", str(other), None)


def test_sections_of_a_stack_as_png_do_not_mix_with_those_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "in" / "fly").mkdir(parents=True)
    for name in ("fly.tif", "fly/0000.tif", "other.tif"):
        (tmp_path / "in" / name).write_bytes(b"x")
    with pytest.raises(DrososegError, match=r"fly\.tif' and the labels of .*0000\.tif' would both be .*out/fly'"):
        plan_job(tmp_path / "in", str(tmp_path / "out"), "png", subfolders=True)
    assert len(plan_job(tmp_path / "in", str(tmp_path / "out"), "tiff", subfolders=True).items) == 3
