"""The record of a run in a window: every line of it in words, and where it lies."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt, QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QDialog, QDialogButtonBox, QLabel, QPlainTextEdit, QVBoxLayout, QWidget

from napari_drososeg._widgets.batch.file_table import printable
from napari_drososeg._widgets.batch.outlook import read_record

LINES = 5000
"""Of a long record the last so many are shown."""


def in_line(entry: dict[str, Any]) -> str | None:
    """Say a line of a record in words; None for what says nothing to people, such as that something was begun."""
    what, state, time = entry.get("what"), entry.get("state"), str(entry.get("time", ""))[:19].replace("T", " ")
    where = printable(str(entry.get("output", "")))
    if what == "run":
        chosen = ", ".join(
            f"{k.removeprefix('--')} {v}" for k, v in entry.get("settings", {}).items() if v not in (None, False)
        )
        engine = ", ".join(str(v) for k, v in entry.get("fixed", {}).items() if k in ("engine", "precision"))
        return f"{time}  RUN  napari-drososeg {entry.get('drososeg')}, {chosen}; {engine}; on {entry.get('host')}"
    if what == "finding":
        return f"{time}  {where}: section {entry.get('section')} {entry.get('kind')}: {entry.get('detail')}"
    if what == "fault":
        return f"{time}  fault, {where}: {printable(str(entry.get('error')))}"
    if what == "item" and state == "done":
        return f"{time}  {where}: done in {entry.get('seconds', 0)} s, from {printable(str(entry.get('input')))}"
    if what == "overlays" and entry.get("overlays_fingerprint"):  # else it says that those there may be replaced
        return f"{time}  {where}: overlays drawn, {printable(str(entry.get('path')))}"
    if what == "item" and state == "failed":
        return f"{time}  {where}: FAILED: {printable(str(entry.get('error')))}"
    return None


def record_text(record: Path) -> str:
    """Return the record in words."""
    lines = deque((line for entry in read_record(record) if (line := in_line(entry)) is not None), maxlen=LINES + 1)
    if len(lines) > LINES:
        lines[0] = f"(earlier lines are in the file; these are the last {LINES})"
    return "\n".join(lines)


class RecordDialog(QDialog):
    """Shows a record.

    Parameters
    ----------
    record : Path
        The file.
    """

    def __init__(self, record: Path, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setWindowTitle("Record of the run")
        self.resize(760, 420)
        place = QLabel(printable(str(record)))
        place.setWordWrap(True)
        place.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.text = QPlainTextEdit(record_text(record))
        self.text.setReadOnly(True)
        self.text.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
        folder = buttons.addButton("Show folder", QDialogButtonBox.ButtonRole.ActionRole)
        folder.setToolTip("Opens the folder that contains the record; the record's name begins with a dot.")
        folder.clicked.connect(lambda: QDesktopServices.openUrl(QUrl.fromLocalFile(str(record.parent))))
        buttons.rejected.connect(self.close)
        layout = QVBoxLayout(self)
        for part in (place, self.text, buttons):
            layout.addWidget(part)
