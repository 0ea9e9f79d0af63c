"""argv -> one function per verb; the only place that prints.

Data goes to stdout, everything said about it to stderr. Exit 0: good; 1: the answer is no; 2: wrong usage or config,
with one line on stderr that says what, where and what to do.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from edge_agent import __version__
from edge_agent.errors import EdgeAgentError, InputError, UsageError
from edge_agent.workshop.evaluate import add_arguments as add_evaluate_arguments
from edge_agent.workshop.train import add_arguments as add_train_arguments

# small matrices gain nothing from more threads, and a busy box loses much
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

if TYPE_CHECKING:
    from edge_agent.serving import Models
    from edge_agent.types import Finding, Frame

# every function imports what it needs: `edge-agent --help` loads none of the heavy libraries


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    args = _parser(training="train" in argv).parse_args(argv)
    level = logging.DEBUG if args.verbose else logging.INFO if args.verb in ("run", "demo") else logging.WARNING
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)-7s %(message)s", stream=sys.stderr)
    try:
        return int(args.act(args))
    except EdgeAgentError as error:
        print(f"edge-agent {args.verb}: {_one_line(error)}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # `edge-agent … | head`: the reader has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        if sys.stderr.isatty():
            print(file=sys.stderr)  # a bar may stand there
        return 130


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


# ── run, check, demo ─────────────────────────────────────────────────────────────────────────────────────


def _run(args: argparse.Namespace) -> int:
    from edge_agent import config
    from edge_agent.agent import Agent

    stop = _stop_on_signals()
    agent = Agent(config.load(args.config), pull=args.pull, say=_progress("fetching"))
    for line in agent.lines:
        for why in line.models:
            _note(f"{line.config.name}: {why}")
    _notify("READY=1")
    try:
        agent.run(stop)
    finally:
        _notify("STOPPING=1")
        counts = agent.outbox.counts
        _note(f"{counts.put} events kept, {counts.done} acknowledged, {counts.dropped} lost")
    return 0


def _check(args: argparse.Namespace) -> int:
    from edge_agent import config
    from edge_agent.agent import make_line, store_path
    from edge_agent.config import parse_broker, secret
    from edge_agent.serving import Models

    loaded = config.load(args.config)
    models = Models()
    for pipe in loaded.pipeline:
        # a topic can be checked without a connection
        line = make_line(pipe, models, (lambda topics, receive: lambda: None) if loaded.mqtt.url else None)
        print(f"{pipe.name}: {pipe.source} -> {', '.join(pipe.tasks) or 'as it is'}")
        for why in line.models:
            print(f"  {why}")
    if loaded.mqtt.url is None:
        print("mqtt: no url, events stay in the store")
    else:
        host, port, secure = parse_broker(loaded.mqtt.url)
        if loaded.mqtt.password_file:
            secret(loaded.mqtt.password_file)
        print(f"mqtt: {host}:{port}{' with TLS' if secure else ''} as {loaded.mqtt.prefix}/{loaded.device.id}")
    print(f"store: {store_path(loaded)}, at most {loaded.store.max_bytes // 10**6} MB")
    return 0


def _demo(args: argparse.Namespace) -> int:
    from edge_agent import demo

    stop = _stop_on_signals()
    total = demo.run(args.seconds, _show_message, _note, stop)
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


def _show_message(tail: str, body: dict[str, Any]) -> None:
    """One message as a line for people."""
    clock = time.strftime("%H:%M:%S")
    if "status" in body and len(body) == 1:
        print(f"{clock} {tail:8} {body['status']}", flush=True)
    elif body.get("kind") == "detections":
        seen = ", ".join(f"{d['label']} {d['score']:.2f}" for d in body["detections"]) or "nothing any more"
        name = body["model"]["name"]
        print(f"{clock} {body['pipeline']:8} {seen}   ({name}, {body['age_ms']:.0f} ms old)", flush=True)
    elif body.get("kind") == "scores":
        print(f'{clock} {body["pipeline"]:8} {body["label"]} {body["score"]:.2f}   "{body["text"][:60]}"', flush=True)
    elif body.get("kind") == "text":
        print(f'{clock} {body["pipeline"]:8} "{body["text"][:80]}"', flush=True)
    elif body.get("kind") == "gap":
        print(f"{clock} {body['pipeline']:8} {body['count']} events lost: {body['why']}", flush=True)
    elif "stream" in body and _streams.get(tail) != body["stream"]:
        _streams[tail] = body["stream"]
        why = f": {body['why']}" if body["why"] else ""
        print(f"{clock} {tail.split('/')[0]:8} stream is {body['stream']}{why}", flush=True)


# ── detect, understand ───────────────────────────────────────────────────────────────────────────────────


def _detect(args: argparse.Namespace) -> int:
    import msgspec

    from edge_agent.pipeline import detections
    from edge_agent.registry import home
    from edge_agent.tasks import make_task
    from edge_agent.types import Detections, Finding, Uri

    options = {key: str(getattr(args, key)) for key in ("score", "iou", "classes") if getattr(args, key) is not None}
    task = make_task(Uri("detect", args.model, options), _models(args).serve, home())
    save = _where_to_save(args.save, len(args.image)) if args.save else None
    failed = 0
    for path in args.image:
        try:
            frame = _picture(Path(path))
            (found,) = task(frame)
        except InputError as error:
            failed += 1
            print(f"edge-agent detect: {path}: {_one_line(error)}", file=sys.stderr)
            continue
        assert isinstance(found, Finding) and isinstance(found.what, Detections)
        rows = detections(found.what)
        if args.json:
            spent = {stage: round(ms, 3) for stage, ms in found.spent_ms.items()}
            size = {"image": path, "width": frame.width, "height": frame.height}
            _print_json({**size, "detections": msgspec.to_builtins(rows), "spent_ms": spent})
        else:
            seen = "; ".join(f"{d.label} {d.score:.2f} at {' '.join(f'{x:.0f}' for x in d.box)}" for d in rows)
            print(f"{path} {frame.width}x{frame.height}: {seen or 'nothing'}")
        if save:
            _save(save(path), frame, found)
    return 1 if failed else 0


def _picture(path: Path) -> Frame:
    """A picture file as a Frame. InputError when it cannot be read."""
    from edge_agent.sources.files import read_picture

    return read_picture(path)


def _where_to_save(target: str, count: int) -> Callable[[str], Path]:
    """Where each picture goes: the file itself for one picture, a folder for several (or when it is one)."""
    path = Path(target)
    if count == 1 and path.suffix.lower() in (".jpg", ".jpeg"):
        return lambda _: path
    if path.suffix.lower() in (".jpg", ".jpeg"):
        raise UsageError(f"--save {target}: {count} pictures do not fit into one file; give a folder")
    return lambda image: path / f"{Path(image).stem}.jpg"


def _save(path: Path, frame: Frame, found: Finding) -> None:
    from edge_agent.tasks.boxes import draw, save_jpeg
    from edge_agent.types import Detections

    assert isinstance(found.what, Detections)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--save {path}: the folder cannot be made ({error.strerror})") from None
    save_jpeg(draw(frame.image, found.what), path)


def _understand(args: argparse.Namespace) -> int:
    from edge_agent.registry import carried, home
    from edge_agent.tasks import make_task
    from edge_agent.types import Embedding, Finding, Scores, Text, Uri

    if args.embed:
        task = make_task(Uri("embed", args.model), _models(args).serve, home())
    else:
        labels = args.labels or str(carried("deploy", "demo", "intents.toml"))
        task = make_task(Uri("classify", args.model, {"labels": labels}), _models(args).serve, home())
        if not args.labels:
            _note(f"labels: the demo's ({labels}); give your own with --labels FILE.toml")
    failed = 0
    for text in _texts(args.text):
        try:
            if not text.strip():
                raise InputError("the text is empty; give at least one word")
            (found,) = task(Text(text, time.time(), time.monotonic()))
        except InputError as error:
            failed += 1
            print(f"edge-agent understand: {_one_line(error)}", file=sys.stderr)
            continue
        assert isinstance(found, Finding)
        if isinstance(found.what, Scores):
            scores = {name: round(score, 4) for name, score in found.what.scores.items()}
            row = {"text": text, "label": found.what.label, "score": round(found.what.score, 4), "scores": scores}
            human = f"{found.what.label} {found.what.score:.2f}  {text}"
        else:
            assert isinstance(found.what, Embedding)
            row = {"text": text, "embedding": [round(float(x), 6) for x in found.what.vector]}
            human = f"{' '.join(f'{x:.4f}' for x in found.what.vector[:8])} …  {text}"
        if args.json:
            _print_json(row)
        else:
            print(human, flush=True)
    return 1 if failed else 0


def _texts(given: list[str]) -> Iterator[str]:
    """The texts of the command line, or the lines of stdin for ``-`` or none."""
    if given and given != ["-"]:
        yield from given
        return
    from edge_agent.sources import open_source
    from edge_agent.types import Text, Uri

    for item in open_source(Uri("lines", "-")).run(threading.Event()):
        if isinstance(item, Text):
            yield item.text


# ── models ───────────────────────────────────────────────────────────────────────────────────────────────


def _models_verb(args: argparse.Namespace) -> int:
    from edge_agent import registry

    verbs: dict[str, Callable[[argparse.Namespace, Any], int]] = {
        "list": _models_list,
        "pull": _models_pull,
        "inspect": _models_inspect,
        "add": _models_add,
        "verify": _models_verify,
        "remove": _models_remove,
    }
    return verbs[args.models_verb](args, registry)


def _models_list(args: argparse.Namespace, registry: Any) -> int:
    rows = registry.listing()
    if args.json:
        _print_json(rows)
        return 0
    print(f"{'name':18}{'task':8}{'family':11}{'state':9}{'MB':>6}  {'licence':12}trained by")
    for row in rows:
        print(
            f"{row['name']:18}{row['task']:8}{row['family']:11}{row['state']:9}{row['bytes'] / 1e6:6.1f}  "
            f"{row['licence']:12}{row['trained_by']}"
        )
    return 0


def _models_pull(args: argparse.Namespace, registry: Any) -> int:
    for name in args.name:
        located = registry.pull(name, _progress(name))
        print(f"{located.manifest.name}: all files here and verified")
    return 0


def _models_inspect(args: argparse.Namespace, registry: Any) -> int:
    import msgspec

    from edge_agent.backends import open_net

    located = registry.locate(args.model, open_net=open_net)
    row = located.manifest.networks()[0]
    net = open_net(registry.file_path(located, row), row.format)
    shown = {
        "name": located.manifest.name,
        "task": located.manifest.task,
        "family": located.manifest.family,
        "engine": net.engine,
        "inputs": [_tensor(spec) for spec in net.inputs],
        "outputs": [_tensor(spec) for spec in net.outputs],
        "labels": located.manifest.labels,
        "input": msgspec.to_builtins(located.manifest.input),
        "licence": located.manifest.licence,
        "reasons": [*located.why.split("; "), *net.reasons],
    }
    if args.json:
        _print_json(shown)
        return 0
    for key in ("name", "task", "family", "engine", "licence"):
        print(f"{key:9}{shown[key]}")
    for key in ("inputs", "outputs"):
        for spec in shown[key]:
            print(f"{key[:-1]:9}{spec['name']} {spec['shape']} {spec['dtype']}")
    labels = located.manifest.labels
    print(f"{'labels':9}{len(labels)}: {', '.join(labels[:6])}{' …' if len(labels) > 6 else ''}")
    for reason in shown["reasons"]:
        print(f"{'because':9}{reason}")
    return 0


def _tensor(spec: Any) -> dict[str, Any]:
    shown = {"name": spec.name, "shape": list(spec.shape), "dtype": spec.dtype}
    return {**shown, "scale": spec.scale, "zero_point": spec.zero_point} if spec.scale else shown


def _models_add(args: argparse.Namespace, registry: Any) -> int:
    from edge_agent.backends import open_net
    from edge_agent.registry.add import add

    located = add(Path(args.file), args.name, open_net)
    print(f"{located.manifest.name}: added ({located.manifest.task}, {located.manifest.family})")
    for reason in located.why.split("; "):
        print(f"  {reason}")
    return 0


def _models_verify(args: argparse.Namespace, registry: Any) -> int:
    problems = registry.verify(args.name)
    for problem in problems:
        print(problem)
    if not problems:
        print("every file that is here has the hash that its manifest promises")
    return 1 if problems else 0


def _models_remove(args: argparse.Namespace, registry: Any) -> int:
    from edge_agent.registry.add import remove

    print(f"{args.name}: {remove(args.name) / 1e6:.1f} MB freed")
    return 0


# ── train ────────────────────────────────────────────────────────────────────────────────────────────────


def _train(args: argparse.Namespace) -> int:
    from edge_agent.workshop import train

    return train.run(args, _note)


# ── evaluate ─────────────────────────────────────────────────────────────────────────────────────────────


def _evaluate(args: argparse.Namespace) -> int:
    from edge_agent.workshop import evaluate

    result = evaluate.run(args, _models(args).serve, _steps())
    for note in result["notes"]:
        _note(note)
    if args.json:
        _print_json(result)
    else:
        print("\n".join(evaluate.lines(result)))
    return 0


# ── listen, doctor ───────────────────────────────────────────────────────────────────────────────────────


def _listen(args: argparse.Namespace) -> int:
    from edge_agent import config
    from edge_agent.audit import Audit
    from edge_agent.listen import listen

    stop = _stop_on_signals()
    if args.seconds is not None:
        timer = threading.Timer(args.seconds, stop.set)
        timer.daemon = True
        timer.start()
    mqtt = config.load(args.config).mqtt if args.config else config.Mqtt(url=args.url, prefix=args.prefix)
    if mqtt.url is None:
        raise UsageError("give --url mqtt://host or a config with mqtt.url (-c agent.toml)")
    audit = Audit()
    for message in listen(mqtt, [f"{mqtt.prefix}/{args.device}/#"], stop, ack=args.ack):
        if isinstance(message, str):
            _note(f"{mqtt.url}: {message}")
            continue
        topic, payload, _ = message
        if topic.endswith("/events"):
            audit.add(payload)
        if not (args.audit and args.quiet):
            _show(topic, payload, mqtt.prefix, args.json)
    return _audited(audit, args.json) if args.audit else 0


def _show(topic: str, payload: bytes, prefix: str, as_json: bool) -> None:
    """One message, as it is or as a line for people."""
    import msgspec

    if as_json:
        text = payload.decode("utf-8", "replace")
        print(text if text.startswith("{") else msgspec.json.encode({"topic": topic, "payload": text}).decode())
        sys.stdout.flush()
        return
    tail = topic.removeprefix(f"{prefix}/").partition("/")[2]
    try:
        body = msgspec.json.decode(payload) if payload.startswith(b"{") else {"status": payload.decode()}
        _show_message(tail, body)
    except (msgspec.MsgspecError, UnicodeDecodeError, KeyError, TypeError):
        _note(f"{topic}: {len(payload)} bytes that are no message of ours")


def _audited(audit: Any, as_json: bool) -> int:
    """Print the account; 1 when something is missing."""
    from edge_agent.audit import as_json as plain

    rows = audit.rows()
    if as_json:
        _print_json(plain(rows))
    else:
        heads = ("first", "last", "received", "twice", "declared", "missing")
        print(f"{'device':20}{'epoch':>12}" + "".join(f"{head:>10}" for head in heads))
        for row in rows:
            numbers = (row.first, row.last, row.received, row.duplicates, row.declared, row.missing)
            print(f"{row.device:20}{row.epoch:12}" + "".join(f"{number:10}" for number in numbers))
    return 1 if any(row.missing for row in rows) else 0


def _doctor(args: argparse.Namespace) -> int:
    from edge_agent.doctor import examine

    rows = examine()
    if args.json:
        _print_json([{"what": what, "ok": ok, "found": found} for what, ok, found in rows])
    else:
        for what, ok, found in rows:
            print(f"{'ok ' if ok else 'NO '} {what:14} {found}")
    return 0 if all(ok for _, ok, _ in rows) else 1


# ── what the verbs share ─────────────────────────────────────────────────────────────────────────────────


def _models(args: argparse.Namespace) -> Models:
    from edge_agent.serving import Models

    return Models(threads=args.threads, pull=args.pull, say=_progress("fetching"))


def _note(line: str) -> None:
    """Something about the work, for people."""
    print(line, file=sys.stderr, flush=True)


def _print_json(value: object) -> None:
    import msgspec

    print(msgspec.json.encode(value).decode(), flush=True)


def _progress(what: str) -> Callable[[int, int], None]:
    """Bytes done and in all, as a bar on a terminal and as nothing elsewhere."""
    shown = -1

    def say(done: int, total: int) -> None:
        nonlocal shown
        part = done * 40 // total if total else 0
        if part == shown or not sys.stderr.isatty():
            return
        shown = part
        end = "\n" if done >= total else ""
        bar = "#" * part + "." * (40 - part)
        print(f"\r{what} [{bar}] {done / 1e6:.1f}/{total / 1e6:.1f} MB", end=end, file=sys.stderr, flush=True)

    return say


def _steps() -> Callable[[str, int, int], None]:
    """What is done, steps done and in all: a bar with the time that is left on a terminal, nothing elsewhere."""
    doing, began, shown = "", 0.0, 0.0

    def say(what: str, done: int, total: int) -> None:
        nonlocal doing, began, shown
        now = time.monotonic()
        if what != doing:
            doing, began, shown = what, now, 0.0
        if not sys.stderr.isatty() or (done < total and now - shown < 0.2):
            return
        shown = now
        part = done * 30 // total if total else 30
        left = f"{(now - began) * (total - done) / done:.0f} s left" if done else ""
        line = f"{what} [{'#' * part}{'.' * (30 - part)}] {done}/{total} {left}"
        # wiped at the end, so that results stand alone
        print(f"\r\x1b[K{line if done < total else ''}", end="", file=sys.stderr, flush=True)

    return say


def _stop_on_signals() -> threading.Event:
    """An event that Ctrl-C and SIGTERM set; a second Ctrl-C ends at once."""
    stop = threading.Event()

    def on_signal(number: int, _: Any) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
    return stop


def _notify(message: str) -> None:
    """Tell systemd (sd_notify(3)); nothing happens elsewhere."""
    import socket

    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.connect(address)
        channel.send(message.encode())


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def _parser(training: bool) -> argparse.ArgumentParser:
    """All verbs; the recipes' own options are read only when training is asked for, since they load numpy."""
    parser = _Parser(prog="edge-agent", description="YOLO and BERT on small devices, reported over MQTT.")
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("-v", "--verbose", action="store_true", help="say more about what happens")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, act: Callable[[argparse.Namespace], int], help: str) -> argparse.ArgumentParser:
        made = verbs.add_parser(name, help=help, description=help)
        made.set_defaults(act=act)
        return made

    def model_options(of: argparse.ArgumentParser) -> None:
        of.add_argument("--json", action="store_true", help="print one JSON object a line, and nothing else")
        of.add_argument("--pull", action="store_true", help="fetch the model's files when they are not here")
        of.add_argument("--threads", type=_count, default=0, help="for one run; 0: all cores (default)")

    run = verb("run", _run, "run the agent of a config")
    run.add_argument("-c", "--config", required=True, help="TOML file")
    run.add_argument("--pull", action="store_true", help="fetch models that are not here")

    check = verb("check", _check, "check a config: keys, sources, models, secrets")
    check.add_argument("-c", "--config", required=True, help="TOML file")

    demo = verb("demo", _demo, "run the main job on carried pictures and text, through a broker and back")
    demo.add_argument("--seconds", type=_seconds, help="end by itself (default: run until Ctrl-C)")

    detect = verb("detect", _detect, "find objects in pictures")
    detect.add_argument("model", help="name, folder, .onnx or .tflite; `detector`: the best that is here")
    detect.add_argument("image", nargs="+", help="picture files")
    detect.add_argument("--save", metavar="OUT", help="draw the boxes: a .jpg for one picture, a folder for several")
    detect.add_argument("--score", help="0..1, lowest score that counts (default: the manifest's)")
    detect.add_argument("--iou", help="0..1, overlap above which NMS drops a box (default: the manifest's)")
    detect.add_argument("--classes", help="comma-separated names; default all")
    model_options(detect)

    understand = verb("understand", _understand, "label lines of text")
    understand.add_argument("model", help="name or folder; `encoder`: the best that is here")
    understand.add_argument("text", nargs="*", help="texts; - or none: the lines of stdin")
    understand.add_argument("--labels", metavar="FILE", help="TOML: [labels], name = [example sentences]")
    understand.add_argument("--embed", action="store_true", help="print each text's vector instead of a label")
    model_options(understand)

    train = verb("train", _train, "train a model on your own pictures or text (extra [train])")
    if training:
        add_train_arguments(train)

    evaluated = verb("evaluate", _evaluate, "measure a model on labels, and against the model it was made from")
    add_evaluate_arguments(evaluated)
    model_options(evaluated)

    models = verb("models", _models_verb, "list, fetch, read, add, check and remove models")
    each = models.add_subparsers(dest="models_verb", required=True, metavar="VERB")
    listed = each.add_parser("list", help="what is here and what can be had")
    listed.add_argument("--json", action="store_true")
    each.add_parser("pull", help="fetch a model's files and check their hashes").add_argument("name", nargs="+")
    inspect = each.add_parser("inspect", help="read a model, bare files too, and say what it is and why")
    inspect.add_argument("model")
    inspect.add_argument("--json", action="store_true")
    add = each.add_parser("add", help="take a file or a folder into the registry")
    add.add_argument("file")
    add.add_argument("--name")
    each.add_parser("verify", help="check every file against its hash").add_argument("name", nargs="?")
    each.add_parser("remove", help="delete a model's fetched or added files").add_argument("name")

    heard = verb("listen", _listen, "print what devices report")
    heard.add_argument("-c", "--config", help="take the broker from this config")
    heard.add_argument("--url", help="mqtt://host[:port]")
    heard.add_argument("--prefix", default="edge/v1")
    heard.add_argument("--device", default="+", help="one device's id (default: all)")
    heard.add_argument("--seconds", type=_seconds, help="end by itself")
    heard.add_argument("--json", action="store_true", help="print the messages as they are, one a line")
    heard.add_argument("--ack", action="store_true", help="acknowledge each event to its device")
    heard.add_argument("--audit", action="store_true", help="count, and say at the end whether anything is missing")
    heard.add_argument("--quiet", action="store_true", help="with --audit: print only the account")

    verb("doctor", _doctor, "say what of this machine fits and what is missing").add_argument(
        "--json", action="store_true"
    )

    return parser


def _count(text: str) -> int:
    if not text.isdigit() or int(text) > 1024:
        raise argparse.ArgumentTypeError(f'"{text}" is no number from 0 to 1024')
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f'"{text}" is no number of seconds above 0')
    return value
