"""The folder of a trained model: networks, calibration, card, report, a picture of results, manifest."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import onnx

from edge_agent.errors import RefusedError
from edge_agent.manifest import File, Input, Made, Manifest
from edge_agent.paths import carried
from edge_agent.pictures.draw import save_jpeg
from edge_agent.pictures.read import cv2
from edge_agent.registry import store
from edge_agent.tasks.anomaly.learned import Calibration, parts_of
from edge_agent.toml import toml
from edge_agent.types import Floats, Pixels
from edge_agent.workshop.graph import net
from edge_agent.workshop.imagine import tiled
from edge_agent.workshop.quantize import ranges as quantize_ranges
from edge_agent.workshop.quantize.build import QuantizePlan, build
from edge_agent.workshop.quantize.ranges import watch
from edge_agent.workshop.train.anomaly.candidates import Candidate, Lesson, Say, loaded, whole
from edge_agent.workshop.train.anomaly.data import SIDE, WINDOW

SHOWN = 6
"""normal samples in the picture, and as many unusual ones"""


def write(out: Path, lesson: Lesson, best: Candidate, found: list[Candidate], left: int, say: Say) -> None:
    """Everything into `out`, which is made. `left`: samples that were left out."""
    out.mkdir(parents=True, exist_ok=True)
    kind = lesson.data.kind
    onnx.save(best.model, str(out / "model.onnx"))
    rows = [_row(out / "model.onnx", "onnx", "model")]
    if why := _int8(best, lesson, out):
        say(f"no int8 form: {why}")
    else:
        rows.append(msgspec.structs.replace(_row(out / "model.int8.onnx", "onnx", "model"), precision="int8"))
    if best.decoder is not None:
        onnx.save(best.decoder, str(out / "decoder.onnx"))
        rows.append(_row(out / "decoder.onnx", "onnx", "decoder"))
    window = WINDOW if kind == "series" else 0
    kept = Calibration(kind, best.score, best.variance, list(best.normals), best.limit, lesson.rate, window)  # type: ignore[arg-type]
    (out / "calibration.json").write_bytes(msgspec.json.encode(kept))
    report = _report(lesson, best, found, left)
    (out / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (out / "README.md").write_text(_card(out.resolve().name, lesson, best, found, left), encoding="utf-8")
    rows += [_row(out / "calibration.json", "text", "calibration"), _row(out / "README.md", "text", "card")]
    _picture(out / "results.jpg", lesson, best)
    (out / "manifest.toml").write_text(toml(msgspec.to_builtins(_manifest(out, lesson, best, rows))), encoding="utf-8")
    say(f'{out}: a model folder; write tasks = ["anomaly:{out}"], or `edge-agent models add {out}`')


def _manifest(out: Path, lesson: Lesson, best: Candidate, rows: list[File]) -> Manifest:
    picture = made = None
    if best.name == "patches":
        picture = Input(288, 224, channels="BGR", letterbox="stretch", resize="area")
        method = f"features of its stages 8 and 16, nearest normal cells, of {len(lesson.fit)} pictures"
        figures = {"auroc": best.auroc, "caught": best.caught, "false": best.false}
        parent = carried("models") / "edge-yolo" / "model.onnx"
        made = Made("train", method, "edge-yolo 2", store.digest(parent), figures=figures)
    elif lesson.data.kind == "frames":
        picture = Input(SIDE, SIDE, channels="RGB", scale=1 / 255, letterbox="stretch", resize="area")
    return Manifest(
        name=out.resolve().name,
        version="1",
        task="anomaly",
        family={"vae": "vae", "patches": "patches"}.get(best.name, "autoencoder"),
        licence="Apache-2.0",
        trained_by="you",
        file=rows,
        description=f"what is usual of {lesson.data.kind}, by {best.name}",
        card="README.md",
        input=picture,
        made=made,
    )


def _row(path: Path, kind: str, role: str) -> File:
    return File(path.name, kind, store.digest(path), path.stat().st_size, role=role)  # type: ignore[arg-type]


def _int8(best: Candidate, lesson: Lesson, out: Path) -> str:
    """Write model.int8.onnx; why not, where there is none to be had."""
    model = net.one_each(net.of(onnx.shape_inference.infer_shapes(best.model)))
    source, shown = best.model.graph.input[0].name, lesson.fit[:: max(1, len(lesson.fit) // 32)]
    of_detector, data = best.name == "patches", lesson.data
    batches = [whole(data.whole[i]) if of_detector else data.normal[i][None] for i in shown]
    try:
        seen = watch(model, lambda: ({source: one} for one in batches), True, lambda step: None)
        made = build(model, QuantizePlan(method="mse", ops="layers"), quantize_ranges.ranges(seen, "mse", 8))
    except RefusedError as error:
        return str(error)
    (out / "model.int8.onnx").write_bytes(made)
    return ""


def _report(lesson: Lesson, best: Candidate, found: list[Candidate], left: int) -> dict[str, object]:
    keys = ("name", "score", "auroc", "caught", "false", "ms", "limit", "by_kind", "curve")
    return {
        "kind": lesson.data.kind,
        "normal": len(lesson.data.normal),
        "left_out": left,
        "bad": lesson.data.bad[:20],
        "unusual": "labelled" if lesson.real else "made up",
        "rate": lesson.rate,
        "chosen": best.name,
        "candidates": [{key: getattr(one, key) for key in keys} for one in found],
    }


def _card(name: str, lesson: Lesson, best: Candidate, found: list[Candidate], left: int) -> str:
    rows = "\n".join(
        f"| {one.name} | {one.score} | {one.auroc:.3f} | {one.caught:.0%} | {one.false:.1%} |" for one in found
    )
    kinds = ", ".join(f"{kind} {value:.3f}" for kind, value in best.by_kind.items())
    odd = "labelled ones" if lesson.real else "made up by the recipe, so no promise for real ones"
    count, kind = len(lesson.data.normal), lesson.data.kind
    return f"""# {name}

