"""``drososeg models``: the list of networks, and the card of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_drososeg.cli import console
from napari_drososeg.cli.options import Json, Quiet

if TYPE_CHECKING:
    from napari_drososeg.zoo import NetworkCard


def models(
    name: Annotated[
        str | None, typer.Argument(help="Network to describe: a name or a .safetensors file (default: all).")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """List the networks, or show the card of one.

    A card shows what a network was trained on, its licence and its scores.
    """
    from napari_drososeg.zoo import DEFAULT_NETWORK, find_card, list_networks

    if name is not None:
        card = find_card(name)
        if json:
            console.print_json(describe(card))
        else:
            show_card(card)
        return
    left_out: list[str] = []
    cards = list_networks(left_out=left_out)
    notify = console.notifier(quiet)
    for problem in left_out:
        notify(f"Left out: {problem}")
    if json:
        console.print_json([describe(card) for card in cards])
        return
    listing = console.table(None, "name", "network", "mean IoU", "pixel size", "size", "licence", "from")
    for card in cards:
        spec = card.spec
        listing.add_row(
            card.name + (" (default)" if card.name == DEFAULT_NETWORK else ""),
            card.title,
            "-" if spec is None else console.percent(mean_iou(card)),
            "-" if spec is None else f"{spec.pixel_size:g} nm",
            console.file_size(card.n_bytes),
            "-" if spec is None else licence(spec.licence),
            card.source,
        )
    console.stdout_console().print(listing)
    if cards:
        notify(f"drososeg models {cards[0].name} shows its card.")


def mean_iou(card: NetworkCard) -> float | None:
    """Return the mean IoU on a network's card as a share, None where the card has none."""
    value = card.spec.metrics.get("mean_iou") if card.spec is not None else None
    return float(value) if isinstance(value, int | float) else None


def licence(expression: str) -> str:
    """Add in words what an SPDX expression with NC means."""
    return f"{expression} (non-commercial)" if "-NC" in expression else expression


def describe(card: NetworkCard) -> dict[str, Any]:
    """Return a card as JSON-ready data; what is inside the file is None until it is downloaded."""
    plain: dict[str, Any] = {
        "name": card.name,
        "title": card.title,
        "source": card.source,
        "path": None if card.path is None else str(card.path),
        "bytes": card.n_bytes,
        "sha256": card.sha256,
        "mean_iou": mean_iou(card),
    }
    fields = ("architecture", "arguments", "pixel_size", "stride", "receptive_field", "global_context", "halo")
    for field in (*fields, "licence", "training", "metrics", "parent"):
        plain[field] = None if card.spec is None else getattr(card.spec, field)
    plain["non_commercial"] = None if card.spec is None else "-NC" in card.spec.licence
    plain["classes"] = None if card.spec is None else card.spec.classes.to_list()
    return plain


def show_card(card: NetworkCard) -> None:
    """Print the card of a network."""
    out = console.stdout_console()
    out.print(card.title, style="bold", end="")
    out.print(f"  ({card.name}, {card.source})")
    grid = console.table(None, "", "")
    grid.show_header = False
    grid.columns[1].justify = "left"
    grid.columns[1].overflow = "fold"
    for key, value in card_rows(card):
        grid.add_row(key, value)
    out.print(grid)


def card_rows(card: NetworkCard) -> list[tuple[str, str]]:
    """Return what a card says as pairs of a heading and a text."""
    from napari_drososeg.models import ARCHITECTURES
    from napari_drososeg.zoo.facts import facts, text

    rows: list[tuple[str, str]] = []
    spec = card.spec
    if spec is not None:
        rows += [
            ("classes", ", ".join(f"{c.value} {c.name}" for c in spec.classes)),
            ("licence", licence(spec.licence)),
            ("pixel size", f"{spec.pixel_size:g} nm (other images are rescaled)"),
            ("architecture", f"{spec.architecture} ({text(spec.arguments)})" if spec.arguments else spec.architecture),
            ("halo", f"{spec.halo} px" + ("" if spec.global_context else f" ({spec.receptive_field} px for exact)")),
            ("stride", f"{spec.stride} px"),
        ]
        if (entry := ARCHITECTURES.get(spec.architecture)) is not None:
            rows += [("image sizes", entry.sizes), ("reference", entry.reference)]
        rows += facts(spec)
        if spec.parent:
            rows.append(("fine-tuned from", spec.parent))
        rows.append(("speed here", speed(card)))
    rows += [
        ("file", str(card.path) if card.path is not None else "not downloaded yet; fetched when first used"),
        ("size", console.file_size(card.n_bytes)),
        ("SHA-256", card.sha256),
    ]
    return rows


def speed(card: NetworkCard) -> str:
    """Return how fast a network is on this machine, as measured in earlier runs."""
    from napari_drososeg.inference import PredictConfig, choose, estimate_seconds

    on = choose(PredictConfig()).description
    seconds = None if card.path is None else estimate_seconds(card.path, 1_000_000)
    return f"{on}: " + ("not measured yet" if seconds is None else f"{1 / seconds:.2f} Mpx/s")
