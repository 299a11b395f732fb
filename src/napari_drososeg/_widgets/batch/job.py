"""One press of Run in the Batch widget as data: what to read and write, with what, and the same as a command. No Qt."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from napari_drososeg._widgets.work.job import shell_line
from napari_drososeg.inference import PredictConfig

if TYPE_CHECKING:
    from napari_drososeg.batch import BatchConfig, Job
    from napari_drososeg.io import Format

WORDS = {
    "--overwrite": "'redo all'",
    "--resume": "'keep, do the rest'",
    "--pixel-size": "nm/pixel",
    "--fill-nan": "Fill NaN",
    "--invert": "Invert",
    "--precision": "Precision",
    "--engine": "Engine",
    "--device": "Device",
    "--halo": "Halo",
    "--orientations": "Average",
    "--format": "Format",
    "--probabilities": "Probabilities",
    "--areas": "Area table",
    "--overlays": "Overlays",
    "--workers": "Workers",
}
"""What the options of the command line are called in the widget."""


def in_words(text: str) -> str:
    """Put the names of the widget's fields into a message that names options of the command line."""
    for option, words in WORDS.items():
        text = text.replace(option, words)
    return text


@dataclass(frozen=True)
class BatchJob:
    """What one run does.

    Parameters
    ----------
    source : str
        Folder of images, or one image.
    output : str
        Folder for the labels.
    network : str
        Name in the zoo.
    form : str
        Key of `napari_drososeg.io.FORMATS`.
    pattern : str
        Names of files to take from the folder.
    subfolders : bool
        Whether files in folders below are taken as well.
    one_stack : bool
        Whether all files of the folder are sections of one stack, else each is a stack. Pattern and subfolders choose
        files one by one, so they do not count then.
    areas, probabilities, overlays : bool
        What is written besides the labels.
    overwrite : bool
        Whether everything is made again, else what is done is kept and the rest is done.
    check_sections : bool
        Whether to look for missing, repeated, shifted and contrast-jumping sections first.
    workers : int
        Local processes; 0 is one without helpers.
    predict : PredictConfig
        How it is predicted.
    """

    source: str
    output: str
    network: str
    form: Format = "tiff"
    pattern: str = "*"
    subfolders: bool = False
    one_stack: bool = False
    areas: bool = True
    probabilities: bool = False
    overlays: bool = False
    overwrite: bool = False
    check_sections: bool = True
    workers: int = 0
    predict: PredictConfig = field(default_factory=PredictConfig)

    @property
    def target(self) -> str:
        """OUT of the command line: a folder (with a slash at its end), or the file of the one stack."""
        from napari_drososeg.io import FORMATS

        folder = self.output.rstrip("/" + os.sep) or "/"
        if not self.one_stack:
            return folder + "/"
        return str(Path(folder) / (stem(self.source) + FORMATS[self.form]))

    def beside(self, ending: str) -> Path:
        """Return a path beside the labels: a folder of labels stays one that can be opened as a stack."""
        place = Path(self.target)
        return place.with_name(f"{stem(self.target) if self.one_stack else place.name}-{ending}")

    @property
    def areas_path(self) -> Path | None:
        """Where the area table goes."""
        return self.beside("areas.csv") if self.areas else None

    @property
    def probabilities_path(self) -> Path | None:
        """Where the probabilities go: a zarr, or a folder of them."""
        return self.beside("probabilities" + (".zarr" if self.one_stack else "")) if self.probabilities else None

    @property
    def overlays_path(self) -> Path | None:
        """Folder that the overlays go to."""
        return self.beside("overlays") if self.overlays else None

    def plan(self) -> Job:
        """Decide what becomes what; see `napari_drososeg.batch.plan_job`."""
        from napari_drososeg.batch import plan_job

        if self.one_stack:
            return plan_job(Path(self.source), self.target, self.form)
        return plan_job(
            Path(self.source), self.target, self.form, pattern=self.pattern or "*", subfolders=self.subfolders
        )

    def config(self) -> BatchConfig:
        """Return how the run goes."""
        from napari_drososeg.batch import BatchConfig

        return BatchConfig(
            predict=self.predict,
            probabilities=self.probabilities_path,
            overlays=self.overlays_path,
            areas=self.areas_path,
            check_sections=self.check_sections,
            resume=not self.overwrite,
            overwrite=self.overwrite,
            workers=self.workers,
        )

    def command(self) -> str:
        """Command that does the same without a screen."""
        words = ["drososeg", "predict", self.source, "-o", self.target, "--model", self.network, "--format", self.form]
        if not self.one_stack:
            words += ["--pattern", self.pattern] if self.pattern not in ("", "*") else []
            words += ["--subfolders"] if self.subfolders else []
        c = self.predict
        for option, value, default in (
            ("--areas", self.areas_path, None),
            ("--probabilities", self.probabilities_path, None),
            ("--overlays", self.overlays_path, None),
            ("--device", c.device, "auto"),
            ("--engine", c.engine, "auto"),
            ("--precision", c.precision, "auto"),
            ("--halo", c.halo, "default"),
            ("--orientations", c.orientations, 1),
            ("--pixel-size", None if c.pixel_size is None else f"{c.pixel_size:g}", None),
            ("--fill-nan", None if c.fill_nan is None else f"{c.fill_nan:g}", None),
            ("--workers", self.workers, 0),
        ):
            words += [option, str(value)] if value != default else []
        words += ["--invert"] if c.invert else []
        words += [] if self.check_sections else ["--no-check"]
        words += ["--overwrite" if self.overwrite else "--resume"]
        return shell_line(words)

    @property
    def record(self) -> Path:
        """Where the record of a run is."""
        from napari_drososeg.batch import manifest_path

        return manifest_path(Path(self.target), None if self.one_stack else Path(self.target))

    def to_json(self) -> str:
        """Return it as one line that `from_json` reads."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> BatchJob:
        """Read what `to_json` wrote."""
        values = json.loads(line)
        return cls(**{**values, "predict": PredictConfig(**values["predict"])})


def stem(path: str) -> str:
    """Return the name of a file or folder up to its first dot, ``"stack"`` where there is none."""
    return Path(path).name.split(".")[0] or "stack"


def clean_path(text: str) -> str:
    """Return what was typed, dropped or pasted into a field as an absolute path; empty for nothing."""
    from urllib.parse import unquote, urlsplit
    from urllib.request import url2pathname

    text = text.strip().strip('"')  # as the Explorer copies paths
    if text.startswith("file://"):
        text = url2pathname(urlsplit(text).path) if os.name == "nt" else unquote(urlsplit(text).path)
    return str(Path(text).expanduser().absolute()) if text else ""
