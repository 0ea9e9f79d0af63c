"""The tables of docs/understand.md: ``python -m tests.bench.understand similar|topics|repair [--data DATA]``.

Thresholds were chosen on one half of the held-out documents or sentences (``--dev``); the figures are of the other
half. Held out: one document in 50 that edge-bert was never trained on (train/bert/data.py).
"""

from __future__ import annotations

import argparse
import math
import re
import resource
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.events.understood import Guess, Place, Topic
from edge_agent.serving.models import Models
from edge_agent.tasks.text import fill as fill_module
from edge_agent.tasks.text.encoder import encoder
from edge_agent.tasks.text.fill import Filler, masked, replaced
from edge_agent.tasks.text.follows import follower
from edge_agent.tasks.text.store import store_of
from edge_agent.tasks.text.topics import Topics
from edge_agent.types import Text
from edge_agent.workshop.train.bert.data import read_sources, split

SOURCES = ("masc", "us_speeches", "openstax_ccby", "us_gov_web", "world_factbook", "gutenberg")
Series = NDArray[np.float64]
Stream = tuple[list[str], set[int]]
"""lines, and where another document begins"""


def similar(args: argparse.Namespace) -> None:
    """100,000 stored sentences: milliseconds of a search, bytes on disk, memory."""
    dice = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        store = store_of(Path(folder), "bench", "none 1", "a" * 64)
        for at in range(0, 100_000, 10_000):
            rows = dice.standard_normal((10_000, 384)).astype(np.float32)
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            store.add([f"this is the sentence of the number {at + n}" for n in range(10_000)], rows)
        size = sum(path.stat().st_size for path in store.folder.iterdir())
        store = store_of(Path(folder), "bench", "none 1", "a" * 64)
        before, spent = _rss(), []
        for _ in range(101):
            vector = dice.standard_normal(384).astype(np.float32)
            vector /= np.linalg.norm(vector)
            began, worked = time.perf_counter(), time.process_time()
            store.nearest(vector, 5)
            spent.append(((time.perf_counter() - began) * 1e3, (time.process_time() - worked) * 1e3))
        print(f"{store.count} sentences, 384 numbers each: {size / 1e6:.1f} MB on disk")
        wall, used = ([row[n] for row in spent[1:]] for n in (0, 1))
        print(f"a search: median {statistics.median(wall):.1f} ms, p95 {sorted(wall)[95]:.1f}, least {min(wall):.1f}")
        print(f"{statistics.median(used):.1f} ms of processor time; first search {spent[0][0]:.1f} ms")
        print(f"{(_rss() - before) / 1e6:.1f} MB more memory, mapped pages among them")


def _rss() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def held(args: argparse.Namespace, most: int) -> dict[str, list[list[str]]]:
    """The documents of each source that nothing was trained on, of the half that is asked for."""
    files = [args.data / "train" / "text" / f"{name}.txt.xz" for name in SOURCES]
    _, kept = split(read_sources(files, lambda line: None, most))
    halves = {one.name: [doc for n, doc in enumerate(one.documents) if n % 2 == (not args.dev)] for one in kept}
    return {name: docs for name, docs in halves.items() if docs}


def streams(documents: dict[str, list[list[str]]], count: int, parts: int) -> list[Stream]:
    """Lines of `parts` documents in a row, 8 to 30 lines of each, each source as often as any other."""
    made = []
    long = {name: [doc for doc in docs if len(doc) >= 8] for name, docs in documents.items()}
    names = sorted(name for name, docs in long.items() if docs)
    for seed in range(count):
        dice, lines, cuts, last = np.random.default_rng(seed), list[str](), set[int](), None
        while len(cuts) < parts:
            docs = long[names[int(dice.integers(len(names)))]]
            doc = docs[int(dice.integers(len(docs)))]
            if doc is last:
                continue
            size = min(len(doc), int(dice.integers(8, 31)))
            begin = int(dice.integers(len(doc) - size + 1))
            cuts.add(len(lines))
            lines += [line if re.search("[a-z0-9]", line) else "nothing" for line in doc[begin : begin + size]]
            last = doc
        made.append((lines, cuts - {0}))
    return made


