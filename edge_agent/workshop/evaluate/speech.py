"""A model that transcribes: its words against those that people wrote down, and against a parent's."""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.errors import InputError, UsageError
from edge_agent.figures.interval import Figure, ratio, share
from edge_agent.figures.words import errors, plain
from edge_agent.manifest import Served
from edge_agent.sources import open_source
from edge_agent.types import Audio, Text
from edge_agent.uri import Uri
from edge_agent.workshop.data.feed import served_by
from edge_agent.workshop.data.labelled import LabelledSample, read_rows
from edge_agent.workshop.evaluate.frame import Answers, Evaluation, Say, ask_all, measured
from edge_agent.workshop.evaluate.worst import save_worst

GIVE = "give a .csv or .tsv of file and label, the label being the words that are said (or any, with --against)"


def speech(args: argparse.Namespace, model: Served, parent: Served | None, say: Say) -> dict[str, Any]:
    """Word error rate: words that have to be put in, left out or changed, for each word that is said."""
    rows = read_rows(Path(args.data), False, args.limit)
    if not all(isinstance(row.what, Path) and row.label for row in rows):
        raise UsageError(f"{args.data}: a file that is not there, or no words; {GIVE}")

    def pace(answers: Answers) -> dict[str, Any]:
        seconds = sum(answers.kept)
        return {"seconds": seconds, "seconds_per_second": sum(answers.spent) / 1e3 / max(1e-9, seconds)}

    how = Evaluation(
        "sample",
        rows,
        True,
        GIVE,
        lambda answers: _figures(_labels(answers), answers.said),
        lambda theirs, mine: _figures(theirs.said, mine.said),
        _heard,
        _save,
        pace,
    )
    return measured(args, model, parent, how, say, [])


def _labels(answers: Answers) -> list[str]:
    return [row.label or "" for row in answers.rows]


def _heard(model: Served, rows: Sequence[LabelledSample], say: Say) -> Answers:
    """The words of each recording, which is given to the model as a whole, and its seconds."""
    task = served_by(model)

    def ask(item: Audio) -> str:
        return " ".join(found.text for found in task(item) if isinstance(found, Text))

    return ask_all(model.ref.name, ask, rows, say, _sound, lambda sound: len(sound.samples) / sound.rate)


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


def _save(where: Path, answers: Answers) -> str:
    """What was said and what was heard, where that is not the same."""
    every = zip(answers.rows, answers.said, strict=True)
    wrong = [(row, heard) for row, heard in every if plain(row.label or "") != plain(heard)]
    return save_worst(where, "errors", wrong, ("said", "heard"), [(row.label, heard) for row, heard in wrong])
