"""An autoencoder: how well its error tells what is unusual, and whether it ranks samples as its parent does."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.errors import UsageError
from edge_agent.figures.interval import figure, share
from edge_agent.figures.scores import Doubles, auroc, ranked
from edge_agent.manifest import Served
from edge_agent.workshop.data.feed import served_by
from edge_agent.workshop.data.labelled import read_rows
from edge_agent.workshop.evaluate.frame import Answers, Evaluation, head, measured, save_table, table
from edge_agent.workshop.evaluate.verb import Say
from edge_agent.workshop.report.sheet import MOST, sheet

NORMAL = ("normal", "good", "ok", "nominal", "regular", "0", "false")
"""labels of what is usual; whatever else stands there is unusual"""


def evaluate(args: argparse.Namespace, model: Served, parent: Served | None, say: Say) -> dict[str, Any]:
    """AUROC, and the best limit, where there are labels; rank correlation of the errors where there is a parent."""
    rows = read_rows(Path(args.data), model.input is not None, args.limit)
    kinds = sorted({row.label for row in rows if row.label is not None})
    usual = [label for label in kinds if label.casefold() in NORMAL]
    if kinds and len(usual) in (0, len(kinds)):
        raise UsageError(
            f"{args.data}: labels {', '.join(kinds[:5])}; what is usual has to be called {' or '.join(NORMAL[:3])}, "
            "and something else has to be there"
        )
    give = "folders normal/ and anomalous/"
    how = Evaluation("sample", "samples", rows, bool(kinds), give, served_by, _figures, _agreement, _worst)
    return measured(args, model, parent, how, say)


def _agreement(theirs: Answers, mine: Answers) -> dict[str, Any]:
    """How alike the two rank the samples."""
    return {"spearman": ranked(_errors(theirs), _errors(mine))}


def _errors(answers: Answers) -> Doubles:
    return np.array([one.error for one in answers.said], np.float64)


def _usual(answers: Answers) -> Any:
    """(n,) bool: which samples are labelled as usual."""
    return np.array([(row.label or "").casefold() in NORMAL for row in answers.rows], bool)


def _figures(answers: Answers) -> dict[str, Any]:
    """AUROC of the errors; and the limit above which calling a sample unusual has the best F1, with that F1."""
    errors, usual = _errors(answers), _usual(answers)
    normal, odd = errors[usual], errors[~usual]
    limit, f1 = _best_limit(normal, odd)
    return {
        "auroc": figure(lambda of: _auroc(errors[of], usual[of]), len(errors)),
        "limit": limit,
        "f1": f1,
        "accuracy": share((errors > limit) != usual),
        "normal": {"samples": len(normal), "error": float(np.median(normal)) if len(normal) else float("nan")},
        "anomalous": {"samples": len(odd), "error": float(np.median(odd)) if len(odd) else float("nan")},
    }


def _auroc(errors: Doubles, usual: Any) -> float:
    return auroc(errors[~usual], errors[usual])


def _best_limit(normal: Doubles, odd: Doubles) -> tuple[float, float]:
    """Halfway between two neighbouring errors (or below all of them); of equally good ones the highest."""
    every = np.unique(np.concatenate([normal, odd]))
    limits = np.concatenate([every[:1] / 2, (every[1:] + every[:-1]) / 2])
    if not len(odd) or not len(normal):
        return float("nan"), float("nan")
    caught, false = (len(one) - np.searchsorted(np.sort(one), limits, "right") for one in (odd, normal))
    f1 = 2 * caught / (caught + false + len(odd))
    best = len(f1) - 1 - int(f1[::-1].argmax())
    return float(limits[best]), float(f1[best])


def _worst(where: Path, answers: Answers) -> str:
    """Write FOLDER/worst.jpg (of pictures) or worst.tsv: the usual samples of the largest errors and the unusual ones
    of the least, in turns; says so.
    """
    errors, usual = _errors(answers), _usual(answers)
    picked = _in_turns(errors, usual)
    shown = [(answers.rows[i], f"{answers.rows[i].label}, error {errors[i]:.4g}") for i in picked[:MOST]]
    if all(row.is_picture for row, _ in shown):
        sheet(where / "worst.jpg", shown)
        return f"the {len(shown)} worst in {where / 'worst.jpg'}"
    rows = [(answers.rows[i].name, answers.rows[i].label, f"{errors[i]:.6g}") for i in picked]
    save_table(where / "worst.tsv", ("sample", "label", "error"), rows)
    return f"the worst first in {where / 'worst.tsv'}"


def _in_turns(errors: Doubles, usual: Any) -> list[int]:
    """Numbers of the samples: a usual one, the largest error first, and an unusual one, the least first, by turns."""
    high = [int(i) for i in np.argsort(-errors, kind="stable") if usual[i]]
    low = [int(i) for i in np.argsort(errors, kind="stable") if not usual[i]]
    turns = [i for pair in zip(high, low, strict=False) for i in pair]
    return turns + high[len(low) :] + low[len(high) :]


# ── for people ───────────────────────────────────────────────────────────────────────────────────────────


def lines(result: dict[str, Any]) -> list[str]:
    """Figures, beside them the parent's."""
    against = result.get("against", {})
    told = [head(result, "sample", "sample"), *table(result, (("AUROC", "auroc", ""),))]
    if "f1" in result:
        told.append(f"{'F1':16}{result['f1']:.4f}   with limit={result['limit']:.4g}, the best for these samples")
        told += table(result, (("accuracy", "accuracy", "   with that limit"),))
        for kind in ("normal", "anomalous"):
            row = result[kind]
            told.append(f"{kind:16}{row['samples']} samples, median error {row['error']:.4g}")
    return told + table(
        against, (("same order", "spearman", f"   rank correlation of the errors with {against.get('model')}"),)
    )
