"""The verbs of a device: run, check, demo, listen, doctor."""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_agent.cli.say import note, print_json, progress
from edge_agent.device.notify import _notify
from edge_agent.errors import ConfigError, EdgeAgentError, LinkError, UsageError
from edge_agent.redact import redact, source_for_people

if TYPE_CHECKING:
    from edge_agent.agent.line import Line
    from edge_agent.config import Config, Mqtt


def run(args: argparse.Namespace) -> int:
    """Work until a signal, or until the sources have ended and all is acknowledged."""
    from edge_agent import config
    from edge_agent.agent.agent import Agent

    stop, look = stop_on_signals(), threading.Event()
    if sys.stdin is None or not sys.stdin.isatty():  # in a terminal it means that the terminal is gone
        signal.signal(signal.SIGHUP, lambda *_: look.set())
    loaded = config.load(args.config)
    with config.of(args.config):
        agent = Agent(loaded, pull=args.pull, race=True, say=progress("fetching"), look=look)
    for pipe in loaded.pipeline:
        for word in config.warnings(pipe):
            note(f"{args.config}: {word}")
    for word in config.dotted(loaded):
        note(f"{args.config}: {word}")
    for line in agent.lines:
        for why in line.models:
            note(f"{line.config.name}: {why}")
    if sys.stdin is None or not sys.stdin.isatty():
        signal.signal(signal.SIGHUP, lambda *_: agent.reload())
    _notify("READY=1")
    try:
        agent.run(stop)
    finally:
        _notify("STOPPING=1")
        counts, gone = agent.outbox.counts, agent.outbox.unwritten
        more = f", {gone} refused by the disk: the next start declares what is lost of them" if gone else ""
        more += f", {agent.unanswered} texts lost before they were events" if agent.unanswered else ""
        note(f"{counts.put - gone} events kept, {counts.done} acknowledged, {counts.dropped} lost{more}")
    return 1 if gone else 0


def check(args: argparse.Namespace) -> int:
    """Say what a config will do, or what is wrong with it; with --connect 1 when something that was tried is not
    right.
    """
    from edge_agent import config

    loaded = config.load(args.config)
    with config.of(args.config):
        lines, store = _check(loaded)
    if args.connect:
        return _try(loaded, lines, store)
    untried = ["the login and the rights at the broker"] * bool(loaded.mqtt.url)
    untried += [f"a picture of {line.config.name}" for line in lines if line.opened.live]
    print(f"not tried: {', '.join([*untried, 'a write to the store'])}; --connect tries them")
    return 0


def _try(loaded: Config, lines: list[Line], store: Path) -> int:
    """Do for a moment what the agent will do; 1 when something is not right."""
    from edge_agent.agent.line import first_sample
    from edge_agent.link.rights import Tried, tried

    rows = [Tried(True, f"{line.config.name}: {why}") for line in lines for why in line.models]
    rows += [Tried(*first_sample(line)) for line in lines]
    rows += tried(loaded) if loaded.mqtt.url is not None else []
    rows.append(Tried(*_takes_writes(store)))
    for row in rows:
        print(f"{'--' if row.good is None else 'ok' if row.good else 'NO'}  {redact(row.told)}", flush=True)
    return 1 if any(row.good is False for row in rows) else 0


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


def _check(loaded: Config) -> tuple[list[Line], Path]:
    from edge_agent import config
    from edge_agent.agent.agent import checked_store
    from edge_agent.agent.line import make_line
    from edge_agent.link import topics
    from edge_agent.link.broker import Broker
    from edge_agent.serving.models import Models

    store, models, lines = checked_store(loaded), Models(), []
    broker = Broker(loaded.mqtt) if loaded.mqtt.url is not None else None
    for pipe in loaded.pipeline:
        # a topic can be checked without a connection
        line = make_line(pipe, models, (lambda topics, receive: None) if broker else None)
        lines.append(line)
        print(f"{pipe.name}: {source_for_people(pipe.source)} -> {redact(', '.join(pipe.tasks)) or 'as it is'}")
        for told in (*line.models, *config.warnings(pipe)):
            print(f"  {redact(told)}")
    if broker is None:
        print("mqtt: no url, events stay in the store")
    else:
        tls = " with TLS" if broker.secure else ""
        tls += " over WebSockets" if broker.path else ""
        print(f"mqtt: {broker.host}:{broker.port}{tls} as {topics.base_of(loaded.mqtt.prefix, loaded.device.id)}")
    for word in config.dotted(loaded):
        print(word)
    print(f"store: {store}, at most {loaded.store.max_bytes // 10**6} MB")
    return lines, store


def demo(args: argparse.Namespace) -> int:
    """The main job, through a broker and back; 1 when an event is missing."""
    from edge_agent.cli import demo

    stop = stop_on_signals()
    total = demo.run(args.seconds, _show_message, note, stop)
    print(f"\n{total.seconds:.1f} s: {total.frames} frames, {total.texts} texts")
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


_streams: dict[str, str] = {}
"""What was last shown of each stream: a state is sent again and again, and shown when it changes."""


def _line(text: str) -> None:
    """What came from a broker, on one line: no character of it moves the cursor."""
    print("".join(c if c.isprintable() else " " for c in text), flush=True)


def _show_message(tail: str, body: dict[str, Any]) -> None:
    """One message as a line for people."""
    from edge_agent.events import EVENTS

    clock = time.strftime("%H:%M:%S")
    if "status" in body and len(body) == 1:
        _line(f"{clock} {tail:8} {body['status']}")
    elif (kind := body.get("kind")) in EVENTS:
        _line(f"{clock} {body['pipeline']:8} {EVENTS[kind].words(body)}")
    elif "stream" in body and _streams.get(tail) != body["stream"]:
        _streams[tail] = body["stream"]
        why = f": {body['why']}" if body["why"] else ""
        _line(f"{clock} {tail.split('/')[0]:8} stream is {body['stream']}{why}")


