"""What pictures cost: the same film through the same detector and tracker, with and without, in turns, frame by frame.

    python -m tests.bench.pictures FILM [--model yolox-nano] [--frames 400]

Prints for each way the processor time a frame of the whole process (the threads that pack and write are in it), and its
ratio to that without pictures in the same turn (median, and the middle half).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

WAYS = {
    "without": "",
    "snapshots": "snapshots = true",
    "whole": "snapshots = true\nwhole = true",
    "clips": 'clips = ["crossing"]',
    "both": 'snapshots = true\nclips = ["crossing"]',
    "collect": 'collect = ["uncertain", "rare"]\nconsent = "a test"',
    "both, blurred": 'snapshots = true\nclips = ["crossing"]',
}
"""what of [samples] is asked for: clips that are held in memory and never written"""
TURN = 40
"""frames of each way before it is another one's turn"""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("film", type=Path)
    parser.add_argument("--model", default="edge-yolo")
    parser.add_argument("--frames", type=int, default=400)
    args = parser.parse_args()
    spent = work(list(WAYS), args)
    print(f"{'':15}{'ms a frame':>11}{'ratio':>8}{'middle half':>15}")
    for way, each in spent.items():
        ratios = [one / other for one, other in zip(each, spent["without"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(f"{way:15}{statistics.median(each):>11.2f}{middle:>8.2f}{f'{low:.2f} to {high:.2f}':>15}")


def work(ways: list[str], args: argparse.Namespace) -> dict[str, list[float]]:
    """Milliseconds of processor time a frame of each way, one number a turn."""
    from edge_agent import config
    from edge_agent.agent.keep import Keep
    from edge_agent.agent.line import make_line
    from edge_agent.agent.record import Recorder
    from edge_agent.agent.zones import follow_of
    from edge_agent.outbox.outbox import Outbox
    from edge_agent.serving.models import Models
    from edge_agent.types import Frame
    from edge_agent.walk.pipeline import Stats, Terms, run
    from edge_agent.walk.report import Report

    models, base = Models(threads=1, pull=False), Path(tempfile.mkdtemp())
    frames = [item for item in _read(args.film, args.frames) if isinstance(item, Frame)]
    lines, records = {}, []
    for way in ways:
        blur = '[privacy]\nblur = ["person"]\n' if "blurred" in way else ""
        text = f"{blur}[samples]\n{WAYS[way]}\n" if WAYS[way] else ""
        pipe = f'[[pipeline]]\nname = "yard"\nsource = "files:{args.film}"\n'
        tasks = f'tasks = ["detect:{args.model}?classes=person", "track"]\n'
        parsed = config.parse(text + pipe + tasks, base=base)
        outbox = Outbox(base / way.replace(", ", "-"), "bench")
        keep = Keep(outbox)
        record, line = Recorder(parsed, keep, None), make_line(parsed.pipeline[0], models, None)
        line.follow = follow_of(line.config, (), outbox.path)
        record.attach(line)
        record.start()
        records.append((record, outbox))
        report = Report(line.config, True, keep.put, lambda mark: None, bool, follow=line.follow)
        lines[way] = line, report
    spent: dict[str, list[float]] = {way: [] for way in ways}
    for first in range(0, len(frames), TURN):
        for way, (line, report) in lines.items():
            terms, began = Terms(watchers=line.watchers), time.process_time()
            for frame in frames[first : first + TURN]:
                run([frame], line.teams[0], _all_but_the_end(report), report.keep, Stats(), terms=terms)
            spent[way].append((time.process_time() - began) * 1000 / len(frames[first : first + TURN]))
    for record, outbox in records:
        record.stop(1.0)
        record.close()
        outbox.close()
    return spent


def _all_but_the_end(report: object):  # type: ignore[no-untyped-def]
    """The report, which is not told that each frame is the last."""
    return lambda found: () if found is None else report.worth(found)  # type: ignore[attr-defined]


def _read(film: Path, most: int):  # type: ignore[no-untyped-def]
    import threading
    from itertools import islice

    from edge_agent.sources import open_source
    from edge_agent.uri import parse_uri

    return islice(open_source(parse_uri(f"files:{film}")).run(threading.Event()), most)


if __name__ == "__main__":
    main()
