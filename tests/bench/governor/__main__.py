"""What serves under limits: the ladder and its rivals over ten simulated days, on answers recorded from a film.

    edge-agent models pull yolox-nano      # and, for --plot, pip install matplotlib
    python -m tests.bench.governor [--model yolox-nano] [--data DATA] [--plot docs/governor.png]

DATA/video holds vtest.avi and its truth. Rules are chosen and bandits taught on the film's first half and days of their
own; the table is of the second half and other days. The first run records, which takes minutes.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import numpy as np

from tests.bench.governor import scenes
from tests.bench.governor.days import Came, Day, Policy, Seen, days, f1, live
from tests.bench.governor.policies import (
    Bandit,
    Laddered,
    Learned,
    oracle,
    pid,
    replayed,
    reward,
    static,
    taught,
)
from tests.bench.governor.scenes import ARMS, COST, Array
from tests.conftest import ROOT

LEVEL = 0.95


def main() -> None:
    """Print the table, and draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("EDGE_AGENT_DATA", ROOT.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=default)
    parser.add_argument("--model", default="yolox-nano")
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    out = ROOT / "build" / "governor" / "found.pkl"
    found = scenes.record(args.data, args.model, out, lambda word: print(word, file=sys.stderr, flush=True))
    count = len(found["busy", 1.0])
    truth, half = scenes.truth_of(args.data / "video" / "vtest.gt.txt", count), count // 2
    parts = [_table(found, truth, frames, out) for frames in (range(half), range(half, count))]
    Bench(parts[0], parts[1]).report(args.plot)


def _table(found: object, truth: object, frames: range, out: Path) -> Array:
    """Of one half of the film; kept."""
    place = out.with_name(f"table-{frames.start}.npy")
    if not place.is_file():
        np.save(place, scenes.tables(found, truth, frames))  # type: ignore[arg-type]
    return np.asarray(np.load(place))


class Bench:
    """The policies on days that they have not seen."""

    def __init__(self, learn: Array, held: Array) -> None:
        self.learn, self.held = learn, held
        self.early, self.days = days(1), days(2)
        self.rows: list[tuple[str, float, float, int, int]] = []
        """name, F1, CPU, seconds too hot, minutes too busy"""

    def run(self, name: str, make: object) -> tuple[float, float]:
        """Ten days with a fresh policy each; `make` gives it for a day."""
        came: list[Came] = []
        for number, day in enumerate(self.days.values()):
            policy: Policy = make(day)  # type: ignore[operator]
            came.append(live(day, self.held, policy, number))
        cpu = sum(one.cpu for one in came) / len(came)
        self.rows.append((name, f1(came), cpu, sum(one.hot for one in came), sum(one.busy for one in came)))
        print(f"{name:44} F1 {self.rows[-1][1]:.4f}  CPU {cpu:.3f}  {self.rows[-1][3:]}", file=sys.stderr, flush=True)
        return self.rows[-1][1], cpu

    def statics(self) -> list[tuple[float, float, int]]:
        """CPU, F1 and arm of those that nothing beats at their price, on the days' own mixture."""
        weight = np.zeros((self.held.shape[1], self.held.shape[3]))
        for day in self.days.values():
            np.add.at(weight, (day.sees, np.arange(len(day.sees)) * 2 % weight.shape[1]), 1)
        sums = (self.held[:3] * weight[None, :, None, :]).sum((1, 3))
        value = 2 * sums[0] / (sums[1] + sums[2])
        best: list[tuple[float, float, int]] = []
        for arm in np.argsort(COST):
            point = (float(COST[arm]), float(value[arm]), int(arm))
            if best and point[1] <= best[-1][1]:
                continue
            while len(best) > 1 and _above(best[-2], best[-1], point):
                best.pop()
            best.append(point)
        return best

    def teach(self, price: float) -> Bandit:
        """Ten days of the first half of the film."""
        bandit = Bandit(price)
        for number, day in enumerate(self.early.values()):
            live(day, self.learn, taught(bandit, day, self.learn), number)
        return bandit

    def report(self, plot: Path | None) -> None:
        """All policies."""
        line = self.statics()
        for _, _, arm in line[-3:]:
            side, often = ARMS[arm]
            self.run(f"static: side {side:g}, {often:.2f} of the frames", lambda day, arm=arm: static(arm))
        cheap = [arm for _, _, arm in line]
        for most in (1.0, 0.45):
            self.run(f"PID, at most {most:g} cores", lambda day, most=most: pid(cheap, most=most))
        self.run("ladder, whatever is in view", lambda day: Laddered(False))
        for best in (0, 2):
            self.run(f"ladder, by what is in view, from rung {best}", lambda day, best=best: Laddered(True, best))
        for price in (0.3, 0.8):
            bandit = self.teach(price)
            told = self.replay(bandit)
            self.run(f"LinUCB within the ladder, price {price:g}", lambda day, b=bandit: Learned(b))
            print(f"  replay: {told}", file=sys.stderr, flush=True)
        for price in (0.3,):
            self.run(f"oracle, price {price:g}", lambda day, p=price: oracle(day, self.held, p, LEVEL))
        self.show(line, plot)

    def replay(self, bandit: Bandit) -> str:
        """Off-policy: what the bandit would have got on a day of the first half on which arms were drawn by chance."""
        rng, log = np.random.default_rng(3), list[tuple[int, int, float, float]]()
        day = self.early["ordinary"]
        drawn = sorted({arm for rung in Laddered().arms for arm in rung})
        inner = Laddered()

        def explore(seen: Seen) -> int:
            usual = inner(seen)
            arm = int(rng.choice(drawn)) if rng.random() < 0.5 else usual
            chance = 0.5 / len(drawn) * (arm in drawn) + 0.5 * (arm == usual)
            at = int(seen.now) // 2
            got = reward(self.learn, int(day.sees[at]), int(seen.now) % self.learn.shape[3])[arm]
            log.append((bandit.context(seen), arm, chance, float(got - bandit.price * COST[arm])))
            return arm

        live(day, self.learn, explore)
        mean, half = replayed(log, bandit)
        usual = float(np.mean([got for _, _, _, got in log]))
        lives = "goes live" if mean - half > usual else "does not go live"
        return f"{mean:.3f} ± {half:.3f} a step, recorded {usual:.3f}: {lives}"

    def show(self, line: list[tuple[float, float, int]], plot: Path | None) -> None:
        """The table in Markdown."""
        whole = line[-1][1]
        x, y = [cost for cost, _, _ in line], [value for _, value, _ in line]
        print("| policy | F1, % of the best static | CPU, % of it | static at that CPU | s too hot | min too busy |")
        print("|---|--:|--:|--:|--:|--:|")
        for name, value, cpu, hot, busy in self.rows:
            same = float(np.interp(cpu, x, y))
            print(
                f"| {name} | {100 * value / whole:.1f} | {100 * cpu:.0f} | {100 * same / whole:.1f} | {hot} | {busy} |"
            )
        if plot is not None:
            draw(plot, [(c, v / whole) for c, v, _ in line], [(n, v / whole, c) for n, v, c, *_ in self.rows], self)


