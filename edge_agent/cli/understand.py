"""The verb understand: texts -> their labels, spans, missing words, answers; what is heard or seen: capture.py."""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from edge_agent.cli.models import models_of
from edge_agent.cli.say import note, one_line, print_json
from edge_agent.errors import InputError, ManifestError, UsageError, nearest

if TYPE_CHECKING:
    from edge_agent.types import Task

OPTIONS = {
    "labels": ("classify",),
    "context": ("answer",),
    "store": ("similar",),
    "add": ("similar",),
    "remove": ("similar",),
    "list": ("similar",),
    "repair": ("fill",),
    "top": ("fill", "answer", "similar", "summarize"),
}
"""option -> the tasks that it is for"""
WANTED = {
    "answer": ("context", "in which text? give --context FILE, or a folder of text files"),
    "similar": ("store", "among which sentences? give --store NAME, and --add to fill it"),
}
"""task -> the option that it cannot do without, and what is said where it is left out"""
AT_ONCE = 1000
"""sentences that are stored between two looks at stdin"""


def understand(args: argparse.Namespace) -> int:
    """Do with texts what the task says, or get the text of sounds and pictures; 1 when one of them cannot be read."""
    from edge_agent.cli.capture import capture, task_of
    from edge_agent.paths import home
    from edge_agent.tasks import TASKS, found_at, make_task
    from edge_agent.uri import Uri

    models = models_of(args, once=True)
    if captures := task_of(args.model, models):
        return capture(args, captures, models)
    if args.then or args.seconds:
        raise UsageError(f"--then, --seconds: {args.model} takes texts; leave them out")
    purpose = models.serve(args.model).manifest.task
    name = _task_of(args, purpose)
    options = _options_of(args, name, purpose)
    task, show = make_task(Uri(name, args.model, options), models.serve, home()), found_at(TASKS[name].show)
    if options.get("labels") and not args.labels:
        note(f"labels: the demo's ({options['labels']}); give your own with --labels FILE.toml")
    if args.list:
        return _list(args, task)
    if args.add or args.remove:
        return _keep(args, task)
    texts = _texts(args.text)
    if name == "summarize":
        texts = iter(["\n".join(texts)])
    return _told(args, task, show, texts)


def _told(args: argparse.Namespace, task: Task, show: Any, texts: Iterable[str]) -> int:
    """Print what is found in each text, and at the end what was collected."""
    from edge_agent.types import Finding, Text

    failed = 0

    def tell(found: Iterable[object]) -> None:
        for one in found:
            assert isinstance(one, Finding)
            row, words = show(one)
            if args.json:
                print_json(row)
            else:
                print(words, flush=True)

    for text in texts:
        try:
            if not text.strip():
                raise InputError("the text is empty; give at least one word")
            tell(task(Text(text, time.time(), time.monotonic())))
        except InputError as error:
            failed += 1
            print(f"edge-agent understand: {one_line(error)}", file=sys.stderr)
    tell(getattr(task, "ended", tuple)())
    return 1 if failed else 0


def _task_of(args: argparse.Namespace, purpose: str) -> str:
    """The task that is meant, for a model that is for `purpose`. UsageError for one that the model cannot do."""
    from edge_agent.tasks import MEANT, TASKS
    from edge_agent.types import Text

    if args.embed and args.task not in (None, "embed"):
        raise UsageError(f"--embed is --task embed, and --task {args.task} another one; leave one of them out")
    name = "embed" if args.embed else args.task
    if name is None:
        name = _meant(args, purpose)
    row = TASKS.get(name)
    if row is None:
        raise UsageError(f"--task {name}: no such task{nearest(name, TASKS, MEANT)}")
    if row.takes not in (None, Text):
        raise ManifestError(f"{args.model}: no text encoder (its task is {purpose}); name one, e.g. encoder")
    if purpose not in (row.purpose, *row.on):
        able = ", ".join(key for key, one in TASKS.items() if purpose in (one.purpose, *one.on))
        raise UsageError(f"--task {name}: not for {args.model}, whose task is {purpose}; it can {able}")
    return name


def _meant(args: argparse.Namespace, purpose: str) -> str:
    """The task where none is named: the one that an option is for (--store), or what such a model is usually for."""
    from edge_agent.tasks import PLAIN

    alone = [tasks[0] for key, tasks in OPTIONS.items() if len(tasks) == 1 and getattr(args, key)]
    if alone:
        return alone[-1]
    if purpose not in PLAIN:
        raise ManifestError(f"{args.model}: no text encoder (its task is {purpose}); name one, e.g. encoder")
    return "classify" if purpose == "encode" else PLAIN[purpose]


def _options_of(args: argparse.Namespace, name: str, purpose: str) -> dict[str, str]:
    """The options of the task. UsageError for one that is another task's, or that is left out."""
    from edge_agent.paths import carried

    _check_options(args, name)
    given = {key: str(getattr(args, key)) for key in ("labels", "context", "store", "top") if getattr(args, key)}
    if name == "classify" and purpose == "encode" and not args.labels:
        given["labels"] = str(carried("deploy", "demo", "intents.toml"))
    if args.repair:
        given["repair"] = "1"
    return given


def _check_options(args: argparse.Namespace, name: str) -> None:
    for key, tasks in OPTIONS.items():
        if getattr(args, key) and name not in tasks:
            raise UsageError(f"--{key}: for --task {' or '.join(tasks)}, not for {name}")
    if name in WANTED and not getattr(args, WANTED[name][0]):
        raise UsageError(f"{name}: {WANTED[name][1]}")


def _list(args: argparse.Namespace, task: Any) -> int:
    """Print the texts that are stored."""
    for text in task.store.texts():
        print_json({"text": text}) if args.json else print(text)
    return 0


def _keep(args: argparse.Namespace, task: Any) -> int:
    """Store texts, or take them away; 1 where one that is to be taken away is not there."""
    changed = count = 0
    for texts in _some(text for text in _texts(args.text) if text.strip()):
        count += len(texts)
        changed += task.store.remove(texts) if args.remove else task.store.add(texts, task.vectors(texts))
    told = {"store": args.store, "removed" if args.remove else "added": changed, "stored": task.store.count}
    if args.json:
        print_json(told)
    else:
        done = "taken away" if args.remove else "new"
        print(f"{args.store}: {changed} of {count} sentences {done}, {told['stored']} are stored")
    return 1 if args.remove and changed < count else 0


def _some(texts: Iterable[str]) -> Iterator[list[str]]:
    """AT_ONCE of them at a time."""
    kept: list[str] = []
    for text in texts:
        kept.append(text)
        if len(kept) == AT_ONCE:
            yield kept
            kept = []
    if kept:
        yield kept


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