def listen(args: argparse.Namespace) -> int:
    """Print what devices report; with --audit 1 when something is missing."""
    from edge_agent.consumer.audit import Audit
    from edge_agent.consumer.listen import CONNECTED, listen
    from edge_agent.link import topics
    from edge_agent.link.signing import Signer

    stop = stop_on_signals()
    stop_after(args.seconds, stop)
    mqtt = _broker(args)
    if args.sign and not args.ack:
        raise UsageError("--sign: signs acknowledgements; give --ack too")
    signer = Signer(args.sign) if args.sign else None
    audit, connected = Audit(), False
    for message in listen(mqtt, [topics.everything(mqtt.prefix, args.device)], stop, args.ack, signer):
        if isinstance(message, str):
            note(f"{mqtt.url}: {message}")
            connected = connected or message == CONNECTED
            continue
        topic, payload, _ = message
        if topics.holds_events(topic):
            audit.add(payload)
        if not (args.audit and args.quiet):
            _show(topic, payload, mqtt.prefix, args.json)
    code = _audited(audit, args.json) if args.audit else 0
    if not connected:
        raise LinkError(f"{mqtt.url}: it was never connected; is the broker there?")
    return code


def _broker(args: argparse.Namespace) -> Mqtt:
    """The broker that the options of `listen` name. UsageError, ConfigError."""
    from edge_agent import config, toml

    keys = ("username", "password_file", "ca", "cert", "key")
    given = {key: getattr(args, key) for key in keys if getattr(args, key) is not None}
    if args.config and (args.url or given):
        raise UsageError("give either -c, which says it all, or --url and what belongs to it")
    if not re.fullmatch(toml.PREFIX, args.prefix):
        raise UsageError(f'--prefix "{args.prefix}": give 1 to 3 topic levels without + # or spaces')
    if args.url is None and args.config is None:
        raise UsageError("give --url mqtt://host or a config with mqtt.url (-c agent.toml)")
    if args.device != "+" and not re.fullmatch(toml.NAME, args.device):
        raise UsageError(f'--device "{args.device}": give a device\'s id, of letters, digits or _ . -')
    if args.config:
        mqtt = config.load(args.config, pipelines=False).mqtt
        if mqtt.url is None:
            raise UsageError(f"{args.config}: has no mqtt.url; add it, or give --url mqtt://host")
    else:
        try:
            made = config.Mqtt(url=args.url, prefix=args.prefix, **given)
            mqtt = config.checked_mqtt(made, Path.cwd())
        except ConfigError as error:
            raise UsageError(_as_options(str(error))) from None
    return mqtt


def _as_options(text: str) -> str:
    """What is said of a config's keys, said of the command line."""
    return re.sub(r"mqtt\.(\w+)", lambda key: "--" + key[1].replace("_", "-"), text).replace("mqtt: cert", "--cert")


def _show(topic: str, payload: bytes, prefix: str, as_json: bool) -> None:
    """One message, as it is or as a line for people."""
    import msgspec

    from edge_agent.events import UNREADABLE

    try:
        body = msgspec.json.decode(payload) if payload.startswith(b"{") else {"status": payload.decode()}
        if as_json:
            print_json(body if payload.startswith(b"{") else {"topic": topic, "payload": body["status"]})
        else:
            _show_message(topic.removeprefix(f"{prefix}/").partition("/")[2], body)
    except (*UNREADABLE, KeyError, TypeError, AttributeError):
        if as_json:
            print_json({"topic": topic, "payload": payload.decode("utf-8", "replace")})
        else:
            note(f"{topic}: {len(payload)} bytes that are no message of ours")


def _audited(audit: Any, as_json: bool) -> int:
    """Print the account; 1 when something is missing."""
    from edge_agent.consumer.audit import as_json as plain

    rows = audit.rows()
    if as_json:
        print_json(plain(rows))
    else:
        heads = ("first", "last", "received", "twice", "declared", "missing")
        print(f"{'device':20}{'epoch':>12}" + "".join(f"{head:>10}" for head in heads))
        for row in rows:
            numbers = (row.first, row.last, row.received, row.duplicates, row.declared, row.missing)
            print(f"{row.device:20}{row.epoch:12}" + "".join(f"{number:10}" for number in numbers))
    return 1 if any(row.missing for row in rows) else 0


def doctor(args: argparse.Namespace) -> int:
    """Look at this machine; 1 when something needed is missing."""
    from edge_agent.cli.doctor import examine

    rows = examine()
    if args.json:
        print_json([{"what": what, "ok": ok, "found": found} for what, ok, found in rows])
    else:
        for what, ok, found in rows:
            print(f"{'ok ' if ok else 'NO '} {what:14} {found}")
    return 0 if all(ok for _, ok, _ in rows) else 1


def stop_on_signals(stop: threading.Event | None = None) -> threading.Event:
    """An event (`stop`, where it is given) that Ctrl-C and SIGTERM set; a second Ctrl-C ends at once."""
    stop = stop or threading.Event()

    def on_signal(number: int, _: Any) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
    return stop


def stop_after(seconds: float | None, stop: threading.Event) -> None:
    """Set `stop` after so long; never for None."""
    if seconds is not None:
        timer = threading.Timer(seconds, stop.set)
        timer.daemon = True
        timer.start()
