"""Measures an edge-bert on text that it never saw, beside its teacher; the figures of its card.

    python -m edge_agent.workshop.train.bert.report --data ../shared/data --model models/edge-bert

`--data` holds train/text (whose held-out documents are read, `data.held_out`) and text/atis. The teacher, MiniLM
unless --teacher says else, is fetched when it is not here. Needs `tokenizers` for the teacher, and no PyTorch.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from edge_agent.backends.onnx import multiply_exactly
from edge_agent.errors import EdgeAgentError, UsageError
from edge_agent.tasks.text import vocabulary, wordpiece
from edge_agent.workshop.train import need
from edge_agent.workshop.train.bert.data import CLS, MASK, SEP, TextSource, read_sources, split
from edge_agent.workshop.train.bert.intents import atis, intents

Run = Callable[[NDArray[np.int64], NDArray[np.int64]], tuple[NDArray[np.float32], NDArray[np.float32]]]
"""(ids, types) (n, L), 0 where nothing stands -> (hidden, embedding)"""
Embedder = Callable[[list[str]], NDArray[np.float32]]
"""n texts -> (n, E)"""


def session(file: Path) -> onnxruntime.InferenceSession:
    """One thread, no spinning: what a device gives to one task."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    multiply_exactly(options)
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def runner(file: Path) -> Run:
    """The encoder of a file."""
    net = session(file)

    def run(ids: NDArray[np.int64], types: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        seen = (ids != 0).astype(np.int64)
        found = net.run(None, {"input_ids": ids, "attention_mask": seen, "token_type_ids": types})
        return found[0], found[1]

    return run


def table(rows: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    """Rows of ids, padded to the longest."""
    out = np.zeros((len(rows), max(map(len, rows))), np.int64)
    for line, row in zip(out, rows, strict=True):
        line[: len(row)] = row
    return out


def encode(sources: Sequence[TextSource], words: wordpiece.WordPiece) -> dict[str, list[list[list[int]]]]:
    """source -> documents -> sentences -> ids, without [CLS] and [SEP]."""
    return {s.name: [[i for line in d if (i := words.encode(line, 512)[1:-1])] for d in s.documents] for s in sources}


def fill_in(
    text: dict[str, list[list[list[int]]]], run: Run, head: Path, words: int, dice: np.random.Generator, most: int
) -> dict[str, dict[str, float]]:
    """Masked words as in training (15 %: 80/10/10, runs of 61 tokens as a pair), a source at a time and all together.

    "guess" is the unigram's: the commonest tokens of the very text that is asked about, so rather too good.
    """
    net = session(head)
    found: dict[str, dict[str, float]] = {}
    for name, documents in text.items():
        chosen = _runs(documents, dice, most)
        common = np.bincount([i for r in chosen for i in r], minlength=words).argsort()[::-1][:5]
        count = np.zeros(5)
        for at in range(0, len(chosen), 32):
            count += _filled(chosen[at : at + 32], run, net, words, common, dice)
        found[name] = dict(zip(("asked", "top1", "top5", "guess1", "guess5"), count, strict=True))
    found["all"] = {k: sum(v[k] for v in found.values()) for k in next(iter(found.values()))}
    for row in found.values():
        for key in ("top1", "top5", "guess1", "guess5"):
            row[key] /= max(row["asked"], 1)
    return found


def _runs(documents: list[list[list[int]]], dice: np.random.Generator, most: int) -> list[list[int]]:
    """At most so many runs of 8 to 61 tokens, drawn from all documents."""
    flat = [[i for line in d for i in line] for d in documents]
    runs = [d[at : at + 61] for d in flat for at in range(0, len(d), 61) if len(d[at : at + 61]) >= 8]
    return [runs[i] for i in dice.permutation(len(runs))[:most]]


def _filled(
    some: list[list[int]],
    run: Run,
    net: onnxruntime.InferenceSession,
    words: int,
    common: NDArray[np.int64],
    dice: np.random.Generator,
) -> list[int]:
    """Of a batch: masked words; of how many the head's first, its first five, `common[0]` and `common` are right."""
    ids = table([[CLS, *r[: len(r) // 2], SEP, *r[len(r) // 2 :], SEP] for r in some])
    types = table([[0] * (len(r) // 2 + 2) + [1] * (len(r) - len(r) // 2 + 1) for r in some])
    take = (dice.random(ids.shape) < 0.15) & (ids > MASK)
    how = dice.random(ids.shape)
    masked = np.where(take & (how < 0.8), MASK, ids)
    masked = np.where(take & (how >= 0.9), dice.integers(MASK + 1, words, ids.shape), masked)
    hidden, _ = run(masked, types)
    truth = ids[take]
    logits = net.run(None, {"hidden": hidden[take][None]})[0][0]
    best = np.argpartition(-logits, 5, axis=1)[:, :5]
    return [
        len(truth),
        (logits.argmax(1) == truth).sum(),
        (best == truth[:, None]).any(1).sum(),
        (truth == common[0]).sum(),
        np.isin(truth, common).sum(),
    ]


def follows(
    text: dict[str, list[list[list[int]]]], run: Run, head: Path, dice: np.random.Generator, most: int
) -> dict[str, float]:
    """Next sentence: how often the true one is taken, and each kind of wrong one refused; accuracies half and half.

    "random": a sentence of another document, of whatever source; "same_source": of another document of the same
    source; "previous" swaps the two, "after_next" leaves one out.
    """
    net = session(head)
    quads = _quads(text, dice)
    quads = [quads[i] for i in dice.permutation(len(quads))[:most]]

    def yes(a: int, b: int) -> float:
        said = 0
        for at in range(0, len(quads), 32):
            rows, types = [], []
            for t in quads[at : at + 32]:
                first, second = t[a][:60], t[b][:60]
                rows.append([CLS, *first, SEP, *second, SEP])
                types.append([0] * (len(first) + 2) + [1] * (len(second) + 1))
            hidden, _ = run(table(rows), table(types))
            said += int((net.run(None, {"hidden": hidden})[0].argmax(1) == 0).sum())
        return said / len(quads)

    true, stranger, near, previous, later = yes(0, 1), yes(0, 4), yes(0, 3), yes(1, 0), yes(0, 2)
    return {
        "pairs": len(quads),
        "next_taken": true,
        "random": (true + 1 - stranger) / 2,
        "same_source": (true + 1 - near) / 2,
        "previous": (true + 1 - previous) / 2,
        "after_next": (true + 1 - later) / 2,
    }


def _quads(text: dict[str, list[list[list[int]]]], dice: np.random.Generator) -> list[list[list[int]]]:
    """Of each place in each document: the sentence, the next, the one after, one of the same source, and any other."""
    quads = []
    everything = [d for documents in text.values() for d in documents]
    for documents in text.values():
        for at, d in enumerate(documents):
            others = [i for i in range(len(documents)) if i != at]
            for i in range(len(d) - 2):
                other = documents[others[dice.integers(len(others))]] if others else d
                near_by = other[dice.integers(len(other))]
                quads.append([d[i], d[i + 1], d[i + 2], near_by, _stranger(everything, d, near_by, dice)])
    return quads


def _stranger(
    everything: list[list[list[int]]], d: list[list[int]], near_by: list[int], dice: np.random.Generator
) -> list[int]:
    """A sentence of another document than `d`; the one near by where four tries find none."""
    tried = [everything[k] for k in dice.integers(len(everything), size=4)]
    far = next((e for e in tried if e is not d), None)
    return near_by if far is None else far[dice.integers(len(far))]


def embed(texts: Sequence[str], words: wordpiece.WordPiece, run: Run) -> NDArray[np.float32]:
    """(n, E), each text at its own length."""
    rows = [words.encode(t, 128) for t in texts]
    return np.concatenate([run(table([r]), table([[0] * len(r)]))[1] for r in rows])


def alike(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> dict[str, float]:
    """How the similarities of all pairs of texts agree: Pearson's and Spearman's correlation."""
    upper = np.triu_indices(len(ours), 1)
    a, b = (ours @ ours.T)[upper], (theirs @ theirs.T)[upper]
    ranks = [v.argsort().argsort().astype(np.float64) for v in (a, b)]
    return {
        "pearson": float(np.corrcoef(a, b)[0, 1]),
        "spearman": float(np.corrcoef(*ranks)[0, 1]),
        "cosine": float((ours * theirs).sum(1).mean()) if ours.shape == theirs.shape else float("nan"),
    }


def times(texts: Sequence[str], runs: dict[str, Callable[[str], object]]) -> dict[str, float]:
    """Median milliseconds a text, one thread, the candidates in turn on each text; tokenizer included."""
    spent: dict[str, list[float]] = {name: [] for name in runs}
    for turn, text in enumerate(texts):
        for name, run in runs.items():
            begun = time.perf_counter()
            run(text)
            if turn >= 5:
                spent[name].append(time.perf_counter() - begun)
    return {name: float(np.median(s) * 1000) for name, s in spent.items()}


def _alone(embedder: Embedder) -> Callable[[str], object]:
    return lambda text: embedder([text])


def _some_lines(sources: Sequence[TextSource]) -> list[str]:
    """A thousand sentences of 3 to 40 words."""
    lines = [line for s in sources for d in s.documents for line in d if 3 <= len(line.split()) <= 40]
    return [lines[i] for i in np.random.default_rng(3).permutation(len(lines))[:1000]]


def report(data: Path, model: Path, teacher: str, most: int, say: Callable[[str], object]) -> dict[str, Any]:
    """All figures as one table; parts whose data or teacher is absent are left out, and `say` names them."""
    for name in ("vocab.txt", "encoder.onnx", "encoder.int8.onnx", "mlm.int8.onnx", "nsp.onnx"):
        if not (model / name).is_file():
            raise UsageError(f"{model}: no {name} there; --model takes the folder of an edge-bert")
    words = vocabulary.from_vocab(model / "vocab.txt", True)
    encoders = {"int8": runner(model / "encoder.int8.onnx"), "float": runner(model / "encoder.onnx")}
    say("reading the held-out documents")
    sources = split(read_sources([data / "train" / "text"], lambda _: None, most))[1]
    text = encode(sources, words)
    held = {s.name: {"documents": len(s.documents), "sentences": sum(map(len, s.documents))} for s in sources}
    found: dict[str, Any] = {"held_out": held, "mlm": {}, "nsp": {}}
    for name, run in encoders.items():
        say(f"masked words and next sentences, {name}")
        head = model / "mlm.int8.onnx"
        found["mlm"][name] = fill_in(text, run, head, len(words.vocab), np.random.default_rng(1), 200)
        found["nsp"][name] = follows(text, run, model / "nsp.onnx", np.random.default_rng(2), 1500)
    embedders: dict[str, Embedder] = {
        "edge-bert int8": lambda texts: embed(texts, words, encoders["int8"]),
        "edge-bert float": lambda texts: embed(texts, words, encoders["float"]),
    }
    sizes = {n: (model / f).stat().st_size for n, f in (("int8", "encoder.int8.onnx"), ("float", "encoder.onnx"))}
    if not teacher:
        say("no teacher: its figures are left out")
    else:
        from edge_agent.workshop.train.bert.teacher import by_file, parts

        files = parts(teacher)
        sizes["MiniLM"] = files.network.stat().st_size
        say("similarities")
        some, minilm = _some_lines(sources), by_file(files, threads=1)
        theirs = minilm(some)
        found["similarity"] = {name: alike(vectors(some), theirs) for name, vectors in embedders.items()}
        embedders["MiniLM"] = minilm
    found["bytes"] = sizes
    if (data / "text" / "atis").is_dir():
        say("ATIS")
        found |= _of_atis(data / "text" / "atis", embedders)
    return found


def _of_atis(folder: Path, embedders: dict[str, Embedder]) -> dict[str, Any]:
    """How well intents are told by the embeddings, and how long a text takes."""
    asked_of = {n: f for n, f in embedders.items() if n != "edge-bert float"}
    asked = atis(folder / "atis.test.w-intent.iob")[0][:200]
    return {"atis": intents(folder, asked_of), "ms": times(asked, {n: _alone(f) for n, f in embedders.items()})}


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table as JSON; what is wrong goes to stderr in one line."""
    parser = argparse.ArgumentParser(description="measure an edge-bert beside its teacher")
    parser.add_argument("--data", type=Path, required=True, help="folder with train/text and text/atis")
    parser.add_argument("--model", type=Path, default=Path("models/edge-bert"))
    parser.add_argument("--teacher", default="minilm-l6-int8", help='model to compare with; "" leaves it out')
    parser.add_argument("--most", type=int, default=24_000_000, help="characters of a file, as in training")
    args = parser.parse_args(arguments)
    try:
        if args.teacher:
            need("the teacher", "tokenizers")
        found = report(args.data, args.model, args.teacher, args.most, lambda line: sys.stderr.write(f"{line}\n"))
    except EdgeAgentError as error:
        sys.stderr.write(f"bert_report: {error}\n")
        return error.exit_code
    sys.stdout.write(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