def _above(a: tuple[float, ...], b: tuple[float, ...], c: tuple[float, ...]) -> bool:
    """Whether b lies on or below the line from a to c."""
    return (b[1] - a[1]) * (c[0] - a[0]) <= (c[1] - a[1]) * (b[0] - a[0])


def draw(place: Path, line: list[tuple[float, float]], rows: list[tuple[str, float, float]], bench: Bench) -> None:
    """F1 over CPU, and the hottest day."""
    import matplotlib  # type: ignore[import-not-found]

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt  # type: ignore[import-not-found]

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4))
    left.plot([100 * c for c, _ in line], [100 * v for _, v in line], "o-", color="grey", label="static choices")
    kinds = {
        "PID": ("v", "PID"),
        "ladder, whatever": ("s", "ladder alone"),
        "ladder, by": ("D", "ladder, by what is in view"),
        "LinUCB": ("^", "LinUCB"),
        "oracle": ("*", "oracle"),
    }
    for start, (mark, called) in kinds.items():
        some = [(100 * c, 100 * v) for name, v, c in rows if name.startswith(start)]
        left.plot(*zip(*some, strict=True), mark, label=called)
    left.set(xlabel="CPU, % of the best static choice", ylabel="F1, % of it", xlim=(5, 105), ylim=(88, 102))
    left.legend(fontsize=8, loc="lower right")
    day = bench.days["heat wave"]
    for name, policy in (("as it is", static(0)), ("the agent's ladder", Laddered())):
        right.plot(*_warmth(day, bench.held, policy), label=name)
    right.axhline(80, color="red", lw=1)
    right.set(xlabel="hour of the heat wave", ylabel="°C", xlim=(0, 24))
    right.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(place, dpi=80)


def _warmth(day: Day, table: Array, policy: Policy) -> tuple[list[float], list[float]]:
    hours, warm = list[float](), list[float]()

    def watch(seen: Seen) -> int:
        if seen.now % 120 == 0:
            hours.append(seen.now / 3600)
            warm.append(seen.celsius)
        return policy(seen)

    live(day, table, watch)
    return hours, warm


if __name__ == "__main__":
    main()
