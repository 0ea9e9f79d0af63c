"""The command line: one function a verb; the only room that prints.

Data goes to stdout, everything said about it to stderr. Exit 0: good; 1: the answer is no; 2: wrong usage or config,
with one line on stderr that says what, where and what to do.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn, TextIO, cast

from edge_agent import __version__
from edge_agent.cli import device, models, workshop
from edge_agent.cli.say import Clean, at_work, one_line
from edge_agent.errors import EdgeAgentError
from edge_agent.redact import redact

# small matrices gain nothing from more threads, and a busy box loses much
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# every function imports what it needs: `edge-agent --help` loads none of the heavy libraries


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    interrupted = False

    def interrupt(number: int, frame: object) -> NoReturn:
        nonlocal interrupted
        interrupted = True
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        with contextlib.suppress(ValueError):  # not the main thread
            signal.signal(signal.SIGINT, interrupt)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files are any bytes
    out, err = sys.stdout, sys.stderr
    # both may be missing: closed by whoever started this
    sys.stdout, sys.stderr = (stream and cast(TextIO, Clean(stream)) for stream in (out, err))
    try:
        try:
            return _act(argv)
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # at exit nobody could say why that failed
    except BrokenPipeError:  # `edge-agent … | head`: the reader has what it wanted
        _hush()
        return 0
    except OSError as error:
        _hush()
        return _of_the_system(error)
    except (KeyboardInterrupt, Exception) as error:
        # a library that is interrupted while it is loaded may turn that into an error of its own
        if not interrupted and not isinstance(error, KeyboardInterrupt):
            raise
        if sys.stderr.isatty():
            print(file=sys.stderr)  # a bar may stand there
        return 130
    finally:
        sys.stdout, sys.stderr = out, err


def _of_the_system(error: OSError) -> int:
    """What a file or stdout did, in one line."""
    logging.getLogger("edge_agent").debug("", exc_info=True)
    what = f"{error.filename}: " if error.filename else "cannot be written out: "
    mend = "check its owner and mode" if isinstance(error, PermissionError) else "check the path and the disk"
    print(redact(f"edge-agent: {what}{error.strerror or one_line(error)}; {mend}"), file=sys.stderr)
    return 1


def _act(argv: Sequence[str]) -> int:
    parser = _parser(argv)
    args, rest = parser.parse_known_args(argv)
    if rest and args.verb == "understand" and not any(arg.startswith("-") and arg != "-" for arg in rest):
        args.text += rest  # argparse gives texts that stand behind an option to nobody
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    level = logging.DEBUG if args.verbose else logging.INFO if args.verb in ("run", "demo") else logging.WARNING
    if "home" in args:
        os.environ["EDGE_AGENT_HOME"] = args.home  # for the processes that are started, too
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Log("%(asctime)s %(levelname)-7s %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])
    logging.getLogger("edge_agent").debug("%s, Python %s: %s", __version__, sys.version.split()[0], " ".join(argv))
    verb = f"{args.verb} {args.models_verb}" if args.verb == "models" else args.verb
    try:
        with at_work(verb) if verb in LONG else contextlib.nullcontext():
            return int(args.act(args))
    except EdgeAgentError as error:
        print(f"edge-agent {args.verb}: {one_line(error)}", file=sys.stderr)
        return error.exit_code


def _hush() -> None:
    """Nothing more goes out: what is still buffered would fail again at exit."""
    with contextlib.suppress(AttributeError, OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Log(logging.Formatter):
    """Lines of the log, tracebacks too, without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {redact(message)}; see {self.prog} --help\n")


def _parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    """The verb that `argv` begins with, and its options: a start pays for no other. Without one, all to be listed."""
    parser = _Parser(prog="edge-agent", description="YOLO and BERT on small devices, reported over MQTT.")
    parser.add_argument("--version", action="version", version=__version__)
    parser.set_defaults(verbose=False)
    _common_options(parser)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    place = 0
    while place < len(argv) and argv[place].startswith("-"):
        place += 2 if argv[place] == "--home" else 1
    verb = argv[place] if place < len(argv) else ""
    asked = verb in VERBS and not {"-h", "--help"} & set(argv[:place])
    for name in [verb] if asked else VERBS:
        act, options, help = VERBS[name]
        made = verbs.add_parser(name, help=help, description=help)
        made.set_defaults(act=act)
        if asked:
            _common_options(made)
            options(made)
    return parser


def _common_options(of: argparse.ArgumentParser) -> None:
    """On each side of the verb; left out, they say nothing against the other side."""
    of.add_argument(
        "-v", "--verbose", action="store_true", default=argparse.SUPPRESS, help="say more about what happens"
    )
    help = "where models and what is known of them are kept (default: $EDGE_AGENT_HOME, ~/.local/share/edge-agent)"
    of.add_argument("--home", default=argparse.SUPPRESS, metavar="FOLDER", type=_folder, help=help)


