"""Labels against truth, and how much of each class there is: read section by section, never whole.

`evaluate` compares two stacks of labels; its `Evaluation` has the scores pooled over all sections, and
averaged. `error_map` draws where they differ, `overlay` lays labels over their image. `ClassAreas` says how much of
each class there is.
"""

from __future__ import annotations

from napari_drososeg.evaluation.areas import ClassAreas
from napari_drososeg.evaluation.comparison import Evaluation, SectionEvaluation, Strip, compare, evaluate, pair_sections
from napari_drososeg.evaluation.drawing import (
    ERROR_COLOR,
    OPACITY,
    UNKNOWN_COLOR,
    check_error_maps,
    error_map,
    error_maps,
    overlay,
    to_grey,
    write_error_maps,
)
from napari_drososeg.evaluation.tables import table_rows, write_csv
from napari_drososeg.evaluation.truth import (
    TruthFormat,
    detect_truth_format,
    strips,
    truth_reader,
    vnc_notice,
)

__all__ = [
    "ERROR_COLOR",
    "OPACITY",
    "UNKNOWN_COLOR",
    "ClassAreas",
    "Evaluation",
    "SectionEvaluation",
    "Strip",
    "TruthFormat",
    "check_error_maps",
    "compare",
    "detect_truth_format",
    "error_map",
    "error_maps",
    "evaluate",
    "overlay",
    "pair_sections",
    "strips",
    "table_rows",
    "to_grey",
    "truth_reader",
    "vnc_notice",
    "write_csv",
    "write_error_maps",
]
