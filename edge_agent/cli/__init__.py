"""The command line: one function a verb; the only room that prints.

Data goes to stdout, everything said about it to stderr. Exit 0: good; 1: the answer is no; 2: wrong usage or config,
with one line on stderr that says what, where and what to do.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import NoReturn, TextIO, cast

from edge_agent import __version__
from edge_agent.cli import log
from edge_agent.cli.arguments import common_options
from edge_agent.cli.say import Clean, at_work, one_line
from edge_agent.cli.verbs import LONG, VERBS
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
    with _clean():
        try:
            return _flushed(argv)
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


@contextlib.contextmanager
def _clean() -> Iterator[None]:
    """stdout and stderr without control characters (see `Clean`)."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files are any bytes
    out, err = sys.stdout, sys.stderr
    # both may be missing: closed by the program that started this
    sys.stdout, sys.stderr = (stream and cast(TextIO, Clean(stream)) for stream in (out, err))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = out, err


def _flushed(argv: Sequence[str]) -> int:
    """As `_act`, with all written out: at exit nobody could say why that failed."""
    try:
        return _act(argv)
    finally:
        if sys.stdout is not None:
            sys.stdout.flush()


def _of_the_system(error: OSError) -> int:
    """What a file or stdout did, in one line."""
    logging.getLogger("edge_agent").debug("", exc_info=True)
    what = f"{error.filename}: " if error.filename else "cannot be written out: "
    mend = "check its owner and mode" if isinstance(error, PermissionError) else "check the path and the disk"
    print(redact(f"edge-agent: {what}{error.strerror or one_line(error)}; {mend}"), file=sys.stderr)
    return 1


def _act(argv: Sequence[str]) -> int:
    args = _parsed(argv)
    if "home" in args:
        os.environ["EDGE_AGENT_HOME"] = args.home  # for the processes that are started, too
    log.to_stderr(logging.DEBUG if args.verbose else logging.INFO if args.verb in LOGGING else logging.WARNING)
    logging.getLogger("edge_agent").debug("%s, Python %s: %s", __version__, sys.version.split()[0], " ".join(argv))
    verb = f"{args.verb} {args.models_verb}" if args.verb == "models" else args.verb
    try:
        with at_work(verb) if verb in LONG else contextlib.nullcontext():
            return int(args.act(args))
    except EdgeAgentError as error:
        print(f"edge-agent {args.verb}: {one_line(error)}", file=sys.stderr)
        return error.exit_code


def _parsed(argv: Sequence[str]) -> argparse.Namespace:
    parser = _parser(argv)
    args, rest = parser.parse_known_args(argv)
    if rest and args.verb == "understand" and not any(arg.startswith("-") and arg != "-" for arg in rest):
        args.text += rest  # argparse gives texts that stand behind an option to nobody
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return args


LOGGING = ("run", "demo")
"""verbs that say in the log what they do"""


def _hush() -> None:
    """Nothing more goes out: what is still buffered would fail again at exit."""
    with contextlib.suppress(AttributeError, OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {redact(message)}; see {self.prog} --help\n")


def _parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    """The verb that `argv` begins with, and its options: a start pays for no other. Without one, all to be listed."""
    parser = _Parser(prog="edge-agent", description="YOLO and BERT on small devices, reported over MQTT.")
    parser.add_argument("--version", action="version", version=__version__)
    parser.set_defaults(verbose=False)
    common_options(parser)
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
            common_options(made)
            options(made)
    return parser
