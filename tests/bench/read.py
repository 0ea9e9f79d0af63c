"""``python -m tests.bench.read``: how well text in pictures is read, beside RapidOCR on the same networks.

Each engine is a process of its own on one thread; they take turns, a picture each. Lines are matched with what stands
there one to one, whatever their order; spaces are set aside. Intervals: 95 %, pages drawn anew 1,000 times.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.figures.words import errors

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / "tests" / "bench" / "peers"
PICTURES: dict[str, list[str]] = {
    "imageTextN.png": [
        "technical details are too complex to cover in the book itself.",
        "In teaching our courses, we have found it useful for the students to attempt a number of",
        "small implementation projects, which often build on one another, in order to get them used to",
        "working with real-world images and the challenges that these present. The students are then",
        "asked to choose an individual topic for each of their small-group, final projects. (Sometimes",
        "these projects even turn into conference papers!) The exercises at the end of each chapter",
        "contain numerous suggestions for smaller mid-term projects, as well as more open-ended",
        "problems whose solutions are still active research topics. Wherever possible, I encourage",
        "students to try their algorithms on their own personal photographs, since this better motivates",
        "them, often leads to creative variants on the problems, and better acquaints them with the",
        "variety and complexity of real-world imagery.",
        "In formulating and solving computer vision problems, I have often found it useful to draw",
        "inspiration from three high-level approaches:",
    ],
    "scenetext01.jpg": ["NOTICE", "DOUBLE", "PARKING", "PROHIBITED", "AT ALL TIMES"],
}
"""of the data's images: what stands in them"""


def own() -> None:
    """The child that is us; as peers/rapid.py says it."""
    from edge_agent.pictures.read import read_picture
    from edge_agent.serving.models import Models
    from edge_agent.tasks import make_task
    from edge_agent.types import Text
    from edge_agent.uri import parse_uri

    task = make_task(parse_uri("read:ocr"), Models(threads=1, pull=True).serve, Path())
    for line in sys.stdin:
        frame = read_picture(Path(line.strip()))
        began = time.process_time()
        lines = [text.text for text in task(frame) if isinstance(text, Text)]
        spent = time.process_time() - began
        peak = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith("VmHWM"))
        print(json.dumps({"lines": lines, "cpu": spent, "peak": int(peak.split()[1]) / 1024}), flush=True)


def wrong(truth: Sequence[str], said: Sequence[str]) -> tuple[int, int]:
    """Characters that are wrong, and that there are."""
    a, b = (["".join(line.split()) for line in lines if line.strip()] for lines in (truth, said))
    costs = sorted((errors(t, s) - len(t) - len(s), i, j) for i, t in enumerate(a) for j, s in enumerate(b))
    left, over = set(range(len(a))), set(range(len(b)))
    total = sum(map(len, a)) + sum(map(len, b))
    for saved, i, j in costs:
        if i in left and j in over:
            left.discard(i)
            over.discard(j)
            total += saved
    return total, sum(map(len, a))


def interval(values: Iterable[float]) -> tuple[float, float]:
    low, high = np.percentile(list(values), [2.5, 97.5])
    return float(low), float(high)


class Figures:
    """Of one engine: wrong characters and all, by kind, a pair a page; and what it took."""

    def __init__(self) -> None:
        self.pages: dict[str, list[tuple[int, int]]] = {}
        self.ordered: list[tuple[int, int]] = []
        self.cpu: list[float] = []
        self.peaks: list[float] = []

    def add(self, page: dict[str, Any], answer: dict[str, Any]) -> None:
        """One page."""
        self.pages.setdefault(page["kind"], []).append(wrong(page["lines"], answer["lines"]))
        self.cpu.append(answer["cpu"])
        self.peaks.append(answer["peak"])
        if page["kind"] == "two columns":
            truth, said = ("".join("".join(lines).split()) for lines in (page["lines"], answer["lines"]))
            self.ordered.append((errors(truth, said), len(truth)))

    def drawn(self, kind: str, picks: Any) -> float:
        """Share of wrong characters of the pages of a kind that were picked, in percent."""
        pairs = np.array(self.pages[kind])[picks]
        return 100 * float(pairs[:, 0].sum() / pairs[:, 1].sum())

    def mean(self, picks: dict[str, Any]) -> float:
        """Over the kinds, each weighing the same."""
        return float(np.mean([self.drawn(kind, picks[kind]) for kind in self.pages]))


