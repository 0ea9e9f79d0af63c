"""`edge-agent train tagger`: a tagger of text from marked sentences, on an edge-bert whose weights are trained along.

One linear layer over each word's first piece (Devlin et al. 2018, 5.3). Slots are filled anew from other sentences,
and pieces are hidden, so that the few sentences that people mark are not learnt by heart.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from edge_agent.errors import RefusedError, UsageError
from edge_agent.manifest import Manifest, TextInput
from edge_agent.tasks.text import vocabulary
from edge_agent.workshop.data import marked
from edge_agent.workshop.report.folder import TRAINING
from edge_agent.workshop.train.bert import export
from edge_agent.workshop.train.bert import onnx as bert_onnx
from edge_agent.workshop.train.bert.net import Bert
from edge_agent.workshop.train.bert.recipe import start
from edge_agent.workshop.train.exported import small_onnx
from edge_agent.workshop.train.finish import Say, finish, made, manifest, row
from edge_agent.workshop.train.tagger import data
from edge_agent.workshop.train.tagger.fit import Lesson, fit

KEPT = 10
"""one sentence in so many is kept to choose the best epoch by"""


def run(args: argparse.Namespace, say: Say) -> int:
    """Train, write the model folder; 0. UsageError for options or data that cannot be, RefusedError for a ruin."""

    _check(args)
    rows = [one for path in args.data for one in marked.read(path)]
    folder, begun = start(args.start)
    words = vocabulary.from_vocab(folder / "vocab.txt", True)
    tags = data.tags_of(sorted({span[2] for one in rows for span in one.spans}))
    kept, taught = rows[::KEPT], [one for i, one in enumerate(rows) if i % KEPT]
    say(f"{len(taught)} sentences to train on, {len(kept)} to choose the best epoch by; {', '.join(tags[1::2])}")
    torch.manual_seed(args.seed)
    lesson = Lesson(taught, kept, words, tags, args)
    net, head, training = fit(export.read_net(folder), lesson, args.out / TRAINING, say)
    best = max(row["span_f1"] for row in training.curve)
    if not best > 0:
        raise RefusedError(
            f"{args.out}: ruined: it marks no span right in the sentences that were kept; no model is written"
        )

    def build(new: Path) -> Manifest:
        return write(net, head, tags, folder / "vocab.txt", new)

    method = f"{training.clock.step} rounds over {len(taught)} sentences, {args.rows} a step, seed {args.seed}"
    note = f"span F1 {best:.4f} of the sentences that were kept, by which the best round was chosen"
    finish(args, say, build, made(method, args.data, begun, {"span_f1": best}), training.curve, [note])
    return 0


def _check(args: argparse.Namespace) -> None:
    """UsageError for numbers that cannot be."""
    if args.epochs < 1 or args.rows < 1 or not 0 < args.rate < 1:
        raise UsageError("--epochs and --rows must be 1 or more, --rate between 0 and 1")


def write(net: Bert, head: torch.nn.Linear, tags: Sequence[str], vocab: Path, out: Path) -> Manifest:
    """tagger.onnx (float16 weights), tagger.int8.onnx and vocab.txt in `out`; the manifest of these."""

    graph = bert_onnx.tagger(net, head)
    (out / "tagger.onnx").write_bytes(small_onnx(graph, export.HALF))
    (out / "tagger.int8.onnx").write_bytes(small_onnx(graph, export.INT8))
    shutil.copyfile(vocab, out / "vocab.txt")
    marks = ", ".join(tag[2:] for tag in tags[1::2])
    files = [row("tagger.int8.onnx", "onnx", "int8"), row("tagger.onnx", "onnx", "fp16")]
    files.append(row("vocab.txt", "text", "fp32", "vocab"))
    text = TextInput("vocab.txt", lowercase=True, max_length=net.shape.length)
    says = f"{net.shape.layers} layers, {net.shape.width} wide; marks {marks}"
    return manifest("tagger", "tag", "bert-tagger", says, files, labels=list(tags), text=text)
