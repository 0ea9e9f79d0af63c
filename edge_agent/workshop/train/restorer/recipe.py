"""`edge-agent train restorer`: a network that makes small print readable, by the reader's own loss."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from onnx import ModelProto

from edge_agent.backends import open_net
from edge_agent.errors import ModelError, UsageError
from edge_agent.figures.words import errors
from edge_agent.gate import read
from edge_agent.manifest import Input, Manifest
from edge_agent.registry import catalogue
from edge_agent.registry import files as registry_files
from edge_agent.tasks.read.recogniser import CHARACTERS
from edge_agent.workshop.data.texts import read_texts
from edge_agent.workshop.report.folder import TRAINING
from edge_agent.workshop.train.exported import exported
from edge_agent.workshop.train.finish import finish, made, manifest, refuse_ruin, row
from edge_agent.workshop.train.loop import Say, device_of
from edge_agent.workshop.train.restorer.fit import FOLD, HEIGHT, Line, Restorer, batched, coloured, covers, fit, shrunk
from edge_agent.workshop.train.restorer.lines import FONTS, WIDEST, drawn
from edge_agent.workshop.train.restorer.reader import OnnxNet

FILE = "restorer.onnx"
SIZES = (5.0, 6.0, 7.0, 8.0, 10.0, 12.0)
"""pixels of an em that are measured"""
MEASURED = 200
"""lines, of a font that was not practised with"""
WINS, HURTS = 0.8, 1.02
"""of the errors without it: at most so many at some size to be of use, at no size from 8 pixels on more than so many"""


RUINED = 0.3
"""share of characters that are read wrong, above which it is a ruin: few lines are measured"""


def run(args: argparse.Namespace, say: Say) -> int:
    """Train, measure on a font that was kept apart, write the model folder; 0. UsageError and InputError for options or
    data that cannot be, RefusedError for a ruin.
    """
    fonts, sentences = _given(args)
    reader, characters = _reader(args.reader)
    device = device_of(args.device)
    *practised, kept = fonts
    cut = max(1, len(sentences) * 9 // 10)
    lines = drawn(sentences[:cut], practised, characters, args.lines, args.seed)
    held = drawn(sentences[cut:] or sentences, [kept], characters, min(MEASURED, args.lines), args.seed + 1)
    say(f"{len(lines)} lines in {len(practised)} fonts; measured with {kept.name}; on {device}")
    net, training = fit(lines, reader.to(device), args, args.out / TRAINING, say)
    figures = measured(net, reader.cpu(), characters, held, args.seed)
    before, after = (float(np.mean([both[i] for both in figures.values()])) for i in (0, 1))
    refuse_ruin(before, after, args.out, "the share of characters read wrong", "train longer", least=RUINED)

    def build(new: Path) -> Manifest:
        (new / FILE).write_bytes(to_onnx(net).SerializeToString())
        says = f"makes small print readable for {args.reader}: {verdict(figures)}"
        line = Input(WIDEST, HEIGHT, channels="BGR", scale=1 / 255, letterbox="stretch")
        return manifest("restorer", "clear", "restorer", says, [row(FILE, "onnx", "fp32")], input=line)

    notes = [
        f"{size} px: {before:.3f} of the characters wrong without it, {after:.3f} with it"
        for size, (before, after) in figures.items()
    ]
    shares = {f"errors_{size}px": after / max(before, 1e-9) for size, (before, after) in figures.items()}
    steps = training.clock.step
    method = f"{steps} steps of {args.batch} lines for {args.reader}, {len(lines)} in all, seed {args.seed}"
    how = made(method, [args.text, *fonts], figures=shares)
    finish(args, say, build, how, training.curve, [*notes, verdict(figures)])
    return 0


def _given(args: argparse.Namespace) -> tuple[list[Path], list[str]]:
    """Fonts and sentences of the options. UsageError for what cannot be."""
    if args.minutes <= 0 or min(args.batch, args.lines) < 1:
        raise UsageError("--minutes, --batch and --lines must be above 0")
    fonts = sorted(path for path in args.fonts.rglob("*") if path.suffix.lower() in FONTS)
    if len(fonts) < 2:
        raise UsageError(f"--fonts {args.fonts}: {len(fonts)} fonts; give two or more, as one is kept to measure with")
    return fonts, read_texts(args.text).texts


def _reader(model: str) -> tuple[OnnxNet, list[str]]:
    """The network that reads lines, and the character of each class. UsageError for a model that reads none."""
    located = catalogue.locate(model, pull=True, read=read.seen)
    row = next((row for row in located.manifest.networks() if row.format == "onnx"), None)
    if located.manifest.task != "read" or row is None:
        raise UsageError(f"--reader {model}: reads no text; name one that does, e.g. ocr")
    path = registry_files.file_path(located, row, pull=True)
    given = open_net(path, "onnx", 1).about.get(CHARACTERS, "")
    if not given:
        raise ModelError(f"--reader {model}: its file names no characters")
    return OnnxNet(path).eval(), ["", *given.removesuffix("\n").split("\n"), " "]


def measured(
    net: Restorer, reader: OnnxNet, characters: Sequence[str], lines: Sequence[Line], seed: int
) -> dict[str, tuple[float, float]]:
    """Pixels of an em -> share of the characters that are wrong without the restorer and with it; spaces aside."""
    found = {}
    with torch.no_grad():
        for em in SIZES:
            dice, wrong, count = torch.Generator().manual_seed(seed), [0, 0], 0
            for batch in batched(lines, 8):
                small = shrunk(coloured(covers(batch), dice), em, dice)
                truths = ["".join(characters[c] for c in line.classes).replace(" ", "") for line in batch]
                count += sum(map(len, truths))
                for place, shown in enumerate((small, net(small))):
                    said = _said(reader(shown * 2 - 1), characters)
                    wrong[place] += sum(errors(truth, one) for truth, one in zip(truths, said, strict=True))
            found[f"{em:g}"] = (wrong[0] / max(count, 1), wrong[1] / max(count, 1))
    return found


def _said(told: torch.Tensor, characters: Sequence[str]) -> list[str]:
    """What the reader's answer says, without spaces: of each step the likeliest, once of those that repeat."""
    lines = []
    for best in told.argmax(-1).tolist():
        kept = [c for at, c in enumerate(best) if c and (not at or best[at - 1] != c)]
        lines.append("".join(characters[c] for c in kept).replace(" ", ""))
    return lines


def verdict(figures: dict[str, tuple[float, float]]) -> str:
    """Whether it is of use: the errors go down by a fifth at some size, and up at none from 8 pixels on."""
    better = [size for size, (before, after) in figures.items() if after <= WINS * before and before > 0]
    worse = [size for size, (before, after) in figures.items() if float(size) >= 8 and after > HURTS * before]
    if better and not worse:
        return f"of use at {', '.join(better)} px"
    why = f"it reads worse at {', '.join(worse)} px" if worse else "at no size are a fifth of the errors gone"
    return f"of no use: {why}"


def to_onnx(net: Restorer) -> ModelProto:
    """Input `lines` (n, 3, HEIGHT, w) in 0..1, w a multiple of FOLD, blue first -> output `clear`, the same shape."""
    free = {name: {0: "n", 3: "w"} for name in ("lines", "clear")}
    return exported(net, (torch.zeros(2, 3, HEIGHT, 16 * FOLD),), ["lines"], ["clear"], free)