def _run_options(run: argparse.ArgumentParser) -> None:
    run.add_argument("-c", "--config", required=True, help="TOML file")
    run.add_argument("--pull", action="store_true", help="fetch models that are not here")


def _check_options(check: argparse.ArgumentParser) -> None:
    check.add_argument("-c", "--config", required=True, help="TOML file")
    check.add_argument(
        "--connect", action="store_true", help="try it too: log in, ask for each right, take a picture, write a file"
    )


def _demo_options(demo: argparse.ArgumentParser) -> None:
    demo.add_argument("--seconds", type=_seconds, help="end by itself (default: run until Ctrl-C)")


def _detect(args: argparse.Namespace) -> int:
    from edge_agent.cli.detect import detect

    return detect(args)


def _detect_options(detect: argparse.ArgumentParser) -> None:
    detect.add_argument("model", help="name, folder, .onnx or .tflite; `detector`: the best that is here")
    detect.add_argument(
        "image",
        nargs="+",
        help="picture, film, folder, 'glob', address (http://, rtsp://, camera:0); -: such, a line each, on stdin",
    )
    detect.add_argument("--save", metavar="OUT", help="draw the boxes: a .jpg for one picture, a folder for several")
    detect.add_argument("--frames", type=_count, metavar="N", help="so many of each film and camera (default: all)")
    detect.add_argument("--seconds", type=_seconds, metavar="S", help="so long (default: to the end, or Ctrl-C)")
    detect.add_argument("--score", help="0..1, lowest score that counts (default: the manifest's)")
    detect.add_argument("--iou", help="0..1, overlap above which NMS drops a box (default: the manifest's)")
    detect.add_argument("--classes", help="comma-separated names; default all")
    _model_options(detect)


def _understand_options(understand: argparse.ArgumentParser) -> None:
    understand.add_argument("model", help="name or folder; `encoder`: the best that is here")
    understand.add_argument("text", nargs="*", help="texts; - or none: the lines of stdin")
    understand.add_argument("--labels", metavar="FILE", help="TOML: [labels], name = [example sentences]")
    understand.add_argument("--embed", action="store_true", help="print each text's vector instead of a label")
    _model_options(understand)


def _bench_options(timed: argparse.ArgumentParser) -> None:
    timed.add_argument("model", help="name, folder, .onnx or .tflite")
    timed.add_argument("--seconds", type=_seconds, default=10.0, help="to race for (default: 10)")
    timed.add_argument("--threads", type=_count, default=0, help="for one run; 0: all cores (default)")
    timed.add_argument("--json", action="store_true", help="print one JSON object, and nothing else")


def _listen_options(heard: argparse.ArgumentParser) -> None:
    heard.add_argument("-c", "--config", help="take the broker from this config")
    heard.add_argument("--url", help="mqtt[s]://host[:port] or ws[s]://host[:port]/path")
    heard.add_argument("--username", help="who we are to the broker")
    heard.add_argument("--password-file", metavar="FILE", help="what holds the password")
    heard.add_argument("--ca", metavar="PEM", help="the authority that signed the broker's certificate")
    heard.add_argument("--cert", metavar="PEM", help="our certificate, where the broker wants one")
    heard.add_argument("--key", metavar="PEM", help="and its private key")
    heard.add_argument("--prefix", default="edge/v1")
    heard.add_argument("--device", default="+", help="one device's id (default: all)")
    heard.add_argument("--seconds", type=_seconds, help="end by itself")
    heard.add_argument("--json", action="store_true", help="print the messages as they are, one a line")
    heard.add_argument("--ack", action="store_true", help="acknowledge each event to its device")
    heard.add_argument("--sign", metavar="PEM", help="with --ack: sign with this Ed25519 private key")
    heard.add_argument("--audit", action="store_true", help="count, and say at the end whether anything is missing")
    heard.add_argument("--quiet", action="store_true", help="with --audit: print only the account")


def _doctor_options(doctor: argparse.ArgumentParser) -> None:
    doctor.add_argument("--json", action="store_true")


def _workshop_options(name: str) -> Callable[[argparse.ArgumentParser], None]:
    """The options of a recipe of the workshop, which only its own verb loads."""

    def add(of: argparse.ArgumentParser) -> None:
        module = "train" if name == "train" else f"{name}.verb"
        importlib.import_module(f"edge_agent.workshop.{module}").add_arguments(of)
        if name != "train":
            _model_options(of)

    return add


def _model_options(of: argparse.ArgumentParser) -> None:
    of.add_argument("--json", action="store_true", help="print one JSON object a line, and nothing else")
    of.add_argument("--pull", action="store_true", help="fetch the model's files when they are not here")
    of.add_argument("--threads", type=_count, default=0, help="for one run; 0: all cores (default)")


