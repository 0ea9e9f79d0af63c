"""`edge-agent train bert`: a small BERT from your own text, with a sentence encoder as its teacher."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.errors import ModelError, UsageError
from edge_agent.workshop.train.bert import data
from edge_agent.workshop.train.bert.vocab import MISSING, bulk_tokenizer, train_vocabulary

if TYPE_CHECKING:
    import torch

    from edge_agent.workshop.train.bert.net import Bert
    from edge_agent.workshop.train.bert.teacher import TeacherParts, Vectors


HELD_TEXTS = 1000
"""held-out texts on which the agreement with the teacher is followed"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `edge-agent train bert`."""
    parser.add_argument(
        "--data", type=Path, nargs="+", required=True, help="text: .txt or .xz files, or folders of them"
    )
    parser.add_argument("--teacher", default="minilm-l6-int8", help="model that encodes sentences (minilm-l6-int8)")
    parser.add_argument("--most", type=int, default=0, help="characters read of one file, whole documents (0: all)")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints and the finished model")
    parser.add_argument("--start", help="an edge-bert to go on from, by name or folder; its vocabulary is kept")
    parser.add_argument("--minutes", type=float, default=60.0, help="of training (60)")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    parser.add_argument("--vocabulary", type=int, default=8192, help="most word pieces (8192)")
    parser.add_argument("--texts", type=int, default=1_000_000, help="most texts that the teacher is asked (1000000)")
    parser.add_argument("--rows", type=int, help="sequences of 128 tokens in a batch (512 on a GPU, 16 on a CPU)")
    parser.add_argument("--rate", type=float, default=1.5e-3, help="peak learning rate (0.0015)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", help="cpu or cuda (cuda where there is one)")


def run(args: argparse.Namespace, say: Callable[[str], None]) -> int:
    """Trains, then writes the model folder; 0 when it stands in `args.out`.

    Raises UsageError for options or data that cannot be, ModelError for a teacher or a start that cannot be used and
    for a loss that is no number.
    """
    try:
        import torch
    except ImportError:
        raise UsageError(MISSING) from None
    from edge_agent.workshop.train.bert import fit
    from edge_agent.workshop.train.bert.net import half_pays
    from edge_agent.workshop.train.bert.teacher import parts, teacher

    if not 0 < args.minutes < 1e5 or args.texts < HELD_TEXTS or not 200 <= args.vocabulary <= 30000:
        raise UsageError("--minutes must be above 0, --texts 1000 or more, --vocabulary from 200 to 30000")
    device = _device(args.device, torch.cuda.is_available())
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{args.out}: no folder can be made there: {error.strerror}") from None
    train, held = corpora(args, say)
    files = parts(args.teacher)
    vectors = teacher(files, device)
    rows = args.rows or (512 if device.startswith("cuda") else 16)
    plan = fit.TrainPlan(args.minutes * 60, rows, args.rate, half=half_pays(device), seed=args.seed)
    run_plan(args.out, train, held, files, vectors, plan, args, device, say)
    return 0


def _device(asked: str | None, cuda: bool) -> str:
    """cpu or cuda. UsageError for what is not here."""
    device = asked or ("cuda" if cuda else "cpu")
    if device.split(":")[0] not in ("cpu", "cuda") or (device != "cpu" and not cuda):
        raise UsageError(f"--device {device}: not here; leave it out, or give cpu")
    return device


def corpora(args: argparse.Namespace, say: Callable[[str], None]) -> tuple[data.Corpus, data.Corpus]:
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


def _vocabulary(args: argparse.Namespace, train: list[data.TextSource], say: Callable[[str], None]) -> Path:
    """vocab.txt in --out: the one there for --resume, that of --start, or a new one."""
    vocab: Path = args.out / "vocab.txt"
    if args.resume:
        if not (args.out / "checkpoint.pt").is_file():
            raise UsageError(f"{args.out}: no checkpoint.pt to resume from; leave --resume out to begin anew")
    elif args.start is not None:
        try:
            vocab.write_bytes((start(args.start) / "vocab.txt").read_bytes())
        except OSError as error:
            raise UsageError(f"--start {args.start}: its vocab.txt cannot be copied: {error.strerror}") from None
    else:
        say(f"{train_vocabulary(train, args.vocabulary, vocab)} word pieces in {vocab}")
    return vocab