def topics(args: argparse.Namespace) -> None:
    """Pk (Beeferman et al. 1999) and WindowDiff (Pevzner and Hearst 2002) of several ways to cut; less is better."""
    served = Models(threads=1, once=True).serve(args.model)
    made, asks = encoder(served), follower(served) if args.model == "edge-bert" else None
    ways: dict[str, Callable[[list[str]], list[int]]] = {
        "no border at all": lambda lines: [],
        "a border every 19 lines": lambda lines: list(range(19, len(lines), 19)),
        "TextTiling (words, depth)": lambda lines: _tiling(_words(lines, 10)),
        "words, cosine below 0.08": lambda lines: _below(_words(lines, 8), 0.08, 7),
        "vectors: what serves": lambda lines: _served(Topics(made), lines),
    }
    if asks is not None:
        ways["next sentence, share below 0.3"] = lambda lines: _below(_follow(asks, lines), 0.3, 7)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for lines, cuts in streams(held(args, 12_000_000), args.streams, 20):
        for name, way in ways.items():
            found[name].append(_errors(cuts, way(lines), len(lines)))
    for name, rows in found.items():
        pk, wd = np.mean(rows, axis=0)
        print(f"| {name} | {pk:.3f} | {wd:.3f} |", flush=True)


def _served(task: Topics, lines: list[str]) -> list[int]:
    told = [found for line in lines for found in task(Text(line, 0.0, 0.0))]
    sizes = [one.what.lines for one in [*told, *task.ended()] if isinstance(one.what, Topic)]
    return [int(at) for at in np.cumsum(sizes)[:-1]]


def _follow(asks: Any, lines: list[str]) -> Series:
    pairs = [(" ".join(lines[max(0, at - 3) : at]), " ".join(lines[at : at + 3])) for at in range(1, len(lines))]
    return np.asarray(asks.shares(pairs), np.float64)


_STOP = """
the a an and or but of to in on at by for with from as is are was were be been it its this that these those he she they
we you i his her their our your my not no do does did have has had will would can could may there here what which who
when where how so if than then into up out about all any some such only own same too very
"""
STOP = frozenset(_STOP.split())


def _words(lines: list[str], window: int) -> Series:
    """Cosine of the words before and after each gap."""
    counts = [
        Counter(
            re.sub("(ing|ed|es|s|ly)$", "", word)
            for word in re.findall("[a-z0-9]{3,}", line.lower())
            if word not in STOP
        )
        for line in lines
    ]
    found = []
    for at in range(1, len(lines)):
        one = sum(counts[max(0, at - window) : at], Counter[str]())
        other = sum(counts[at : at + window], Counter[str]())
        length = math.sqrt(sum(n * n for n in one.values()) * sum(n * n for n in other.values()))
        found.append(sum(n * other[word] for word, n in one.items()) / length if length else 0.0)
    return np.array(found)


def _below(alike: Series, limit: float, around: int) -> list[int]:
    found: list[int] = []
    for at in range(len(alike)):
        least = alike[max(0, at - around) : at + around + 1].min()
        if alike[at] < limit and alike[at] == least and (not found or at + 1 - found[-1] > around):
            found.append(at + 1)
    return found


def _tiling(alike: Series) -> list[int]:
    """Hearst 1997: depth of each valley of the smoothed similarity, above its mean plus a deviation."""
    smooth = np.convolve(np.pad(alike, 1, mode="edge"), np.ones(3) / 3, "valid")
    depth = np.zeros(len(smooth))
    for at in range(len(smooth)):
        left = right = at
        while left > 0 and smooth[left - 1] >= smooth[left]:
            left -= 1
        while right < len(smooth) - 1 and smooth[right + 1] >= smooth[right]:
            right += 1
        depth[at] = smooth[left] + smooth[right] - 2 * smooth[at]
    limit = depth.mean() + depth.std()
    return [n + 1 for n in range(len(depth)) if depth[n] > limit and depth[n] == depth[max(0, n - 3) : n + 4].max()]


