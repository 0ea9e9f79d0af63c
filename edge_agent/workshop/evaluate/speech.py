"""A model that transcribes: its words against those that people wrote down, and against a parent's."""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.errors import InputError, SourceError, UsageError
from edge_agent.figures.interval import Figure, ratio, share
from edge_agent.figures.words import errors, plain
from edge_agent.manifest import Served
from edge_agent.sources import open_source
from edge_agent.types import Audio, Text
from edge_agent.uri import Uri
from edge_agent.workshop.data.feed import served_by
from edge_agent.workshop.data.labelled import LabelledSample, read_rows
from edge_agent.workshop.evaluate.frame import save_table
from edge_agent.workshop.evaluate.verb import Say, beside, cell, folder, identity

GIVE = "give a .csv or .tsv of file and label, the label being the words that are said (or any, with --against)"


@dataclass(slots=True)
class _Heard:
    """What one model heard."""

    texts: list[str] = field(default_factory=list)
    bad: dict[str, str] = field(default_factory=dict)
    """name of each recording that could not be heard, and why; its text is empty"""
    seconds: float = 0.0
    """of sound"""
    spent: float = 0.0
    """seconds that it took"""


def evaluate(args: argparse.Namespace, model: Served, parent: Served | None, say: Say) -> dict[str, Any]:
    """Word error rate: words that have to be put in, left out or changed, for each word that is said."""
    rows = read_rows(Path(args.data), False, args.limit)
    if not all(isinstance(row.what, Path) and row.label for row in rows):
        raise UsageError(f"{args.data}: a file that is not there, or no words; {GIVE}")
    heard = _hear(model, rows, say)
    said = [row.label or "" for row in rows]
    shown = {
        **identity(model),
        "data": str(args.data),
        "samples": len(rows),
        "seconds": heard.seconds,
        "seconds_per_second": heard.spent / max(1e-9, heard.seconds),
        "notes": [f"{name} is left out, so its words are errors: {why}" for name, why in heard.bad.items()][:3],
        **_figures(said, heard.texts),
    }
    if parent is not None:
        theirs = _hear(parent, rows, say)
        on_labels = _figures(said, theirs.texts)
        shown["against"] = {**identity(parent), **_figures(theirs.texts, heard.texts), "on_labels": on_labels}
    if args.save:
        wrong = filter(lambda pair: plain(pair[0]) != plain(pair[1]), zip(said, heard.texts, strict=True))
        save_table(folder(Path(args.save)) / "errors.tsv", ("said", "heard"), wrong)
    return shown


def _hear(model: Served, rows: Sequence[LabelledSample], say: Say) -> _Heard:
    """What it hears in each recording, which is given to it as a whole. UsageError where it can hear none."""
    task, heard = served_by(model), _Heard()
    for number, row in enumerate(rows):
        say(model.ref.name, number, len(rows))
        text = ""
        try:
            item = _sound(row)
            began = time.perf_counter()
            text = " ".join(found.text for found in task(item) if isinstance(found, Text))
            heard.spent += time.perf_counter() - began
            heard.seconds += len(item.samples) / item.rate
        except (InputError, SourceError) as error:
            heard.bad[row.name] = str(error)
        heard.texts.append(text)
    say(model.ref.name, len(rows), len(rows))
    if len(heard.bad) == len(rows):
        name, why = next(iter(heard.bad.items()))
        raise UsageError(f"none of {len(rows)} recordings can be heard; the first, {name}: {why}")
    return heard


def _sound(row: LabelledSample) -> Audio:
    """A whole recording. InputError, SourceError."""
    opened = open_source(Uri("files", str(row.what)))
    if opened.yields is not Audio:
        raise InputError("no recording")
    parts = [item for item in opened.run(threading.Event()) if isinstance(item, Audio)]
    if not any(len(part.samples) for part in parts):
        raise InputError("no sound in it")
    now = time.time(), time.monotonic()
    return Audio(np.concatenate([part.samples for part in parts]), *now, parts[0].rate, last=True)


def _figures(said: Sequence[str], heard: Sequence[str]) -> dict[str, Any]:
    pairs = [(plain(one), plain(other)) for one, other in zip(said, heard, strict=True)]
    wrong, words = (np.array(column) for column in ([errors(*pair) for pair in pairs], [len(one) for one, _ in pairs]))
    return {
        "wer": Figure(lambda drawn: ratio(drawn @ wrong, drawn @ words), len(pairs), coarse=True, ends=(0.0, np.inf)),
        "errors": int(wrong.sum()),
        "words": int(words.sum()),
        "right": share([one == other for one, other in pairs]),
    }


# ── for people ───────────────────────────────────────────────────────────────────────────────────────────


def lines(result: dict[str, Any]) -> list[str]:
    """Figures, beside them the parent's."""
    pace = f"{result['seconds_per_second']:.2f} s a second of sound"
    told = [f"{result['model']}: {result['samples']} recordings, {result['seconds']:.0f} s, {pace}"]
    against = result.get("against", {})
    words = f"{result['errors']} of {result['words']} words{beside(result, 'wer')}"
    told.append(f"{'word errors':16}{cell(result, 'wer')}   {words}")
    told.append(f"{'all words right':16}{cell(result, 'right')}   of the recordings")
    if against:
        told.append(f"{'':16}{cell(against, 'wer')}   word errors, where {against['model']} is right")
    return [*told, *result["notes"]]