def run_plan(
    out: Path,
    train: data.Corpus,
    held: data.Corpus,
    files: TeacherParts,
    vectors: Vectors,
    plan: Any,
    args: argparse.Namespace,
    device: str,
    say: Callable[[str], None],
) -> None:
    """Trains by the plan; checkpoint.pt and curve.csv in `out` follow it, best.pt is what is exported."""
    import torch

    from edge_agent.workshop.train.bert import fit
    from edge_agent.workshop.train.bert.teacher import texts

    tokenizer = bulk_tokenizer(out / "vocab.txt")
    say(f"{len(train.tokens):,} tokens to train on, {len(held.tokens):,} held out, on {device}")
    torch.manual_seed(plan.seed)
    net, optimizer, state = _begun(out, files, args, device)
    asked = texts(held, HELD_TEXTS, 3)
    told = fit.Held(data.deck(held, device), fit.rows(tokenizer, asked), vectors(asked).astype("float16"))
    lessons = fit.Lessons()
    fit.teach(lessons, texts(train, args.texts, plan.seed), tokenizer, vectors)

    def save(optimizer: Any, state: dict[str, Any], best: bool) -> None:
        table = {"shape": net.shape.table(), "weights": net.state_dict()}
        write(out / "checkpoint.pt", {**table, "optimizer": optimizer.state_dict(), "state": state})
        if best:
            write(out / "best.pt", table)
        curve(out / "curve.csv", state["curve"])

    try:
        fit.fit(net, data.deck(train, device), told, lessons, plan, save, say, state, optimizer)
    finally:
        lessons.stop.set()
    finish(out, say)


def _begun(
    out: Path, files: TeacherParts, args: argparse.Namespace, device: str
) -> tuple[Bert, torch.optim.AdamW | None, dict[str, Any] | None]:
    """The network to train: that of --resume with its optimizer and state, that of --start, or a new one."""
    from edge_agent.workshop.train.bert import export, fit
    from edge_agent.workshop.train.bert.net import Bert, Shape
    from edge_agent.workshop.train.bert.teacher import token_vectors

    if args.resume:
        kept = export.read_table(out / "checkpoint.pt", device)
        net = export.net_of(kept).to(device)
        optimizer = fit.optimizer_of(net)
        optimizer.load_state_dict(kept["optimizer"])
        return net, optimizer, kept["state"]
    if args.start is not None:
        return export.read_net(start(args.start)).to(device), None, None
    pieces = (out / "vocab.txt").read_text(encoding="utf-8").splitlines()
    net = Bert(Shape(len(pieces)))
    begin_with(net, token_vectors(files, pieces, net.shape.token))
    return net.to(device), None, None


def finish(out: Path, say: Callable[[str], None]) -> None:
    """Writes the model folder of best.pt, and curves.png of curve.csv, into `out`."""
    from edge_agent.workshop.train.bert import export
    from edge_agent.workshop.train.checkpoint import draw_curves, read_curve

    export.write_model(export.net_of(export.read_table(out / "best.pt", "cpu")), out, say)
    rows = read_curve(out / "curve.csv")
    names = [n for n in rows[0] if n not in ("seconds", "step")]
    series = {n: [(row["seconds"] / 60, row[n]) for row in rows] for n in names}
    draw_curves(out / "curves.png", series, "edge-bert on held-out text", "minutes")


def start(name: str) -> Path:
    """The folder of the model to go on from."""
    from edge_agent.registry import catalogue

    folder = Path(name)
    return folder if (folder / "best.pt").is_file() else catalogue.locate(name).folder


def begin_with(net: Bert, tokens: NDArray[np.float32] | None) -> None:
    """Lets the word pieces begin as the teacher's own vectors of them (None: at random), in the scale of the net."""
    import torch

    if tokens is not None and tokens.shape == tuple(net.token.weight.shape):
        with torch.no_grad():
            net.token.weight.copy_(torch.from_numpy(tokens / tokens.std() * 0.05))


def write(path: Path, table: dict[str, Any]) -> None:
    """Saves whole or not at all."""
    import torch

    part = path.with_suffix(".part")
    try:
        torch.save(table, part)
        part.replace(path)
    except OSError as error:
        raise ModelError(f"{path}: cannot be written: {error.strerror or error}") from None


def curve(path: Path, rows: list[dict[str, float]]) -> None:
    """The measurements so far as CSV."""
    names = list(rows[0])
    lines = [",".join(names), *(",".join(f"{row[n]:.6g}" for n in names) for row in rows)]
    part = path.with_suffix(".part")
    part.write_text("\n".join(lines) + "\n", encoding="utf-8")
    part.replace(path)
