"""``python -m tests.fleet --devices 200``: rollouts to a simulated fleet, and what came of them."""

from __future__ import annotations

import argparse

from tests.fleet.simulate import Model, simulate

SCENES = {
    "a good model": Model(),
    "a bad model, everywhere": Model(fails=1.0, agreement=0.4),
    "bad on one in five": Model(fails=0.2),
    "less accurate, and nothing fails": Model(agreement=0.8),
}


def main() -> None:
    """Run each, and print a row of each."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--devices", type=int, default=200)
    options.add_argument("--seed", type=int, default=1)
    given = options.parse_args()
    heads = ("ends as", 8), ("waves", 6), ("begun", 7), ("updated", 8), ("twice", 6), ("hours", 7), ("messages", 9)
    head = f"{'':34}" + "".join(f"{word:>{wide}}" for word, wide in (*heads, ("s here", 7)))
    print(f"{given.devices} devices; 30 % offline at first, 5 % slow, 10 % with a wrong clock, 1 % of messages lost,")
    print("the broker restarted twice, the operator's machine dead twice for 30 minutes, one agent in ten killed\n")
    print(head)
    for name, model in SCENES.items():
        got = simulate(name, given.devices, model, seed=given.seed)
        print(f"{name:34}{got.status:>8}{got.waves:6}{got.begun:7}{got.updated:8}{got.twice:6}{got.hours:7.1f}"
              f"{got.messages:9}{got.seconds:7.1f}")  # fmt: skip
        print(f"    {', '.join(f'{count} {status}' for status, count in sorted(got.counts.items()))}"
              + (f"; {got.why}" if got.why else ""))  # fmt: skip


if __name__ == "__main__":
    main()