def _input_options(to: argparse.ArgumentParser) -> None:
    """What a user may say of how pictures go into a bare file."""
    scale = "how a pixel x goes in: 0..1, 0..255, -1..1, imagenet, caffe, or a number: (x * scale - mean) / std"
    to.add_argument("--scale", metavar="RANGE", help=scale)
    in_pixels = "one number or three as 1,2,3, for pixels in 0..1 where no number is above 1 and no --scale is given"
    to.add_argument("--mean", metavar="NUMBERS", help=in_pixels)
    to.add_argument("--std", metavar="NUMBERS", help="as --mean")
    to.add_argument("--channels", choices=("RGB", "BGR"), help="the order in which the colours go in")


def _models_options(kept: argparse.ArgumentParser) -> None:
    each = kept.add_subparsers(dest="models_verb", required=True, metavar="VERB")
    listed = each.add_parser("list", help="what is here and what can be had")
    listed.add_argument("--json", action="store_true")
    each.add_parser("pull", help="fetch a model's files and check their hashes").add_argument("name", nargs="+")
    inspect = each.add_parser("inspect", help="read a model, bare files too, and say what it is and why")
    inspect.add_argument("model")
    inspect.add_argument("--json", action="store_true")
    proof = "a picture of what the model detects, to try on it what a bare file leaves open (may be repeated)"
    inspect.add_argument("--proof", action="append", default=[], metavar="PICTURE", help=proof)
    _input_options(inspect)
    add = each.add_parser("add", help="take a file or a folder into the registry")
    add.add_argument("file")
    add.add_argument("--name")
    add.add_argument("--proof", action="append", default=[], metavar="PICTURE", help=proof)
    _input_options(add)
    verify = each.add_parser("verify", help="check every file against its hash")
    verify.add_argument("name", nargs="?")
    verify.add_argument("--prove", action="store_true", help="let one model prove again that its answers make sense")
    each.add_parser("remove", help="delete a model's fetched or added files").add_argument("name")
    each.add_parser("rollback", help="go back to the version that served before").add_argument("name")
    collected = each.add_parser(
        "gc", help="delete files that no current or previous version uses, and the rests of killed pulls"
    )
    for verb in each.choices.values():
        _common_options(verb)
    collected.add_argument("--budget", type=_bytes, metavar="BYTES", help="keep up to so much (e.g. 500M)")


def _folder(text: str) -> str:
    if not text.strip() or "\0" in text or (Path(text).exists() and not Path(text).is_dir()):
        raise argparse.ArgumentTypeError(f'"{text}" is no folder')
    return text


def _count(text: str) -> int:
    if not re.fullmatch("[0-9]{1,4}", text) or int(text) > 1024:
        raise argparse.ArgumentTypeError(f'"{text}" is no number from 0 to 1024')
    return int(text)


def _bytes(text: str) -> int:
    units = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].isalpha() else (text, "")
    if not re.fullmatch("[0-9]{1,18}", number) or unit not in units:
        raise argparse.ArgumentTypeError(f'"{text}" is no number of bytes, such as 5000000, 500M or 2G')
    return int(number) * units[unit]


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f'"{text}" is no number of seconds above 0')
    return value


LONG = {"train", "evaluate", "quantize", "graph", "prune", "tune", "bench", "check"}
LONG |= {f"models {verb}" for verb in ("pull", "inspect", "add", "verify")}
"""verbs that may work for long before they print anything"""
VERBS: dict[str, tuple[Callable[[argparse.Namespace], int], Callable[[argparse.ArgumentParser], None], str]] = {
    "run": (device.run, _run_options, "run the agent of a config"),
    "check": (device.check, _check_options, "check a config: keys, sources, models, secrets"),
    "demo": (device.demo, _demo_options, "run the main job on carried pictures and text, through a broker and back"),
    "detect": (_detect, _detect_options, "find objects in pictures, folders, films and cameras"),
    "understand": (models.understand, _understand_options, "label lines of text"),
    "train": (
        workshop.train,
        _workshop_options("train"),
        "train a model on your own pictures or text (extra [train])",
    ),
    "evaluate": (
        models.evaluate,
        _workshop_options("evaluate"),
        "measure a model on labels, and against the model it was made from",
    ),
    "quantize": (
        workshop.quantize,
        _workshop_options("quantize"),
        "make a model smaller and faster, and know what it cost",
    ),
    "graph": (
        workshop.graph,
        _workshop_options("graph"),
        "simplify a network, take its preparation in, write .ort and TFLite files",
    ),
    "prune": (
        workshop.prune,
        _workshop_options("prune"),
        "take out weights or channels of a model, and know what it cost",
    ),
    "tune": (
        workshop.tune,
        _workshop_options("tune"),
        "search input size, variant, NMS and score for the best accuracy in a given time",
    ),
    "bench": (models.bench, _bench_options, "time a model's variants on this device, and remember the fastest"),
    "models": (models.models_verb, _models_options, "list, fetch, read, add, check and remove models"),
    "listen": (device.listen, _listen_options, "print what devices report"),
    "doctor": (device.doctor, _doctor_options, "say what of this machine fits and what is missing"),
}
"""verb -> what it does, its options, its line in --help"""
