"""`edge-agent train bert`: a small BERT from your own text, with a sentence encoder as its teacher."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from msgspec import structs

from edge_agent.errors import UsageError
from edge_agent.manifest import Manifest
from edge_agent.registry import catalogue
from edge_agent.registry.files import Located
from edge_agent.workshop.report.folder import TRAINING
from edge_agent.workshop.train import checkpoint
from edge_agent.workshop.train.bert import data, export, fit
from edge_agent.workshop.train.bert.fit import TrainPlan
from edge_agent.workshop.train.bert.loss import loss_of
from edge_agent.workshop.train.bert.net import Bert, Shape, half_pays
from edge_agent.workshop.train.bert.teacher import TeacherParts, Vectors, parts, teacher, texts, token_vectors
from edge_agent.workshop.train.bert.vocab import bulk_tokenizer, train_vocabulary
from edge_agent.workshop.train.finish import Say, finish, made, read_curve, refuse_ruin
from edge_agent.workshop.train.loop import Clock

CURVE = "curve.csv"
HELD_TEXTS = 1000
"""held-out texts on which the agreement with the teacher is followed"""


def run(args: argparse.Namespace, say: Say) -> int:
    """Trains, then writes the model folder; 0 when it stands in `args.out`.

    Raises UsageError for options or data that cannot be, ModelError for a teacher or a start that cannot be used and
    for a loss that is no number.
    """

    if not 0 < args.minutes < 1e5 or args.texts < HELD_TEXTS or not 200 <= args.vocabulary <= 30000:
        raise UsageError("--minutes must be above 0, --texts 1000 or more, --vocabulary from 200 to 30000")
    device = checkpoint.device_of(args.device)
    try:
        (args.out / TRAINING).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{args.out}: no folder can be made there: {error.strerror}") from None
    train, held = corpora(args, say)
    files = parts(args.teacher)
    vectors = teacher(files)
    rows = args.rows or (512 if device.startswith("cuda") else 16)
    plan = fit.TrainPlan(rows, args.rate, half=half_pays(device), seed=args.seed)
    run_plan(train, held, files, vectors, plan, args, device, say)
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
        if not (vocab.parent / "checkpoint.pt").is_file():
            raise UsageError(f"{args.out}: no checkpoint.pt to resume from; leave --resume out to begin anew")
    elif args.start is not None:
        try:
            vocab.write_bytes(_vocab_of(start(args.start)[0]).read_bytes())
        except OSError as error:
            raise UsageError(f"--start {args.start}: its vocab.txt cannot be copied: {error.strerror}") from None
    else:
        say(f"{train_vocabulary(train, args.vocabulary, vocab)} word pieces in {vocab}")
    return vocab


def run_plan(
    train: data.Corpus,
    held: data.Corpus,
    files: TeacherParts,
    vectors: Vectors,
    plan: TrainPlan,
    args: argparse.Namespace,
    device: str,
    say: Say,
) -> None:
    """Trains by the plan; checkpoint.pt and curve.csv in OUT/training follow it, best.pt is what is exported.

    RefusedError where that is a ruin, or the gate takes none of the files.
    """

    out = args.out / TRAINING
    tokenizer = bulk_tokenizer(out / "vocab.txt")
    say(f"{len(train.tokens):,} tokens to train on, {len(held.tokens):,} held out, on {device}")
    torch.manual_seed(plan.seed)
    net, optimizer, state = _begun(files, args, device)
    clock = Clock(args.minutes * 60, None, state["step"], state["elapsed"])
    least: float = state["least"]
    asked = texts(held, HELD_TEXTS, 3)
    told = fit.Held(data.deck(held, device), fit.rows(tokenizer, asked), vectors(asked).astype("float16"))
    lessons = fit.Lessons()
    fit.teach(lessons, texts(train, args.texts, plan.seed), tokenizer, vectors)
    begun = loss_of(fit.measure(net, told, plan.half))
    curve = checkpoint.Curve(out / CURVE, ("step", "seconds", *fit.MEASURED), clock.step)

    def keep(found: dict[str, float]) -> None:
        nonlocal least
        curve.add(clock.step, clock.spent, *found.values())
        say("held-out " + " ".join(f"{k} {v:.4f}" for k, v in found.items()))
        table = {"shape": net.shape.table(), "weights": net.state_dict()}
        if loss_of(found) <= least:
            least = loss_of(found)
            checkpoint.save(out / "best.pt", table)
        state = {"step": clock.step, "elapsed": clock.spent, "least": least}
        checkpoint.save(out / "checkpoint.pt", {**table, "optimizer": optimizer.state_dict(), "state": state})

    fit.fit(net, optimizer, clock, data.deck(train, device), told, lessons, plan, keep, say)
    refuse_ruin(begun, least, args.out)
    _write(args, plan, clock.step, least, say)


def _write(args: argparse.Namespace, plan: TrainPlan, steps: int, least: float, say: Say) -> None:
    """The model folder of the best state, with its report."""

    left = args.out / TRAINING

    def build(new: Path) -> Manifest:
        method = f"{steps} steps of {plan.rows} sequences, taught by {args.teacher}, seed {plan.seed}"
        parent = start(args.start)[1] if args.start else None
        best = export.net_of(checkpoint.load(left / "best.pt"))
        manifest = export.write_model(best, left / "vocab.txt", new)
        return structs.replace(manifest, made=made(method, args.data, parent, {"loss": least}))

    finish("bert", args, build, say, read_curve(left / CURVE), "seconds")


def _begun(
    files: TeacherParts, args: argparse.Namespace, device: str
) -> tuple[Bert, torch.optim.AdamW, dict[str, Any]]:
    """The network to train: that of --resume with its optimizer and state, that of --start, or a new one."""

    out = args.out / TRAINING
    if args.resume:
        kept = checkpoint.load(out / "checkpoint.pt")
        net = export.net_of(kept).to(device)
        optimizer = fit.optimizer_of(net)
        optimizer.load_state_dict(kept["optimizer"])
        return net, optimizer, kept["state"]
    if args.start is not None:
        net = export.read_net(start(args.start)[0])
    else:
        pieces = (out / "vocab.txt").read_text(encoding="utf-8").splitlines()
        net = Bert(Shape(len(pieces)))
        tokens = token_vectors(files, pieces, net.shape.token)
        if tokens is not None and tokens.shape == tuple(net.token.weight.shape):
            # the teacher's own vectors, in the scale of the net
            net.token.weight.data.copy_(torch.from_numpy(tokens / tokens.std() * 0.05))
    net = net.to(device)
    return net, fit.optimizer_of(net), {"step": 0, "elapsed": 0.0, "least": float("inf")}


def start(name: str) -> tuple[Path, Located | None]:
    """The folder to go on from, and its model; None for a training that was not finished."""

    folder = Path(name)
    if (folder / TRAINING / "best.pt").is_file() and not (folder / "manifest.toml").is_file():
        return folder, None
    located = catalogue.locate(name)
    return located.folder, located


def _vocab_of(folder: Path) -> Path:
    """vocab.txt of a finished model, or of a training."""
    left = folder / TRAINING / "vocab.txt"
    return left if left.is_file() else folder / "vocab.txt"
