"""The verbs of a device: run, check, demo, doctor."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.cli.given import config_of
from edge_agent.cli.say import note, one_line, progress
from edge_agent.cli.sections import sections
from edge_agent.cli.signals import stop_on_signals
from edge_agent.device.notify import notify
from edge_agent.errors import ConfigError, EdgeAgentError
from edge_agent.redact import redact, source_for_people

if TYPE_CHECKING:
    from edge_agent.agent.agent import Agent
    from edge_agent.agent.line import Line
    from edge_agent.config import Config
    from edge_agent.link.broker import Broker
    from edge_agent.link.rights import Tried


def run(args: argparse.Namespace) -> int:
    """Work until a signal, or until the sources have ended and all is acknowledged."""
    args.config = config_of(args)
    try:
        return _run_config(args)
    except ConfigError as error:
        _tell_broker(Path(args.config), one_line(error))
        raise


def _tell_broker(path: Path, why: str) -> None:
    """A service that is not started again says so where somebody looks; in a terminal somebody does."""
    if not os.environ.get("NOTIFY_SOCKET"):
        return
    from edge_agent import config
    from edge_agent.config.kept import NOW
    from edge_agent.link.word import say_why

    # a file that is no TOML says nothing of a broker, but the one that worked does
    before = Path(os.environ.get("STATE_DIRECTORY", "").split(":")[0], "outbox", NOW)
    told = config.broker_part(path) or config.broker_part(before)
    if told is not None:
        say_why(told, why)


def _run_config(args: argparse.Namespace) -> int:
    from edge_agent import config
    from edge_agent.cli.page import page_of
    from edge_agent.cli.update import take_first
    from edge_agent.config.kept import keep

    stop, look = stop_on_signals(), threading.Event()
    _on_hangup(look.set)
    take_first(args.config)
    loaded = config.load(args.config)
    agent = _agent(args, loaded, look)
    page = None
    while True:
        page = page_of(loaded, agent.outbox.path, Path(args.config), page)
        if page is not None:
            page.show(agent)
        _announce(args.config, loaded, agent)
        keep(Path(args.config), agent.outbox.path)
        agent.on_config = lambda new, at=agent.outbox.path: keep(Path(args.config), at)  # type: ignore[misc]
        _on_hangup(agent.reload)
        notify("READY=1")
        code = _run(agent, stop)
        if agent.again is None or stop.is_set():
            if page is not None:
                page.stop()
            return code
        last, loaded = agent.config, agent.again
        try:
            agent = _agent(args, loaded, look)
        except EdgeAgentError as error:  # as the store of another process
            note(f"{args.config}: refused, the config before goes on: {one_line(error)}")
            loaded = last
            agent = _agent(args, loaded, look)
            agent.turning.not_made = one_line(error)


def _announce(path: str, loaded: Config, agent: Agent) -> None:
    """Say what in a config is likely not meant, which models it runs on, and what this device cannot keep up with."""
    from edge_agent import config
    from edge_agent.agent.need import loads_of, weighed

    for word in [word for pipe in loaded.pipeline for word in config.warnings(pipe)] + config.dotted(loaded):
        note(f"{path}: {word}")
    for line in agent.lines:
        for why in line.models:
            note(f"{line.config.name}: {why}")
    for word in weighed(loads_of(agent.lines, agent.swap.models, find_out=False), agent.swap.models.lane.cores)[0]:
        note(word)


def _agent(args: argparse.Namespace, loaded: Config, look: threading.Event) -> Agent:
    """What a config becomes. Raises an EdgeAgentError."""
    from edge_agent import config
    from edge_agent.agent.agent import Agent

    with config.of(args.config):
        return Agent(
            loaded,
            pull=args.pull,
            race=True,
            say=progress("fetching"),
            look=look,
            reread=lambda shared=None: config.load(args.config, shared=shared),
        )


def _run(agent: Agent, stop: threading.Event) -> int:
    """Let it work, and say what came of it; 1 where the disk did not take all."""
    try:
        agent.run(stop)
    finally:
        if agent.again is None:
            notify("STOPPING=1")
        counts, gone = agent.outbox.counts, agent.outbox.unwritten
        more = f", {gone} refused by the disk: the next start declares what is lost of them" if gone else ""
        more += f", {agent.unanswered} texts lost before they were events" if agent.unanswered else ""
        note(f"{counts.put - gone} events kept, {counts.done} acknowledged, {counts.dropped} lost{more}")
    return 1 if gone else 0


def _on_hangup(act: Callable[[], None]) -> None:
    """What SIGHUP does; in a terminal it means that the terminal is gone."""
    if sys.stdin is None or not sys.stdin.isatty():
        signal.signal(signal.SIGHUP, lambda *_: act())


def check(args: argparse.Namespace) -> int:
    """Say what a config will do, or what is wrong with it; 1 when a deadline in it cannot be met or, with --connect or
    --notify, something that was tried is not right.
    """
    from edge_agent import config
    from edge_agent.agent.told import try_told
    from edge_agent.link.rights import Tried

    args.config = config_of(args)
    loaded = config.load(args.config)
    with config.of(args.config):
        lines, store, in_time = _check(loaded)
        if args.notify is not None:
            return _shown(Tried(*row) for row in try_told(loaded, args.notify))
    if args.connect:
        return max(_try(loaded, lines, store), int(not in_time))
    untried = ["the login and the rights at the broker"] * bool(loaded.mqtt.url)
    live = [line for line in lines if line.opened.live]
    what = {"sound": "sound"}
    untried += [f"a message to {one.name} (--notify sends one)" for one in loaded.notify]
    untried += [f"{what.get(line.opened.yields.words, 'a picture')} of {line.config.name}" for line in live]
    print(f"not tried: {', '.join([*untried, 'a write to the store'])}; --connect tries them")
    return int(not in_time)


def _try(loaded: Config, lines: list[Line], store: Path) -> int:
    """Do for a moment what the agent will do; 1 when something is not right."""
    from edge_agent.agent.first import first_sample
    from edge_agent.link.rights import Tried, tried

    rows = [Tried(True, f"{line.config.name}: {why}") for line in lines for why in line.models]
    rows += [Tried(*first_sample(line)) for line in lines]
    rows += tried(loaded) if loaded.mqtt.url is not None else []
    rows.append(Tried(*_takes_writes(store)))
    return _shown(rows)


def _shown(rows: Iterable[Tried]) -> int:
    """Print what was tried; 1 when something is not right."""
    good = True
    for row in rows:
        print(f"{'--' if row.good is None else 'ok' if row.good else 'NO'}  {redact(row.told)}", flush=True)
        good = good and row.good is not False
    return 0 if good else 1


def _takes_writes(store: Path) -> tuple[bool, str]:
    """Whether the disk below a store takes a file, and a line about it."""
    import tempfile

    place = next(folder for folder in (store, *store.absolute().parents) if folder.is_dir())
    try:
        with tempfile.NamedTemporaryFile(dir=place) as file:
            file.write(bytes(64 * 1024))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return False, f"store: {place}: the disk takes no writes ({error.strerror}); free or remount it"
    return True, f"store: {place}: takes writes"


def _check(loaded: Config) -> tuple[list[Line], Path, bool]:
    from edge_agent import config
    from edge_agent.agent.limits import check_limits
    from edge_agent.agent.line import make_line
    from edge_agent.agent.need import loads_of, weighed
    from edge_agent.agent.requests import check as check_understand
    from edge_agent.agent.rule_pipes import check_rules
    from edge_agent.agent.store import checked_store
    from edge_agent.agent.told import check_heard
    from edge_agent.link.broker import Broker
    from edge_agent.serving.models import Models

    store, models, lines = checked_store(loaded), Models(threads=loaded.device.threads), []
    broker = Broker(loaded.mqtt) if loaded.mqtt.url is not None else None
    for pipe in loaded.pipeline:
        # a topic can be checked without a connection
        line = make_line(pipe, models, (lambda topics, receive: None) if broker else None, zones=loaded.zone)
        lines.append(line)
        print(f"{pipe.name}: {source_for_people(pipe.source)} -> {redact(', '.join(line.config.tasks)) or 'as it is'}")
        for told in filter(None, (line.opened.about(), *line.models, *config.warnings(pipe))):
            print(f"  {redact(told)}")
    check_understand(loaded.understand)
    check_rules(loaded, lines)
    check_heard(loaded, lines)
    loads = loads_of(lines, models)
    words, in_time = weighed(loads, models.lane.cores)
    words += list(filter(None, [check_limits(loaded.limits, loads)]))
    said = [f"mqtt: {_about(broker, loaded)}" if broker else "mqtt: no url, events stay in the store"]
    for word in [*words, *said, *config.dotted(loaded), *sections(loaded)]:
        print(word)
    print(f"store: {store}, at most {loaded.store.max_bytes // 10**6} MB")
    return lines, store, in_time


def _about(broker: Broker, loaded: Config) -> str:
    """Where and how a broker is reached, and under which topics."""
    from edge_agent.config import parse_brokers
    from edge_agent.link import topics

    several = parse_brokers(loaded.mqtt.url or "")[1:]
    others = "".join(f", {at.host}:{at.port}" for at in several)
    tls = " with TLS" if broker.secure else ""
    tls += " over WebSockets" if broker.path else ""
    return f"{broker.host}:{broker.port}{others}{tls} as {topics.base_of(loaded.mqtt.prefix, loaded.device.id)}"


def demo(args: argparse.Namespace) -> int:
    """The main job, through a broker and back; 1 when an event is missing."""
    from edge_agent.cli import demo
    from edge_agent.cli.listen import show_message

    stop = stop_on_signals()
    total = demo.run(args.seconds, show_message, note, stop, args.microphone, args.source)
    heard = f", {total.heard} sentences heard" if total.heard or args.microphone else ""
    print(f"\n{total.seconds:.1f} s: {total.frames} frames, {total.texts} texts{heard}")
    print(f"events: {total.sent} sent, {total.received} received, {total.duplicates} twice, {total.lost} lost")
    print(f"{'stage':24}{'median':>10}{'p95':>10}  ms")
    for stage, (median, p95) in total.stages.items():
        print(f"{stage:24}{median:10.2f}{p95:10.2f}")
    print(f"peak RSS {total.peak_rss / 1e6:.0f} MB (agent, broker's consumer and clip maker in one process)")
    if total.lost:
        raise EdgeAgentError(f"{total.lost} of {total.sent} events did not come back from the broker")
    if not total.sent:
        raise EdgeAgentError("no event at all was sent; see the log above")
    return 0


def doctor(args: argparse.Namespace) -> int:
    """Look at this machine; 1 when something needed is missing. With --cameras: at its networks, and nothing else."""
    import json

    if args.cameras:
        from edge_agent.cli.cameras import cameras

        return cameras(args.credentials, args.json)
    if args.credentials:
        raise ConfigError("--credentials is for --cameras")
    from edge_agent.cli.doctor import examine

    rows = examine(args.config)
    if args.json:
        print(json.dumps([{**row._asdict(), "ok": row.level != "fix"} for row in rows]))
    else:
        for row in rows:
            print(redact(f"{row.level:4} {row.what:14} {row.found}"))
            if row.mend:
                print(redact(f"{'':19} -> {row.mend}"))
    return 1 if any(row.level == "fix" for row in rows) else 0