def _errors(truth: set[int], said: list[int], count: int) -> tuple[float, float]:
    """Pk and WindowDiff, over windows of half of a segment's mean length."""
    size = round(count / (len(truth) + 1) / 2)
    marks = np.zeros((2, count), int)
    marks[0, list(truth)] = marks[1, said] = 1
    sums = np.cumsum(marks, axis=1)
    theirs, mine = sums[:, size:] - sums[:, :-size]
    return float(((theirs == 0) != (mine == 0)).mean()), float((theirs != mine).mean())


def repair(args: argparse.Namespace) -> None:
    """Words of held-out sentences with an edit in a letter, before and after the repair."""
    by = Filler(masked(Models(threads=1, once=True).serve("edge-bert")), repair=1.0)
    dice = np.random.default_rng(1)
    rows = [line for docs in held(args, 3_000_000).values() for doc in docs for line in doc if 40 < len(line) < 160]
    rows = [rows[int(i)] for i in dice.permutation(len(rows))[: args.sentences]]
    noisy = [_noise(line, dice) for line in rows]
    for name, texts in (("one word in six of four letters and more has an edit", noisy), ("no word has one", rows)):
        looked = [(text, list(by.doubts(text))) for text in texts]
        limits = [(2.0, -9.0), (2.0, -7.5), (4.0, -9.0), (4.0, -7.5), (4.0, -6.0), (6.0, -7.5), (4.0, -4.5)]
        chosen = (fill_module.EDIT, fill_module.LEAST)
        for edit, least in limits if args.dev else [chosen]:
            before, after, fixed, broken, total = _wrong(by, rows, looked, edit, least)
            told = f"edit {edit}, least {least}: {before} of {total} words wrong, {after} after it"
            print(f"{name}: {told} ({fixed} put right, {broken} right ones broken)", flush=True)


def _noise(text: str, dice: np.random.Generator) -> str:
    """One word in six of four letters and more with a letter changed, left out, doubled or swapped with the next."""

    def change(match: re.Match[str]) -> str:
        word = match[0]
        if dice.random() > 1 / 6:
            return word
        at, how = int(dice.integers(len(word) - 1)), int(dice.integers(4))
        letter = chr(97 + int(dice.integers(26)))
        made = (
            word[:at] + letter + word[at + 1 :],
            word[:at] + word[at + 1 :],
            word[:at] + letter + word[at:],
            word[:at] + word[at + 1] + word[at] + word[at + 2 :],
        )
        return made[how]

    return re.sub("[a-z]{4,}", change, text)


def _wrong(
    by: Filler, rows: Sequence[str], looked: Sequence[tuple[str, list[Any]]], edit: float, least: float
) -> tuple[int, int, int, int, int]:
    counts = np.zeros(5, int)
    for truth, (text, doubts) in zip(rows, looked, strict=True):
        places = []
        for start, end, near in doubts:
            worth = [math.log(max(share, 1e-12)) - edit * (edits - 1) for _, edits, share in near]
            best = int(np.argmax(worth))
            if worth[best] >= least:
                places.append(Place(start, end, (Guess(by.by.words[near[best][0]], 0.0),)))
        triples = list(zip(truth.split(), text.split(), replaced(text, places).split(), strict=True))
        counts += [
            sum(a != b for a, b, _ in triples),
            sum(a != c for a, _, c in triples),
            sum(a != b and a == c for a, b, c in triples),
            sum(a == b and a != c for a, b, c in triples),
            len(triples),
        ]
    return tuple(map(int, counts))  # type: ignore[return-value]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.understand", description=__doc__)
    parser.add_argument("part", choices=("similar", "topics", "repair"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--model", default="edge-bert")
    parser.add_argument("--streams", type=int, default=10)
    parser.add_argument("--sentences", type=int, default=800)
    parser.add_argument("--dev", action="store_true", help="the half on which thresholds are chosen")
    args = parser.parse_args()
    {"similar": similar, "topics": topics, "repair": repair}[args.part](args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
