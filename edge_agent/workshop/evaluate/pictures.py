"""A detector on pictures: COCO's figures against labels and against a parent, and the worst pictures drawn."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.errors import UsageError
from edge_agent.families.table import FAMILIES
from edge_agent.manifest import Served
from edge_agent.workshop.data.parts import groups
from edge_agent.workshop.data.pictures import Pictures, match_classes, read_pictures
from edge_agent.workshop.evaluate import boxes
from edge_agent.workshop.evaluate.boxes import Answers, Judge
from edge_agent.workshop.evaluate.verb import Say, cell, folder, identity
from edge_agent.workshop.evaluate.worst import draw_worst

SCORE, IOU = 0.001, 0.65
"""of detections that are scored: COCO's precision wants the faint ones too (YOLOX and YOLOv5 evaluate so)"""


def evaluate(args: argparse.Namespace, model: Served, parent: Served | None, say: Say) -> dict[str, Any]:
    """Figures against the labels where there are some, "against" the parent where there is one."""
    pictures, names = read_pictures(Path(args.data), args.limit), model.manifest.names()
    _check(args, pictures, names, parent)
    score, iou = SCORE if args.score is None else args.score, IOU if args.iou is None else args.iou
    ask = boxes.asker(args.others)
    answers = ask(model, pictures.paths, score, iou, say)
    pictures, notes = _readable(pictures, answers)
    shown: dict[str, Any] = {
        **identity(model),
        "data": str(args.data),
        "images": len(pictures.paths),
        "missing": list(pictures.missing),
        "score": score,
        "iou": iou if FAMILIES[model.manifest.family].nms else None,
        "ms_per_image": statistics.median(answers.spent),
        "notes": [*pictures.notes, *notes],
        "groups": groups(answers.looks),
    }
    labelled = agreed = None
    if pictures.truth is not None:
        labelled = Judge(pictures.truth, match_classes(pictures.names, names), pictures.names)
        shown["notes"] += _said(pictures.names, names, labelled.ids)
        shown |= {"truth": "labels"} | labelled.figures(answers)
    if parent is not None:
        theirs = ask(parent, pictures.paths, None, None, say)
        agreed = _parents(args, theirs, names, shown["notes"])
        figures = agreed.figures(answers)
        against = {"score": parent.manifest.score, "ms_per_image": statistics.median(theirs.spent)} | figures
        if labelled is None:
            shown |= {"truth": parent.ref.name} | figures
        else:
            whole = ask(parent, pictures.paths, score, iou, say)
            against["on_labels"] = labelled.shared_with(parent.manifest.names()).figures(whole)
        shown["against"] = identity(parent) | against
    if args.save:
        judge = labelled or agreed
        assert judge is not None
        drawn = draw_worst(folder(Path(args.save)), pictures.paths, judge, answers)
        shown["notes"].append(f"{drawn} worst pictures in {args.save}: truth left, {model.ref.name} right")
    return shown


def _parents(args: argparse.Namespace, theirs: Answers, names: dict[int, str], notes: list[str]) -> Judge:
    """What the parent found as the truth for a model of these classes. UsageError where it found nothing."""
    their_names = theirs.model.manifest.names()
    ids = match_classes(their_names, names)
    classes = set(ids.values())
    found = theirs.boxes({key: key for key in classes})
    if not len(found.label):
        raise UsageError(
            f"--against {args.against}: it found nothing at score {theirs.model.manifest.score:g} in "
            f"{len(theirs.found)} pictures; give pictures with something in them"
        )
    if len(classes) < len(their_names):
        notes.append(f"compared over {len(classes)} of the parent's {len(their_names)} classes")
    return Judge(found.as_truth(), ids, their_names)


def _check(args: argparse.Namespace, pictures: Pictures, names: dict[int, str], parent: Served | None) -> None:
    """UsageError for data that say nothing of the model, before any picture is looked at."""
    if pictures.truth is None:
        if parent is None:
            raise UsageError(f"{args.data}: pictures without labels; give --against PARENT or a COCO JSON file")
        return
    match_classes(pictures.names, names)
    if not len(pictures.truth.label):
        raise UsageError(
            f"{args.data}: no box in it of a picture and a category that it lists; there is nothing to measure"
        )


