"""How well objects are followed: detections of a film and its truth -> IDF1, MOTA, switches, forwards and backwards in
time, at the full, half and a third of the frame rate.

    edge-agent detect yolox-nano FILM --classes person --score 0.1 --json > found.jsonl
    pip install motmetrics    # in an environment of its own
    python -m tests.bench.track found.jsonl TRUTH.txt --fps 10 [--new 0.6 --hits 3 --remember 2] [--half 1 | --half 2]

TRUTH is as of the MOT benchmarks: frame (from 1), identity, left, top, width, height, …
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.tasks.track.tracker import Rules, Tracker

SURE = 0.3
"""score from which on the detector's boxes count"""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("found", type=Path)
    parser.add_argument("truth", type=Path)
    parser.add_argument("--fps", type=float, required=True)
    parser.add_argument("--half", type=int, choices=(1, 2))
    parser.add_argument("--new", type=float, default=Rules().new)
    parser.add_argument("--hits", type=int, default=Rules().hits)
    parser.add_argument("--remember", type=float, default=Rules().remember)
    args = parser.parse_args()
    found = [json.loads(line)["detections"] for line in args.found.read_text().splitlines()]
    truth: list[list[list[float]]] = [[] for _ in found]
    for line in args.truth.read_text().splitlines():
        frame, *row = line.split(",")[:6]
        truth[int(frame) - 1].append([float(x) for x in row])
    half = len(found) // 2
    part = {None: slice(None), 1: slice(half), 2: slice(half, None)}[args.half]
    rows = list(zip(found[part], truth[part], strict=True))
    rules = Rules(args.new, args.hits, args.remember)
    print(f"{'rate':9}{'IDF1':>7}{'MOTA':>7}{'switches':>10}{'ms a frame':>12}")
    for step in (1, 2, 3):
        for back in (False, True):
            shown = rows[::step][:: -1 if back else 1]
            idf1, mota, switches, ms = score(shown, args.fps / step, rules)
            print(f"1/{step}{' back' if back else '':6}{idf1:>7.3f}{mota:>7.3f}{switches:>10.0f}{ms:>12.2f}")


def score(rows: list[Any], fps: float, rules: Rules) -> tuple[float, float, float, float]:
    """IDF1, MOTA, switches and the median milliseconds a frame."""
    if not hasattr(np, "asfarray"):  # motmetrics 1.4 on NumPy 2
        np.asfarray = lambda a, dtype=float: np.asarray(a, dtype)  # type: ignore[attr-defined]
    import motmetrics  # type: ignore[import-not-found]

    tracker, held, spent = Tracker(rules, {0: "person"}), motmetrics.MOTAccumulator(auto_id=True), []
    for number, (found, truth) in enumerate(rows):
        boxes = np.array([box["box"] for box in found], np.float32).reshape(-1, 4)
        scores = np.array([box["score"] for box in found], np.float32)
        began = time.perf_counter()
        seen = tracker(number / fps, boxes, scores, np.zeros(len(found), np.int32), SURE)
        spent.append(1000 * (time.perf_counter() - began))
        mine = boxes[seen.box].astype(float)
        mine[:, 2:] -= mine[:, :2]
        real = np.array(truth).reshape(-1, 5)
        far = motmetrics.distances.iou_matrix(real[:, 1:], mine, max_iou=0.5)
        held.update(real[:, 0].astype(int).tolist(), seen.id.tolist(), far)
    made = motmetrics.metrics.create().compute(held, metrics=["idf1", "mota", "num_switches"])
    return (*(float(x) for x in made.iloc[0]), float(np.median(spent)))  # type: ignore[return-value]


if __name__ == "__main__":
    main()
