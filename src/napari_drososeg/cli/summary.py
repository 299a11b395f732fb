"""Tables at the end of a command: areas per class, and what became of each item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from napari_drososeg.cli import console

if TYPE_CHECKING:
    from rich.table import Table

    from napari_drososeg.batch import Batch, Outcome, Preflight


def area_table(rows: Sequence[Mapping[str, Any]], title: str | None = None) -> Table:
    """Return a table of class areas; µm² only where the pixel size is known."""
    known = all(row["um2"] is not None for row in rows)
    made = console.table(title, "class", "pixels", "area", *(["µm²"] if known else []))
    for row in rows:
        cells = [f"{row['pixels']:,}", console.percent(row["fraction"])]
        made.add_row(row["name"], *cells, *([f"{row['um2']:.2f}"] if known else []))
    return made


def merged(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Add up the areas of several items; µm² is unknown where one of them does not know it."""
    total: dict[str, dict[str, Any]] = {}
    for outcome in outcomes:
        for row in outcome.areas:
            sums = total.setdefault(row["name"], {"name": row["name"], "pixels": 0, "um2": 0.0})
            sums["pixels"] += row["pixels"]
            both = sums["um2"] is not None and row["um2"] is not None
            sums["um2"] = sums["um2"] + row["um2"] if both else None
    everything = sum(row["pixels"] for row in total.values())
    for row in total.values():
        row["fraction"] = row["pixels"] / everything if everything else 0.0
    return list(total.values())


def show_outcomes(outcomes: Sequence[Outcome], run: Batch) -> None:
    """Print the end of a ``predict`` command."""
    out = console.stdout_console()
    finished = [o for o in outcomes if o.state == "done"]
    if finished:
        out.print(area_table(merged(finished)))
    took = console.duration(sum(o.seconds for o in finished)) + _speed(finished, run)
    if run.job.folder is None:
        only = outcomes[0]
        if only.state == "skipped":
            out.print(f"{only.target} is done already", soft_wrap=True)
        elif only.shape is not None:
            z, y, x = only.shape
            out.print(f"{only.target}: {z} x {y} x {x} (z, y, x), {took}", soft_wrap=True)
        return
    counts = [
        f"{sum(o.state == state for o in outcomes)} {state}" for state in ("done", "skipped", "failed", "stopped")
    ]
    shown = ", ".join(c for c in counts if not c.startswith("0 "))
    out.print(f"{run.job.folder}: {shown}" + (f"; {took}" if finished else ""), soft_wrap=True)


def _speed(finished: Sequence[Outcome], run: Batch) -> str:
    """Say how fast what was predicted was, and on what; nothing where overlays were drawn alone."""
    drawn = {item.target for item in run.undrawn}
    predicted = [o for o in finished if o.target not in drawn]
    if not predicted:
        return ""
    seconds = sum(o.seconds for o in predicted)
    pixels = sum(row["pixels"] for o in predicted for row in o.areas)
    speed = f", {pixels / seconds / 1e6:.2f} Mpx/s" if seconds > 0 else ""
    return speed + (f" on {run.description}" if run.description else "")


FINDINGS_SHOWN = 20


def show_findings(outcomes: Sequence[Outcome]) -> None:
    """Print what is wrong with sections; nothing was left out or filled because of it."""
    found = [(o, f) for o in outcomes for f in o.findings]
    if not found:
        return
    out = console.stdout_console()
    made = console.table("Sections to look at (all were predicted as they are)", "input", "section", "what", "detail")
    made.columns[2].justify = made.columns[3].justify = "left"
    for outcome, finding in found[:FINDINGS_SHOWN]:
        made.add_row(outcome.source.name, str(finding.section), finding.kind, finding.detail)
    out.print(made)
    if len(found) > FINDINGS_SHOWN:
        out.print(f"and {len(found) - FINDINGS_SHOWN} more; all are in the record and in --json")


def plan_lines(run: Batch, flight: Preflight) -> list[str]:
    """Return what a run would do and take, a line each."""
    lines = [
        f"{flight.n_items} to do"
        + (f", {flight.n_undrawn} only to be drawn" if flight.n_undrawn else "")
        + (f", {flight.n_done} done already" if flight.n_done else ""),
        f"network {run.card.name}" + (f" on {run.description}" if run.description else ""),
        f"{flight.pixels / 1e6:,.1f} Mpx, "
        + ("time not known yet" if flight.seconds is None else f"about {console.duration(flight.seconds)}"),
        f"at most {console.file_size(flight.bytes_needed)} on disk, {console.file_size(flight.bytes_free)} free",
        f"about {console.file_size(flight.bytes_of_memory)} of memory for each worker's network at work",
    ]
    lines += [f"cannot be read: {error}" for error in flight.unreadable]
    lines += [f"large: {concern}; needs --yes" for concern in flight.concerns]
    return [*lines, *(f"  {i.source} -> {i.target}" for i in run.waiting), *(f"  draw {i.target}" for i in run.undrawn)]
