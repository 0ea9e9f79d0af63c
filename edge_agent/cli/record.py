"""The verbs record and replay: what pipelines see, hear and read is kept as it comes, and answered once more."""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.cli import arguments
from edge_agent.cli.given import config_of
from edge_agent.cli.say import note, print_json, progress
from edge_agent.cli.signals import stop_on_signals
from edge_agent.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from edge_agent.config import Config
    from edge_agent.events import Event
    from edge_agent.recorder.tape import Tape

LOOK_S = 0.2
SHOWN = 10
"""differences that are printed"""
OFF = ("mqtt", "archive", "mcp", "page", "inference", "sparkplug", "homeassistant", "opinion", "notify")
"""sections that a recording needs nothing of"""


def record_options(of: argparse.ArgumentParser) -> None:
    """The verb's options."""
    of.add_argument("-c", "--config", help="TOML file (default: that of the service)")
    of.add_argument(
        "--for", dest="time", type=arguments.duration, metavar="TIME", help="end after so long, as 90s, 10m or 1h"
    )
    of.add_argument("--out", type=Path, metavar="FOLDER", help="a new folder (default: one below HOME/recordings)")
    of.add_argument("--most", type=arguments.bytes, default=10**9, metavar="BYTES", help="end there (default: 1G)")
    of.add_argument("--pipeline", action="append", metavar="NAME", help="this one alone (may be repeated)")
    of.add_argument("--pull", action="store_true", help="fetch models that are not here")


def replay_options(of: argparse.ArgumentParser) -> None:
    """The verb's options."""
    of.add_argument("folder", type=Path, help="what `record` or [samples] record wrote")
    of.add_argument("--page", action="store_true", help="show it on the page, as fast as it was then, until Ctrl-C")
    of.add_argument("--pull", action="store_true", help="fetch models that are not here")
    of.add_argument("--json", action="store_true", help="print one JSON object, and nothing else")


def record(args: argparse.Namespace) -> int:
    """Run a config's pipelines, without a broker, and keep what they are given."""
    from edge_agent import config
    from edge_agent.agent.agent import Agent
    from edge_agent.recorder.tape import Tape
    from edge_agent.walk import recording

    args.config = config_of(args)
    loaded, stop = config.load(args.config), stop_on_signals()
    out = args.out or recording.place() / time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    if out.exists():
        raise UsageError(f"{out}: is there already; give a new folder")
    tape = Tape(out.parent, args.most, 0.0, whole=out)
    with tempfile.TemporaryDirectory(prefix="edge-agent-record-") as store:
        with config.of(args.config):
            agent = Agent(_alone(loaded, args.pipeline, store), pull=args.pull, say=progress("fetching"), tape=tape)
        note(f"recording into {out}, for this user alone (mode 0600); Ctrl-C ends it")
        _ends(stop, tape, args.time)
        agent.run(stop)
    lost = f", {tape.lost} left out, as the disk was too slow" if tape.lost else ""
    note(f"{tape.samples} samples and {tape.events} events, {tape.bytes / 1e6:.1f} MB{lost}: edge-agent replay {out}")
    return 0


def _alone(loaded: Config, names: Sequence[str] | None, store: str) -> Config:
    """A config that records, and tells nobody. ConfigError for a source that only a running agent hears."""
    import msgspec

    from edge_agent.config import Config, Samples, Store
    from edge_agent.config.sections import Understand

    plain = Config()
    off = {key: getattr(plain, key) for key in OFF}
    off["understand"] = loaded.understand and Understand(captured=loaded.understand.captured)
    if names:
        off |= _of(loaded, names)
    made = msgspec.structs.replace(loaded, **off, samples=Samples(record=True), store=Store(path=store))
    for pipe in made.pipeline:
        if pipe.source.startswith("mqtt:"):
            raise ConfigError(
                f"pipeline {pipe.name}: {pipe.source} is heard by the running agent alone; there write [samples] record"
            )
    return made


def _of(loaded: Config, names: Sequence[str]) -> dict[str, object]:
    """What a config has of these pipelines alone. UsageError for one that is none."""
    for name in names:
        if name not in (known := [pipe.name for pipe in loaded.pipeline]):
            raise UsageError(f"--pipeline {name}: there are {', '.join(known)}")
    return {
        "pipeline": [pipe for pipe in loaded.pipeline if pipe.name in names],
        "zone": [zone for zone in loaded.zone if zone.pipeline in names],
        "rule": [],
        "profile": [],
    }


def _ends(stop: threading.Event, tape: Tape, seconds: float | None) -> None:
    """Have it end after its time, or once the tape is full, which is said."""
    by = None if seconds is None else time.monotonic() + seconds

    def watch() -> None:
        while not stop.wait(LOOK_S):
            if tape.full.is_set():
                note("the recording is full")
                stop.set()
            elif by is not None and time.monotonic() >= by:
                stop.set()

    threading.Thread(target=watch, name="end", daemon=True).start()


def replay(args: argparse.Namespace) -> int:
    """Answer a recording once more; 1 where other events come of it than then."""
    from edge_agent.agent.replaying import Replay
    from edge_agent.config import Page
    from edge_agent.walk import recording

    stop = stop_on_signals()
    page_at = Page(edit=False) if args.page else None
    with tempfile.TemporaryDirectory(prefix="edge-agent-replay-") as store:
        made = Replay(args.folder, Path(store), pace=args.page, page=page_at, pull=args.pull, say=progress("fetching"))
        if not args.json:
            made.on_event = _show
        began = time.monotonic()
        _run(made, store, stop, page_at is not None)
        took = time.monotonic() - began
    different = recording.differences(recording.events(args.folder), made.said)
    if args.json:
        print_json(
            {"samples": made.samples, "events": len(made.said), "same": not different, "differences": different,
             "seconds": round(took, 3), "lost": made.lost, "fresh": made.head.fresh}
        )  # fmt: skip
        return 1 if different else 0
    return _say(made, different, took)


def _run(made, store: str, stop: threading.Event, paged: bool) -> None:  # type: ignore[no-untyped-def]
    from edge_agent.cli.page import page_of

    page = page_of(made.agent.config, Path(store))
    if page is not None:
        page.show(made.agent)
    made.run(stop)
    if page is not None:
        note("all of it was shown; Ctrl-C ends the page")
        stop.wait()
        page.stop()


def _say(made, different: list[str], took: float) -> int:  # type: ignore[no-untyped-def]
    note(f"{made.samples} samples answered in {took:.1f} s, {len(made.said)} events")
    if not different:
        note("the events are those of the recording, byte for byte, times and ids aside")
        return 0
    for line in different[:SHOWN]:
        note(line)
    if made.lost:
        note(f"{made.lost} samples are not in the recording, as the disk was too slow: what followed may differ")
    if not made.head.fresh:
        note("the recording begins while the agent ran: what it remembered then is not known here")
    return 1


def _show(event: Event) -> None:
    import msgspec

    from edge_agent.cli.listen import show_message

    show_message(event.pipeline, msgspec.to_builtins(event))
