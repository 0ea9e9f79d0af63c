"""`edge-agent train tagger`: a tagger of text from marked sentences, on an edge-bert whose weights are trained along.

One linear layer over each word's first piece (Devlin et al. 2018, 5.3). Slots are filled anew from other sentences,
and pieces are hidden, so that the few sentences that people mark are not learnt by heart.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edge_agent.errors import UsageError
from edge_agent.tasks.text import vocabulary
from edge_agent.workshop.train.bert.vocab import MISSING
from edge_agent.workshop.train.tagger import data

KEPT = 10
"""one sentence in so many is kept to choose the best epoch by"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `edge-agent train tagger`."""
    parser.add_argument(
        "--data", type=Path, nargs="+", required=True, help="marked sentences: .tsv with [slot : words], .conll, .iob"
    )
    parser.add_argument("--test", type=Path, nargs="*", default=[], help="the same, measured once at the end")
    parser.add_argument("--start", default="edge-bert", help="an edge-bert, by name or folder (edge-bert)")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints and the finished model")
    parser.add_argument("--epochs", type=int, default=40, help="rounds over the sentences (40)")
    parser.add_argument("--rows", type=int, default=32, help="sentences a step (32)")
    parser.add_argument("--rate", type=float, default=4e-4, help="peak learning rate (0.0004)")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    parser.add_argument("--seed", type=int, default=1)


def run(args: argparse.Namespace, say: Callable[[str], None]) -> int:
    """Train, write the model folder, measure; 0. UsageError for options or data that cannot be."""
    try:
        import torch
    except ImportError:
        raise UsageError(MISSING) from None
    from edge_agent.workshop.train.bert import export
    from edge_agent.workshop.train.bert.recipe import start
    from edge_agent.workshop.train.tagger.fit import Lesson, fit

    _check(args)
    rows = [one for path in args.data for one in data.read(path)]
    folder = start(args.start)
    args.out.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / "vocab.txt", args.out / "vocab.txt")
    words = vocabulary.from_vocab(args.out / "vocab.txt", True)
    tags = data.tags_of(sorted({span[2] for one in rows for span in one.spans}))
    kept, taught = rows[::KEPT], [one for i, one in enumerate(rows) if i % KEPT]
    say(f"{len(taught)} sentences to train on, {len(kept)} to choose the best epoch by; {', '.join(tags[1::2])}")
    torch.manual_seed(args.seed)
    lesson = Lesson(taught, kept, words, tags, args.epochs, args.rows, args.rate, args.seed)
    net, head = fit(export.read_net(folder), lesson, args.out, args.resume, say)
    write(net, head, tags, args.out, say)
    if args.test:
        _report(args, rows, say)
    return 0


def _check(args: argparse.Namespace) -> None:
    """UsageError for numbers that cannot be."""
    if args.epochs < 1 or args.rows < 1 or not 0 < args.rate < 1:
        raise UsageError("--epochs and --rows must be 1 or more, --rate between 0 and 1")


def _report(args: argparse.Namespace, rows: list[data.Marked], say: Callable[[str], None]) -> None:
    """Measure the finished model beside what `rows`, which it was trained on, give without a network: report.json."""
    from edge_agent.workshop.train.tagger.measure import measure

    found = measure(args.out, [(path, data.read(path)) for path in args.test], rows)
    (args.out / "report.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for line in found["lines"]:
        say(line)


def write(net: Any, head: Any, tags: Sequence[str], out: Path, say: Callable[[str], None]) -> None:
    """tagger.onnx (float16 weights), tagger.int8.onnx, labels and manifest.toml beside vocab.txt in `out`."""
    import onnx

    from edge_agent.workshop.train.bert import export
    from edge_agent.workshop.train.bert import onnx as bert_onnx

    weight, bias = head.weight.detach().numpy().T.copy(), head.bias.detach().numpy()
    graph = bert_onnx.tagger(net.eval(), weight, bias)
    onnx.save(bert_onnx.stored_in_half(graph), str(out / "tagger.onnx"))
    export.int8(graph, out / "tagger.int8.onnx")
    rows = (
        ("tagger.int8.onnx", "onnx", "int8", "model"),
        ("tagger.onnx", "onnx", "fp16", "model"),
        ("vocab.txt", "text", "fp32", "vocab"),
    )
    files = "".join(
        f'\n[[file]]\nname = "{name}"\nformat = "{kind}"\nprecision = "{precision}"\nrole = "{role}"\n'
        f'sha256 = "{hashlib.sha256((out / name).read_bytes()).hexdigest()}"\nbytes = {(out / name).stat().st_size}\n'
        for name, kind, precision, role in rows
    )
    card = 'card = "README.md"\n' if (out / "README.md").is_file() else ""
    (out / "manifest.toml").write_text(
        f'name = "{out.resolve().name}"\nversion = "1"\ntask = "tag"\nfamily = "bert-tagger"\nlicence = "Apache-2.0"\n'
        f'trained_by = "edge-agent"\n{card}description = "{net.shape.layers} layers, {net.shape.width} wide; marks '
        f'{", ".join(tag[2:] for tag in tags[1::2])}"\nlabels = {json.dumps(tags)}\n'
        f'\n[text]\nvocab = "vocab.txt"\nlowercase = true\nmax_length = {net.shape.length}\n{files}',
        encoding="utf-8",
    )
    say(f"{out}: {', '.join(row[0] for row in rows)}, manifest.toml")
