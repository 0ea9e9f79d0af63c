"""What every training ends with: a network that is no ruin, the gate's word on its files, and a page of how it went."""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from edge_agent.errors import RefusedError
from edge_agent.manifest import Manifest
from edge_agent.workshop.report.folder import TRAINING, write_trained
from edge_agent.workshop.report.plot import Plot
from edge_agent.workshop.report.report import MakingReport, TableRow, lines

Say = Callable[[str], None]
Rows = Sequence[Mapping[str, float]]
RUIN = 1.5
"""times the loss that a training began with, of what it never saw: short ones of a sound rate stay well below 1"""


def finish(
    kind: str,
    args: argparse.Namespace,
    build: Callable[[Path], Manifest],
    say: Say,
    curve: Rows = (),
    x: str = "step",
    notes: Sequence[str] = (),
) -> None:
    """Write the model folder `args.out` with its report. Raises RefusedError where the gate takes none of its files.

    `build` writes the files; `curve`: what was measured on the way, drawn over the column `x`.
    """
    verb = f"train {kind}"
    settings = {key: value for key, value in vars(args).items() if value is not None and not callable(value)}
    report = MakingReport(verb, args.out.resolve().name, "not measured here; see evaluate", settings, [])
    report.notes.extend(notes)
    report.plots.extend(_plots(curve, x))

    def built(new: Path) -> Manifest:
        manifest = build(new)
        report.rows.extend(
            TableRow(f"{row.name} ({row.precision})", (new / row.name).stat().st_size, None, None)
            for row in manifest.networks()
        )
        return manifest

    write_trained(args.out, built, report)
    for line in lines(report):
        say(line)
    say(f"{args.out}: a model folder; its report is {args.out / 'report.html'}")


def _plots(curve: Rows, x: str) -> list[Plot]:
    """A plot of each column that is a measurement."""
    names = [key for key in (curve[0] if curve else ()) if key not in ("step", "pictures", "seconds", "rate")]
    drawn = {name: [(row[x], row[name]) for row in curve if math.isfinite(row[name])] for name in names}
    return [Plot(name.replace("_", " "), x, name, {name: points}) for name, points in drawn.items() if points]


def refuse_ruin(before: float, after: float, out: Path) -> None:
    """RefusedError where a training made the loss on what it never saw much worse, or no number of it."""
    if after <= RUIN * before:
        return
    raise RefusedError(
        f"{out}: ruined: the loss on what it never saw is {after:.4g}, and was {before:.4g} when it began; no model is "
        f"written, the checkpoints are in {out / TRAINING}; try a lower --rate"
    )


def read_curve(path: Path) -> list[dict[str, float]]:
    """Rows of a CSV of numbers; [] where there is none yet."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