def table(engines: dict[str, Figures], drawn: int = 1000) -> list[str]:
    """Rows of Markdown."""
    first = next(iter(engines.values()))
    rng = np.random.default_rng(0)
    counts = {kind: len(pairs) for kind, pairs in first.pages.items()}
    draws = [{kind: rng.integers(0, n, n) for kind, n in counts.items()} for _ in range(drawn)]
    whole = {kind: np.arange(n) for kind, n in counts.items()}
    rows = [f"| | {' | '.join(engines)} |", f"|---|{'--:|' * len(engines)}"]
    for kind, n in counts.items():
        cells = []
        for one in engines.values():
            low, high = interval(one.drawn(kind, draw[kind]) for draw in draws)
            cells.append(f"{one.drawn(kind, whole[kind]):.1f}" + (f" ({low:.1f} to {high:.1f})" if n > 1 else ""))
        rows.append(f"| {kind} | {' | '.join(cells)} |")
    means = {name: [one.mean(draw) for draw in draws] for name, one in engines.items()}
    cells = [f"{one.mean(whole):.2f} ({low:.2f} to {high:.2f})" for one, (low, high) in
             zip(engines.values(), map(interval, means.values()), strict=True)]  # fmt: skip
    rows.append(f"| **mean of the kinds** | {' | '.join(cells)} |")
    cells = [f"{100 * sum(e for e, _ in one.ordered) / sum(n for _, n in one.ordered):.1f}" for one in engines.values()]
    rows.append(f"| two columns, in reading order | {' | '.join(cells)} |")
    rows.append(f"| CPU seconds a page | {' | '.join(f'{np.mean(one.cpu):.3f}' for one in engines.values())} |")
    name, own_means = next(iter(means.items()))
    for other in [key for key in means if key != name]:
        low, high = interval(a - b for a, b in zip(own_means, means[other], strict=True))
        rows.append(f"\n{name} less {other}, paired: {low:.2f} to {high:.2f}")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", default=str(ROOT / ".venv-peers" / "bin" / "python"), help="Python with rapidocr")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--pages", default="report", choices=("tune", "report"))
    parser.add_argument("--networks", type=Path, required="child" not in sys.argv, help="folder of the two .onnx files")
    parser.add_argument("child", nargs="?")
    args = parser.parse_args()
    if args.child:
        own()
        return
    if not shutil.which(args.peers):
        raise SystemExit(f"{args.peers}: no such Python; make one with `pip install rapidocr onnxruntime pillow` in it")
    folder = ROOT / "build" / "read" / args.pages
    subprocess.run([args.peers, PEERS / "pages.py", folder, args.pages, args.data / "train" / "text"], check=True)
    pages = json.loads((folder / "truth.json").read_text())
    pages = [{**page, "path": folder / page["file"]} for page in pages]
    pages += [{"kind": name, "lines": lines, "path": args.data / "images" / name} for name, lines in PICTURES.items()]
    # those that need the most memory last, so that the others' peak is known
    pages.sort(key=lambda page: page["kind"] == "7 megapixels")
    commands = {
        "edge-agent": [sys.executable, "-m", "tests.bench.read", "child"],
        "RapidOCR, best": [args.peers, PEERS / "rapid.py", "best", args.networks],
        "RapidOCR, default": [args.peers, PEERS / "rapid.py", "default", args.networks],
    }
    children = {
        name: subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        for name, command in commands.items()
    }
    engines = {name: Figures() for name in children}
    for number, page in enumerate([pages[0], *pages]):
        turns = list(children.items())
        for name, child in turns[number % 3 :] + turns[: number % 3]:
            assert child.stdin is not None and child.stdout is not None
            print(page["path"], file=child.stdin, flush=True)
            answer = json.loads(child.stdout.readline())
            if number:  # the first one warms up
                engines[name].add(page, answer)
    for child in children.values():
        child.communicate()
    small = sum(page["kind"] != "7 megapixels" for page in pages)
    rows = table(engines)
    for what, at in (("peak MB, pages up to 0.3 megapixels", small - 1), ("peak MB, all", -1)):
        rows.insert(-2, f"| {what} | {' | '.join(f'{one.peaks[at]:.0f}' for one in engines.values())} |")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
