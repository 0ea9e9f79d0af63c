"""``python -m tests.bench.intents [MODEL…]``: labels from a few examples, on three sets of texts, as Markdown.

Each row is the mean of three draws of examples, with the least and the most. Examples come from one file of a set, what
is reported from another: ATIS train and test, SLURP devel and test, Snips train and validate. Texts of no label are a
third of SLURP's scenarios, two of Snips' intents and a fifth of ATIS', which no example is of. Beside what serves stand
each of its two heads alone, and a baseline of scikit-learn: TF-IDF of words (1, 2) and letters (2 to 4, in words) with
logistic regression, C = 10. ``--docs`` puts the table into docs/evaluate.md.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_agent.figures.scores import auroc
from edge_agent.samples.everyday import SENTENCES
from edge_agent.tasks.text.encoder import encoder
from edge_agent.tasks.text.head import UNKNOWN, LabelHead, fit, strangers
from edge_agent.types import Floats
from tests.conftest import ROOT
from tests.tasks.text_models import registered

BEGIN, END = "<!-- bench-intents -->", "<!-- /bench-intents -->"
EACH = (3, 5, 10, 20, 0)
"""examples of a label; 0 is all there are"""
DRAWS = 3
RARE = 5
"""labels with fewer examples are left out"""
ASKED = 700
"""most texts of a set that are asked about"""
Rows = list[tuple[str, str, str]]
"""text, label, scenario"""


def _iob(path: Path) -> Iterator[tuple[str, str, str]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        words, tags = line.split("\t")
        label = tags.split()[-1].removeprefix("atis_")
        yield " ".join(words.split()[1:-1]), label, label


def _tsv(path: Path, first: int) -> Iterator[tuple[str, str, str]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        cells = line.split("\t")
        yield cells[first + 1], cells[first], cells[0]


def sets(folder: Path) -> dict[str, tuple[Rows, Rows, float]]:
    """Name -> examples, texts that are asked about, and the share of scenarios (of labels) that is left out."""
    atis, slurp, snips = folder / "atis", folder / "slurp", folder / "snips"
    return {
        "ATIS": (
            list(_iob(atis / "atis-2.train.w-intent.iob")),
            list(_iob(atis / "atis.test.w-intent.iob")),
            0.2,
        ),
        "SLURP": (list(_tsv(slurp / "devel.tsv", 1)), list(_tsv(slurp / "test.tsv", 1)), 0.33),
        "Snips": (list(_tsv(snips / "train.tsv", 0)), list(_tsv(snips / "validate.tsv", 0)), 0.28),
    }


def _best(scores: dict[str, float]) -> str:
    return max((label for label in scores if label != UNKNOWN), key=scores.__getitem__)


def _baseline(texts: list[str], y: npt.NDArray[np.int64], asked: list[str]) -> npt.NDArray[np.int64]:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline, make_union

    union = make_union(TfidfVectorizer(ngram_range=(1, 2)), TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4)))
    made = make_pipeline(union, LogisticRegression(C=10, max_iter=1000)).fit(texts, y)
    said: npt.NDArray[np.int64] = made.predict(asked)
    return said


def one(train: Rows, test: Rows, left_out: float, each: int, draw: int, vectors: dict[str, Floats]) -> dict[str, float]:
    """The figures of one draw of examples."""
    rng = np.random.default_rng(1000 * draw + each)
    counts = Counter(label for _, label, _ in train)
    # the largest stays: seven of ten of ATIS' texts ask for flights
    largest = Counter(scenario for _, _, scenario in train).most_common(1)[0][0]
    scenarios = sorted({scenario for _, label, scenario in train if counts[label] >= RARE} - {largest})
    gone = set(np.random.default_rng(draw).permutation(scenarios)[: round(left_out * len(scenarios))])
    labels = sorted({la for _, la, sc in train if counts[la] >= RARE and sc not in gone} & {row[1] for row in test})
    picked: list[tuple[str, int]] = []
    for number, label in enumerate(labels):
        own = sorted({text for text, other, _ in train if other == label})
        order = rng.permutation(len(own))[: each or None]
        picked += [(own[i], number) for i in order]
    texts, y = [text for text, _ in picked], np.array([number for _, number in picked])
    # what stands in both files tells nothing
    taken = set(texts)
    asked = [row for row in test if row[0] not in taken]
    fits = [row for row in asked if row[1] in labels]
    strange = [row for row in asked if row[2] in gone]
    fits, strange = (rows[:: max(1, len(rows) // ASKED)] for rows in (fits, strange))
    x = np.stack([vectors[text] for text in texts])
    shown = strangers({label: [text for text, own in picked if labels[own] == label] for label in labels})
    rows = [(text, number) for number, own in enumerate(shown.values()) for text in own]
    given, many = [text for text, _ in rows], np.stack([vectors[text] for text, _ in rows])
    # processor time, which a busy box does not lengthen
    began = time.process_time()
    made = fit(many, np.array([number for _, number in rows]), tuple(shown), given)
    seconds = time.process_time() - began
    began = time.process_time()
    told = [made(vectors[text], text) for text, _, _ in fits]
    spent = (time.process_time() - began) / len(fits) * 1e3
    outside = [made(vectors[text], text) for text, _, _ in strange]
    alone = fit(x, y, tuple(labels))
    truth = [labels.index(label) for _, label, _ in fits]
    blind = np.ones((len(texts), 1), np.float32)
    words: LabelHead = fit(blind, y, tuple(labels), texts)
    right = {
        "both": [labels.index(_best(scores)) for scores in told],
        "encoder": [labels.index(_best(alone(vectors[text]))) for text, _, _ in fits],
        "words": [labels.index(_best(words(blind[0], text))) for text, _, _ in fits],
        "TF-IDF": list(_baseline(texts, y, [text for text, _, _ in fits])),
    }
    figures: dict[str, float] = {"labels": len(labels), "examples": len(texts), "seconds": seconds, "ms": spent}
    for name, said in right.items():
        hits = np.array(said) == np.array(truth)
        figures[name] = float(hits.mean())
        figures[f"{name} even"] = float(np.mean([hits[np.array(truth) == t].mean() for t in set(truth)]))
    figures["lost"] = float(np.mean([max(s, key=s.__getitem__) == UNKNOWN for s in told]))
    figures["caught"] = float(np.mean([max(s, key=s.__getitem__) == UNKNOWN for s in outside]))
    doubt = [np.array([s[UNKNOWN] for s in rows]) for rows in (outside, told)]
    figures["AUROC"] = auroc(*doubt)
    return figures


COLUMNS = ("both", "encoder", "words", "TF-IDF")
ALSO = ("AUROC", "known lost", "strange caught", "fitted in", "a text")


def table(model: str, folder: Path, only: list[str]) -> list[str]:
    """The table's lines for one encoder."""
    made = encoder(registered(model))
    heads = ("texts", "a label", "labels", "**both heads**", "least to most", "encoder alone", "words alone", "TF-IDF")
    lines = [f"`{model}`:", "", f"| {' | '.join((*heads, *ALSO))} |", "|---" * (len(heads) + len(ALSO)) + "|"]
    for name, (train, test, left_out) in sets(folder).items():
        if only and name not in only:
            continue
        texts = sorted({*(row[0] for row in (*train, *test)), *SENTENCES})
        vectors = dict(zip(texts, made.embed_many(texts), strict=True))
        for each in EACH:
            rows = [one(train, test, left_out, each, draw, vectors) for draw in range(DRAWS)]
            mean = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
            span = f"{min(r['both'] for r in rows):.3f} to {max(r['both'] for r in rows):.3f}"
            cells = [f"{mean[key]:.3f} ({mean[f'{key} even']:.3f})" for key in COLUMNS]
            cells[:1] = [f"**{cells[0]}**", span]
            also = [f"{mean[key]:.3f}" for key in ("AUROC", "lost", "caught")] + [
                f"{mean['seconds']:.2f} s",
                f"{mean['ms']:.2f} ms",
            ]
            row = (name, str(each or "all"), f"{mean['labels']:.0f}", *cells, *also)
            lines.append(f"| {' | '.join(row)} |")
            print(lines[-1], file=sys.stderr, flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.intents")
    parser.add_argument("model", nargs="*", default=["edge-bert"])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "text")
    parser.add_argument("--only", action="append", default=[], help="ATIS, SLURP or Snips")
    parser.add_argument("--docs", action="store_true", help="put the tables into docs/evaluate.md")
    args = parser.parse_args()
    lines: list[str] = []
    for model in args.model:
        lines += [*table(model, args.data, args.only), ""]
    print("\n".join(lines))
    if args.docs:
        path = ROOT / "docs" / "evaluate.md"
        before, rest = path.read_text(encoding="utf-8").split(BEGIN)
        path.write_text("\n".join([before + BEGIN, *lines, END]) + rest.split(END)[1], encoding="utf-8")


if __name__ == "__main__":
    main()
