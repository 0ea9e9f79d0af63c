"""What every training ends with: a network that is no ruin, the gate's word on its files, and a page of how it went."""

from __future__ import annotations

import argparse
import csv
import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import structs

from edge_agent.errors import RefusedError
from edge_agent.manifest import File, Made, Manifest
from edge_agent.registry import store
from edge_agent.registry.files import Located
from edge_agent.workshop.report.folder import TRAINING, write
from edge_agent.workshop.report.plot import Plot
from edge_agent.workshop.report.report import MakingReport, TableRow, lines

Say = Callable[[str], None]
Rows = Sequence[Mapping[str, float]]
RUIN = 1.5
"""times the loss that a training began with, of what it never saw: short ones of a sound rate stay well below 1"""


def finish(
    args: argparse.Namespace,
    say: Say,
    build: Callable[[Path], Manifest],
    how: Made,
    curve: Rows = (),
    notes: Sequence[str] = (),
    measured: tuple[str, Sequence[TableRow]] = ("not measured here; see evaluate", ()),
) -> None:
    """Write the model folder `args.out` with its report. Raises RefusedError where the gate takes none of its files.

    `build` writes the files; `how` they were made; `curve`: what was measured on the way, drawn over its steps;
    `measured`: what the report's accuracy is, and its rows (none: the files).
    """
    settings = {key: value for key, value in vars(args).items() if value is not None and not callable(value)}
    report = MakingReport(f"train {args.kind}", args.out.resolve().name, measured[0], settings, [*measured[1]])
    report.notes.extend(notes)
    report.plots.extend(_plots(curve))

    def built(new: Path) -> Manifest:
        manifest = structs.replace(build(new), made=how)
        files = [
            TableRow(f"{row.name} ({row.precision})", (new / row.name).stat().st_size, None, None)
            for row in manifest.networks()
        ]
        report.rows.extend([] if report.rows else files)
        return manifest

    write(args.out, built, report)
    for line in lines(report):
        say(line)
    say(f"{args.out}: a model folder; its report is {args.out / 'report.html'}")


def _plots(curve: Rows) -> list[Plot]:
    """A plot of each column that is a measurement."""
    names = [key for key in (curve[0] if curve else ()) if key not in ("step", "seconds")]
    drawn = {name: [(row["step"], row[name]) for row in curve if math.isfinite(row[name])] for name in names}
    return [Plot(name.replace("_", " "), "step", name, {name: points}) for name, points in drawn.items() if points]


def refuse_ruin(
    before: float,
    after: float,
    out: Path,
    what: str = "the loss on what it never saw",
    hint: str = "try a lower --rate",
    least: float = 0.0,
) -> None:
    """RefusedError where a training made `what`, less is better, much worse, or no number of it. Up to `least` it is no
    ruin.
    """
    if after <= max(RUIN * before, least):
        return
    raise RefusedError(
        f"{out}: ruined: {what} is {after:.4g}, and was {before:.4g} when it began; no model is written, what the "
        f"training left is in {out / TRAINING}; {hint}"
    )


def row(name: str, format: str, precision: str, role: str = "model") -> File:
    """A row of a manifest whose file is not measured yet."""
    return File(name, format, "0" * 64, 0, precision=precision, role=role)  # type: ignore[arg-type]


def manifest(name: str, task: str, family: str, says: str, files: list[File], **more: Any) -> Manifest:
    """Of a model that was trained here. `says`: its description."""
    about = {"version": "1", "licence": "Apache-2.0", "trained_by": "edge-agent", "description": says}
    return Manifest(name=name, task=task, family=family, file=files, **about, **more)  # type: ignore[arg-type]


def made(method: str, data: Iterable[Path], parent: Located | None = None, figures: Mapping[str, float] = {}) -> Made:
    """How a model was made, for its manifest. `data`: files and folders; `parent`: whose weights it began with."""
    found = [file for path in data for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    hashes = [store.digest(file) for file in found if file.is_file()]
    whole = hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()
    rounded = {key: round(float(value), 6) for key, value in figures.items() if math.isfinite(value)}
    if parent is None:
        return Made("train", method, data_sha256=whole, figures=rounded)
    manifest = parent.manifest
    return Made("train", method, f"{manifest.name} {manifest.version}", manifest.original().sha256, whole, rounded)


def read_curve(path: Path) -> list[dict[str, float]]:
    """Rows of a CSV of numbers; [] where there is none yet."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