def _readable(pictures: Pictures, answers: Answers) -> tuple[Pictures, list[str]]:
    """Without the pictures that could not be read; notes on these and on those of another size than labelled."""
    bad, paths = answers.bad, pictures.paths
    if len(bad) == len(paths):
        raise UsageError(f"{paths[0].parent}: none of {len(paths)} pictures can be read; the first, {bad[0]}")
    kept = [i for i in range(len(paths)) if i not in bad]
    stated = [pictures.sizes[i] for i in kept] if pictures.sizes else answers.sizes
    truth = None if pictures.truth is None else pictures.truth.of_pictures(kept)
    missing = [*pictures.missing, *(paths[i].name for i in bad)]
    left = replace(pictures, paths=[paths[i] for i in kept], truth=truth, sizes=stated, missing=missing)
    notes = _odd_sizes(left, answers.sizes)
    if bad:
        notes.append(f"{len(bad)} pictures cannot be read and are left out: {'; '.join(list(bad.values())[:5])}")
    return left, notes


def _odd_sizes(pictures: Pictures, sizes: Sequence[tuple[int, int]]) -> list[str]:
    """A note on the pictures that are of another size than labelled."""
    pairs = list(zip(pictures.paths, pictures.sizes, sizes, strict=True))
    odd = [row for row in pairs if all(row[1]) and row[1] != row[2]]
    if not odd:
        return []
    path, (sw, sh), (w, h) = odd[0]
    first = f"{path.name} is {w}x{h}, labelled as {sw}x{sh}"
    return [f"{len(odd)} pictures have another size than their labels, whose boxes then miss: {first}"]


def _said(theirs: Any, ours: Any, ids: dict[int, int]) -> list[str]:
    """Which classes are scored, when these are not all."""
    notes = []
    if len(set(ids.values())) < len(theirs):
        notes.append(f"scored over {len(set(ids.values()))} of the data's {len(theirs)} classes: the model knows these")
    if len(ids) < len(ours):
        lost = [name for key, name in ours.items() if key not in ids]
        few = ", ".join(lost[:5]) + (" …" if len(lost) > 5 else "")
        notes.append(f"{len(lost)} of the model's classes are not in the data and not scored: {few}")
    return notes


# ── for people ───────────────────────────────────────────────────────────────────────────────────────────

ROWS = (
    ("mAP50-95", "map"),
    ("mAP50", "map50"),
    ("mAP75", "map75"),
    ("small", "map_small"),
    ("medium", "map_medium"),
    ("large", "map_large"),
    ("recall", "recall"),
)


def lines(result: dict[str, Any]) -> list[str]:
    """A column of figures for each comparison, then the classes by how many boxes they have."""
    against = result.get("against", {})
    on_labels = result["truth"] == "labels"
    nms = "" if result["iou"] is None else f", NMS {result['iou']:g}"
    told = [
        f"{result['model']}: {result['images']} pictures, {result['boxes']} boxes, score {result['score']:g}{nms}, "
        f"{result['ms_per_image']:.1f} ms a picture"
    ]
    columns = {"on labels": result} if on_labels else {}
    if "on_labels" in against:
        columns["parent"] = against["on_labels"]
    if against:
        columns["agreement"] = against
        told.append(
            f"parent and agreement: {against['model']}, {against['boxes']} boxes at score {against['score']:g}, "
            f"{against['ms_per_image']:.1f} ms a picture"
        )
    if "change" in against:
        columns["more than the parent"] = against["change"]
    told.append(f"{'':9}" + "".join(f"{name:>26}" for name in columns))
    for name, key in ROWS:
        told.append(f"{name:9}" + "".join(f"{cell(column, key, 3):>26}" for column in columns.values()))
    told.append(f"{'class':16}{'mAP50-95':>11}{'mAP50':>11}{'boxes':>11}")
    by_count = sorted(result["classes"].items(), key=lambda item: -item[1]["boxes"])
    told += [f"{name:16}{_cell(row['map']):>11}{_cell(row['map50']):>11}{row['boxes']:>11}" for name, row in by_count]
    return told


def _cell(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.3f}"
