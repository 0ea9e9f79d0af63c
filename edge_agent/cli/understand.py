"""The verb understand: texts -> their labels, spans, errors or vectors; what is heard or seen: capture.py."""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Iterator

from edge_agent.cli.models import models_of
from edge_agent.cli.say import note, one_line, print_json
from edge_agent.errors import InputError, UsageError


def understand(args: argparse.Namespace) -> int:
    """Label, or embed, texts, or get the text of sounds and pictures; 1 when one of them is empty or cannot be read."""
    from edge_agent.cli.capture import capture, task_of
    from edge_agent.paths import home
    from edge_agent.tasks import TASKS, found_at, make_task
    from edge_agent.types import Text
    from edge_agent.uri import Uri

    if args.embed and args.labels:
        raise UsageError(f"--labels {args.labels}: --embed gives vectors, which have no labels; leave one of them out")
    models = models_of(args, once=True)
    if captures := task_of(args.model, models):
        return capture(args, captures, models)
    if args.then or args.seconds:
        raise UsageError(f"--then, --seconds: {args.model} takes texts; leave them out")
    name, options = _task_of(args, models.serve(args.model).manifest.task)
    task, show = make_task(Uri(name, args.model, options), models.serve, home()), found_at(TASKS[name].show)
    if options and not args.labels:
        note(f"labels: the demo's ({options['labels']}); give your own with --labels FILE.toml")
    failed = 0
    for text in _texts(args.text):
        try:
            if not text.strip():
                raise InputError("the text is empty; give at least one word")
            (found,) = task(Text(text, time.time(), time.monotonic()))
        except InputError as error:
            failed += 1
            print(f"edge-agent understand: {one_line(error)}", file=sys.stderr)
            continue
        row, words = show(found)
        if args.json:
            print_json(row)
        else:
            print(words, flush=True)
    return 1 if failed else 0


def _task_of(args: argparse.Namespace, purpose: str) -> tuple[str, dict[str, str]]:
    """The task that is meant, and its options, for a model that is for `purpose`."""
    from edge_agent.paths import carried

    if purpose in ("anomaly", "classify", "tag"):
        if args.labels or args.embed:
            raise UsageError(f"--labels, --embed: not for {args.model}, whose task is {purpose}")
        return purpose, {}
    if args.embed:
        return "embed", {}
    return "classify", {"labels": args.labels or str(carried("deploy", "demo", "intents.toml"))}


def _texts(given: list[str]) -> Iterator[str]:
    """The texts of the command line, or the lines of stdin for ``-`` or none."""
    if given and given != ["-"]:
        yield from given
        return
    from edge_agent.sources import open_source
    from edge_agent.types import Text
    from edge_agent.uri import Uri

    for item in open_source(Uri("lines", "-")).run(threading.Event()):
        if isinstance(item, Text):
            yield item.text
