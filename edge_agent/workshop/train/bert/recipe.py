"""`edge-agent train bert`: a small BERT from your own text, with a sentence encoder as its teacher."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

import torch

from edge_agent.errors import UsageError
from edge_agent.manifest import Manifest
from edge_agent.registry import catalogue
from edge_agent.registry.files import Located
from edge_agent.tasks.text.encoder import Encoder
from edge_agent.workshop.report.folder import TRAINING
from edge_agent.workshop.train import loop
from edge_agent.workshop.train.bert import data, export, fit
from edge_agent.workshop.train.bert.net import Bert, Shape, half_pays
from edge_agent.workshop.train.bert.teacher import teacher, texts, token_vectors, vectors
from edge_agent.workshop.train.bert.vocab import bulk_tokenizer, train_vocabulary
from edge_agent.workshop.train.finish import Say, finish, made, refuse_ruin

HELD_TEXTS = 1000
"""held-out texts on which the agreement with the teacher is followed"""


def run(args: argparse.Namespace, say: Say) -> int:
    """Trains, then writes the model folder; 0 when it stands in `args.out`.

    Raises UsageError for options or data that cannot be, ModelError for a teacher or a start that cannot be used and
    for a loss that is no number.
    """

    if not 0 < args.minutes < 1e5 or args.texts < HELD_TEXTS or not 200 <= args.vocabulary <= 30000:
        raise UsageError("--minutes must be above 0, --texts 1000 or more, --vocabulary from 200 to 30000")
    device = loop.device_of(args.device)
    try:
        (args.out / TRAINING).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{args.out}: no folder can be made there: {error.strerror}") from None
    train, held = corpora(args, say)
    taught_by = teacher(args.teacher)
    told_by = vectors(taught_by)
    args.rows = args.rows or (512 if device.startswith("cuda") else 16)
    args.half = half_pays(device)
    out = args.out / TRAINING
    tokenizer = bulk_tokenizer(out / "vocab.txt")
    say(f"{len(train.tokens):,} tokens to train on, {len(held.tokens):,} held out, on {device}")
    torch.manual_seed(args.seed)
    net = _begun(taught_by, args).to(device)
    about = {"shape": asdict(net.shape)}
    clock = loop.Clock(args.minutes * 60)
    training = loop.Training(out, clock, {"weights": net}, [fit.optimizer_of(net)], args.resume, about)
    asked = texts(held, HELD_TEXTS, 3)
    told = fit.Held(data.deck(held, device), fit.rows(tokenizer, asked), told_by(asked).astype("float16"))
    lessons = fit.Lessons()
    fit.teach(lessons, texts(train, args.texts, args.seed), tokenizer, told_by)
    begun = fit.loss_of(fit.measure(net, told, args.half))
    fit.fit(training, net, data.deck(train, device), told, lessons, args, say)
    least = min(map(fit.loss_of, training.curve))
    refuse_ruin(begun, least, args.out)

    def build(new: Path) -> Manifest:
        return export.write_model(export.net_of(loop.load(out / loop.BEST)), out / "vocab.txt", new)

    method = f"{clock.step} steps of {args.rows} sequences, taught by {args.teacher}, seed {args.seed}"
    parent = start(args.start)[1] if args.start else None
    finish(args, say, build, made(method, args.data, parent, {"loss": least}), training.curve)
    return 0


def corpora(args: argparse.Namespace, say: Say) -> tuple[data.Corpus, data.Corpus]:
    """(training, held-out) text, encoded with the vocabulary of --resume or --start, or else with a new one."""
    sources = data.read_sources(args.data, say, args.most)
    train, held = data.split(sources)
    if not train or sum(len(d) for s in held for d in s.documents) < 20:
        documents = sum(len(s.documents) for s in sources)
        raise UsageError(
            f"{documents} documents are too few to keep some apart for measuring: put a blank line between documents "
            f"(one in {data.HELD_OUT} is kept)"
        )
    tokenizer = bulk_tokenizer(_vocabulary(args, train, say))
    return data.encode(train, tokenizer), data.encode(held, tokenizer)


def _vocabulary(args: argparse.Namespace, train: list[data.TextSource], say: Say) -> Path:
    """vocab.txt in --out: the one there for --resume, that of --start, or a new one."""
    vocab: Path = args.out / TRAINING / "vocab.txt"
    if args.resume:
        if not (vocab.parent / loop.STATE).is_file():
            raise UsageError(f"{args.out}: no {loop.STATE} to resume from; leave --resume out to begin anew")
    elif args.start is not None:
        try:
            vocab.write_bytes(_vocab_of(start(args.start)[0]).read_bytes())
        except OSError as error:
            raise UsageError(f"--start {args.start}: its vocab.txt cannot be copied: {error.strerror}") from None
    else:
        say(f"{train_vocabulary(train, args.vocabulary, vocab)} word pieces in {vocab}")
    return vocab


def _begun(taught_by: Encoder, args: argparse.Namespace) -> Bert:
    """The network to train: that of --resume, that of --start, or a new one."""
    out = args.out / TRAINING
    if args.resume:
        return export.net_of(loop.load(out / loop.STATE))
    if args.start is not None:
        return export.read_net(start(args.start)[0])
    pieces = (out / "vocab.txt").read_text(encoding="utf-8").splitlines()
    net = Bert(Shape(len(pieces)))
    tokens = token_vectors(args.teacher, taught_by, pieces, net.shape.token)
    if tokens is not None and tokens.shape == tuple(net.token.weight.shape):
        # the teacher's own vectors, in the scale of the net
        net.token.weight.data.copy_(torch.from_numpy(tokens / tokens.std() * 0.05))
    return net


def start(name: str) -> tuple[Path, Located | None]:
    """The folder to go on from, and its model; None for a training that was not finished."""

    folder = Path(name)
    if (folder / TRAINING / loop.BEST).is_file() and not (folder / "manifest.toml").is_file():
        return folder, None
    located = catalogue.locate(name)
    return located.folder, located


def _vocab_of(folder: Path) -> Path:
    """vocab.txt of a finished model, or of a training."""
    left = folder / TRAINING / "vocab.txt"
    return left if left.is_file() else folder / "vocab.txt"