What is usual, learned from {count} samples of {kind} ({left} left out, as they look unusual themselves).
`{best.name}` serves: it tells unusual samples best ({odd}).
Above the limit of {best.limit:.4g} lie {lesson.rate:.1%} of normal samples, by {len(best.normals)} that it was not
fitted to. results.jpg: normal samples above, unusual ones below, each beside where it is unusual.

| | score | AUROC | caught | false alarms |
|---|---|---|---|---|
{rows}

AUROC of `{best.name}` by kind: {kinds}. Chosen by half of the reported samples; AUROC is of the other half.
"""


def _picture(path: Path, lesson: Lesson, best: Candidate) -> None:
    """Samples beside their heat maps; none of a series."""
    if lesson.data.kind == "series":
        return
    network, tiles = loaded(best.model), list[Pixels]()
    unit = Calibration(lesson.data.kind, "reconstruction", best.variance, [0.0], 1.0, 0.0)
    normal = lesson.data.normal[lesson.test]
    for some in (normal[:: max(1, len(normal) // SHOWN)], lesson.odd[:: max(1, len(lesson.odd) // SHOWN)]):
        for x in some[:SHOWN]:
            small = _shown(x)
            given = whole(cv2.resize(small, (288, 224))) if best.name == "patches" else x[None]
            _, heat = parts_of(given.astype(np.float64), network.run({network.inputs[0].name: given}), unit)
            tiles += [small, _heat(heat, best.limit, small)]
    save_jpeg(tiled(tiles), path)


def _shown(x: Floats) -> Pixels:
    image = (np.clip(x[::-1], 0, 1).transpose(1, 2, 0) * 255).astype(np.uint8)
    image = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
    return np.asarray(cv2.resize(image, (128, 128), interpolation=cv2.INTER_NEAREST), np.uint8)


def _heat(heat: Floats, limit: float, under: Pixels) -> Pixels:
    """The picture, red where it is far above the limit."""
    share = np.clip(cv2.resize(heat, (128, 128)) / max(3 * limit, 1e-9), 0, 1)[..., None]
    grey = under.mean(axis=2, keepdims=True) * (1 - share)
    return np.asarray(grey + share * np.array([0, 0, 255]), np.uint8)
