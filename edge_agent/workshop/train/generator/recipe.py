"""`edge-agent train generator`: what a camera's crops look like, as a network that draws more of them."""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec
import numpy as np
import torch
from onnx import ModelProto

from edge_agent.errors import RefusedError, UsageError
from edge_agent.manifest import Manifest
from edge_agent.pictures.draw import save_png
from edge_agent.types import Pixels
from edge_agent.workshop.quantize.build import QuantizePlan
from edge_agent.workshop.report.folder import TRAINING
from edge_agent.workshop.train.exported import exported, small_onnx
from edge_agent.workshop.train.finish import finish, made, manifest, refuse_ruin, row
from edge_agent.workshop.train.generator import measure
from edge_agent.workshop.train.generator.crops import Squares, read_crops
from edge_agent.workshop.train.generator.fit import LATENT, SIDE, Generator, fit
from edge_agent.workshop.train.loop import Say, device_of

FILE = "generator.onnx"
HELD = 8
"""one crop in so many is held back, to measure by"""
MEASURED = 800
"""crops of each kind that are measured at most"""
ROWS, COLUMNS = 6, 8
"""of the picture of results: drawn ones, each above what it was learnt from that is nearest to it"""


def run(args: argparse.Namespace, say: Say) -> int:
    """Train, measure, write the model folder; 0. UsageError and InputError for options or data that cannot be,
    RefusedError for a ruin.
    """
    if args.minutes <= 0 or args.batch < 4 or args.every < 1:
        raise UsageError("--minutes must be above 0, --batch 4 or more, --every 1 or more")
    crops = read_crops(args.data, args.detector, SIDE, args.every, say)
    held = np.arange(len(crops)) % HELD == 0
    learnt, back = crops[~held], crops[held]
    device = device_of(args.device)
    say(f"{len(learnt)} crops to learn from, {len(back)} held back, on {device}")
    net, training = fit(learnt, args, device, args.out / TRAINING, say)
    figures, sheet = measured(net, learnt, back, args.seed)
    drawn, noise = figures["drawn"].frechet, figures["noise"].frechet
    refuse_ruin(noise, drawn, args.out, "the distance of what it draws from real crops", "train longer")

    def build(new: Path) -> Manifest:
        (new / FILE).write_bytes(small_onnx(to_onnx(net), QuantizePlan(form="float16")))
        save_png(sheet, new / "samples.png")
        says = f"draws pictures of {SIDE}x{SIDE} like the crops that it learnt from"
        return manifest("generator", "draw", "generator", says, [row(FILE, "onnx", "fp16")])

    told = {name: msgspec.to_builtins(one) for name, one in figures.items()}
    notes = [f"{name}: " + ", ".join(f"{key} {one:.3f}" for key, one in found.items()) for name, found in told.items()]
    method = f"{training.clock.step} steps of {args.batch} crops, {len(learnt)} in all, seed {args.seed}"
    finish(args, say, build, made(method, [args.data], figures=told["drawn"]), training.curve, notes)
    return 0


def to_onnx(net: Generator) -> ModelProto:
    """Input `z` (n, LATENT) float32, output `pictures` (n, 3, SIDE, SIDE) in 0..1, red first."""
    free = {name: {0: "n"} for name in ("z", "pictures")}
    return exported(net, (torch.zeros(2, LATENT),), ["z"], ["pictures"], free)


def draw(net: Generator, count: int, seed: int) -> Squares:
    """So many pictures of the generator. RefusedError where it was ruined."""
    torch.manual_seed(seed)
    with torch.no_grad():
        shown = net(torch.randn(count, LATENT))
    if not shown.isfinite().all():
        raise RefusedError("ruined: it draws no numbers; begin anew, without --resume")
    return np.ascontiguousarray((shown.permute(0, 2, 3, 1).numpy() * 255).round().astype(np.uint8))


def measured(net: Generator, learnt: Squares, held: Squares, seed: int) -> tuple[dict[str, measure.Figures], Pixels]:
    """Figures of real pictures, drawn ones and noise; and a sheet of drawn ones, each above the nearest real one."""
    drawn = draw(net, min(MEASURED, max(len(held), 64)), seed + 1000)
    some = learnt[np.random.default_rng(seed).permutation(len(learnt))[: 4 * MEASURED]]
    noise = np.random.default_rng(seed).integers(0, 256, drawn.shape, np.uint8)
    known, *others = (measure.features(part) for part in (some, held[:MEASURED], drawn, noise))
    real, made, static = others
    half = len(known) // 2
    (apart,) = measure.measured(known[:half], real, [known[half : half + len(made)]])
    told = [apart, *measure.measured(known, real, [made, static])]
    order = np.argmin(measure.distances(made, known), axis=1)
    pairs = [np.concatenate([drawn[i], some[order[i]]], 0) for i in range(ROWS * COLUMNS // 2)]
    sheet = np.concatenate([np.concatenate(pairs[i : i + COLUMNS], 1) for i in range(0, len(pairs), COLUMNS)], 0)
    return dict(zip(("real pictures", "drawn", "noise"), told, strict=True)), np.ascontiguousarray(sheet[:, :, ::-1])
