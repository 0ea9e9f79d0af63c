"""``python -m tests.bench.repair``: what `repair` of `fill` does to text that was really heard and read.

Speech: the sentences of tests.bench.speech by whisper-tiny, clean and in noise, wrong words. Pictures: the pages of
tests.bench.read (its folder build/read/report), wrong characters. Needs espeak-ng, and `edge-agent models pull
whisper-tiny ocr`. Four minutes of processor time.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from edge_agent.figures.words import errors
from edge_agent.pictures.read import read_picture
from edge_agent.serving.models import Models
from edge_agent.tasks import make_task
from edge_agent.tasks.text.fill import Filler, masked
from edge_agent.types import Audio, Text
from edge_agent.uri import parse_uri
from tests.bench.read import ROOT, wrong
from tests.bench.speech import CONDITIONS, clips, words

LIMITS = (0.6, 0.8, 1.01)
"""scores below which a text is looked through"""


def mended(by: Filler, text: Text, limit: float) -> str:
    """The text as it goes on where the repair looks at scores below `limit`."""
    assert text.got is not None
    return by.mend(text.text).filled if text.got.score < limit else text.text


def heard(models: Models) -> Iterator[tuple[str, list[str], list[Text]]]:
    """Of each condition and sentence: what is said, and what is heard."""
    task = make_task(parse_uri("transcribe:whisper-tiny"), models.serve, Path())
    for clip in clips(list(CONDITIONS)):
        sound = Audio(clip.samples, 0.0, 0.0, last=True)
        yield f"speech, {clip.of}", [clip.said], [one for one in task(sound) if isinstance(one, Text)]


def read(models: Models, folder: Path) -> Iterator[tuple[str, list[str], list[Text]]]:
    """Of each page: its lines, and those that are read."""
    task = make_task(parse_uri("read:ocr"), models.serve, Path())
    for page in json.loads((folder / "truth.json").read_text()):
        found = [one for one in task(read_picture(folder / page["file"])) if isinstance(one, Text)]
        yield "pictures", page["lines"], found


def wrong_of(kind: str, truth: Sequence[str], said: Sequence[str]) -> tuple[int, int]:
    """Wrong words of speech, or wrong characters of a page; and how many there are."""
    if kind == "pictures":
        return wrong(truth, said)
    told = words(" ".join(truth))
    return errors(told, words(" ".join(said))), len(told)


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=Path, default=ROOT / "build" / "read" / "report")
    args = parser.parse_args()
    models = Models(threads=1)
    by = Filler(masked(models.serve("edge-bert")), repair=1.0)
    sums: dict[str, list[int]] = {}
    sources = [heard(models), *([read(models, args.pages)] if args.pages.is_dir() else [])]
    for kind, truth, found in (row for source in sources for row in source):
        row = sums.setdefault(kind, [0] * (3 + 2 * len(LIMITS)))
        was, of = wrong_of(kind, truth, [one.text for one in found])
        row[0], row[1], row[2] = row[0] + of, row[1] + was, row[2] + len(found)
        for at, limit in enumerate(LIMITS):
            now, _ = wrong_of(kind, truth, [mended(by, one, limit) for one in found])
            row[3 + 2 * at] += now
            row[4 + 2 * at] += sum(mended(by, one, limit) != one.text for one in found)
    heads = [f"below {limit:g}: wrong after (texts changed)" for limit in LIMITS[:-1]] + ["all: wrong after (changed)"]
    print(f"| | of | wrong before | {' | '.join(heads)} |\n|---|{'--:|' * (2 + len(LIMITS))}")
    for kind, (of, was, _, *rest) in sums.items():
        cells = [f"{rest[2 * at]} ({rest[2 * at + 1]})" for at in range(len(LIMITS))]
        print(f"| {kind} | {of} | {was} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
