"""The verb ask: what was seen, heard and read, searched by words, meaning, time, place and label."""

from __future__ import annotations

import argparse
import sys
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

from edge_agent.cli.given import config_of
from edge_agent.cli.say import note, print_json, progress, table
from edge_agent.errors import EdgeAgentError, UsageError

if TYPE_CHECKING:
    from edge_agent.archive.archive import Archive
    from edge_agent.archive.meaning import Meaning
    from edge_agent.archive.recap import Recap
    from edge_agent.archive.search import Answer
    from edge_agent.archive.wanted import Wanted

MOST_READ = 20_000
"""texts that are read for their meaning before one answer"""


def options(ask: argparse.ArgumentParser) -> None:
    """The verb's options."""
    ask.add_argument("question", nargs="*", help='e.g. "red car at the gate last night"')
    ask.add_argument("-c", "--config", help="TOML file of the agent (default: that of the service)")
    for key, of in (("pipeline", "this pipeline"), ("zone", "this zone or line"), ("label", "this label, or rule")):
        ask.add_argument(f"--{key}", action="append", default=[], help=f"of {of} alone (may be repeated)")
    ask.add_argument("--kind", action="append", default=[], help="of this kind of event alone, e.g. text, object, rule")
    ask.add_argument("--since", metavar="TIME", help='from, as in "yesterday", "monday at 8", 2026-03-01')
    ask.add_argument("--until", metavar="TIME", help="to the end of it")
    ask.add_argument("--top", type=int, default=10, metavar="N", help="so many at most (default: 10)")
    ask.add_argument("--encoder", default="encoder", metavar="NAME", help="what reads for meaning (default: the best)")
    ask.add_argument("--words", action="store_true", help="by words alone, without an encoder")
    ask.add_argument("--recap", action="store_true", help="a day in short: counts, first and last, what was unusual")
    ask.add_argument("--delete", action="store_true", help="delete what the options name; asks for a word")
    ask.add_argument("--yes", action="store_true", help="with --delete: do not ask")
    ask.add_argument("--json", action="store_true", help="print one JSON object, and nothing else")


def ask(args: argparse.Namespace) -> int:
    """Search, sum up or delete; 1 where nothing was found."""
    if not 1 <= args.top <= 1000:
        raise UsageError(f"--top {args.top}: give a number from 1 to 1000")
    archive, wanted, question = opened(args), _wanted(args), " ".join(args.question)
    if args.delete:
        return _delete(args, archive, wanted, question)
    if args.recap:
        return _recap(args, archive, wanted, question)
    if not question.strip():
        raise UsageError('ask what? as in: edge-agent ask "red car at the gate last night"; or --recap yesterday')
    from edge_agent.archive.search import search

    answer = search(archive, question, _meaning(args, archive), wanted, top=args.top)
    if args.json:
        print_json(_row(answer))
    else:
        print("\n".join(_lines(answer)))
    return 0 if answer.found else 1


def opened(args: argparse.Namespace) -> Archive:
    """The archive of a config. UsageError where it has none, StoreError where there is none yet."""
    from edge_agent import config
    from edge_agent.archive.archive import NAME, Archive

    loaded = config.load(config_of(args))
    if loaded.archive is None:
        raise UsageError(f"{args.config or 'the config'} keeps no events; write [archive] into it and run the agent")
    return Archive(config.store_path(loaded) / NAME, new=False)


def _wanted(args: argparse.Namespace) -> Wanted:
    """The events that the options name. UsageError for a time that is none."""
    from edge_agent.archive.times import span
    from edge_agent.archive.wanted import Wanted

    times: list[float | None] = []
    for key in ("since", "until"):
        given = getattr(args, key)
        asked = span(given) if given is not None else None
        if asked is not None and (asked.since is None or asked.rest):
            raise UsageError(f'--{key} "{given}": no time; write yesterday, "monday at 8" or 2026-03-01')
        times.append(getattr(asked, key, None))
    since, until = times
    return Wanted(since, until, pipelines=args.pipeline, kinds=args.kind, labels=args.label, zones=args.zone)


def _meaning(args: argparse.Namespace, archive: Archive) -> Meaning | None:
    """What reads for meaning, once it has read what nobody did; None where there is none, which is said."""
    if args.words:
        return None
    from edge_agent.archive.meaning import read_for_meaning
    from edge_agent.serving.meaning import meaning_of
    from edge_agent.serving.models import Models

    try:
        meaning = meaning_of(Models(once=True, say=progress("fetching")), args.encoder)
        if left := archive.unread(meaning.model):
            note(f"{min(left, MOST_READ)} texts are read for their meaning, once")
        read_for_meaning(archive, meaning, MOST_READ)
    except EdgeAgentError as error:
        note(f"by words alone: {error}")
        return None
    return meaning


# ── what is printed ──────────────────────────────────────────────────────────────────────────────────────


def _row(answer: Answer) -> dict[str, Any]:
    """As --json prints it."""
    found = [
        {
            "text": one.text,
            "score": one.score,
            "count": one.count,
            "events": [{"number": kept.number, **kept.body()} for kept in one.events],
        }
        for one in answer.found
    ]
    times = {key: _rfc3339(getattr(answer, key)) for key in ("since", "until")}
    return {"question": answer.question, **times, "found": found, "unread": answer.unread}


def _rfc3339(at: float | None) -> str | None:
    from edge_agent.events import rfc3339

    return None if at is None else rfc3339(at)


def _when(at: float) -> str:
    return datetime.fromtimestamp(at).strftime("%a %Y-%m-%d %H:%M:%S")


def _lines(answer: Answer) -> list[str]:
    """For people."""
    if not answer.found:
        return ["nothing found" + _between(answer.since, answer.until)]
    told = [f"{answer.question or 'all'}{_between(answer.since, answer.until)}"] if answer.since else []
    rows = []
    for one in answer.found:
        kept = one.events[0]
        more = f"and {one.count - 1} more like it" if one.count > 1 else ""
        rows.append([_when(kept.at), str(kept.body()["pipeline"]), f"{one.score:.2f}", one.text[:100], more])
    return [*told, *table(rows, right=frozenset({2}))]


def _between(since: float | None, until: float | None) -> str:
    if since is None and until is None:
        return ""
    return f" from {_when(since) if since else 'the beginning'} to {_when(until) if until else 'now'}"


def _recap(args: argparse.Namespace, archive: Archive, wanted: Wanted, question: str) -> int:
    """A day in short: the one that the question names, else today."""
    from edge_agent.archive.recap import recap
    from edge_agent.archive.times import span

    asked = span(question or "today")
    if asked.since is None or asked.until is None or asked.rest:
        raise UsageError(f'--recap "{question}": of when? write yesterday, "last night", monday or 2026-03-01')
    found = recap(archive, asked.since, min(asked.until, time.time()), wanted)
    if args.json:
        print_json(found)
    else:
        print("\n".join(_summed(found)))
    return 0 if found.events else 1


def _summed(found: Recap) -> list[str]:
    told = [f"{found.events} events{_between(found.since, found.until)}"]
    if not found.compared:
        told[0] += ", of the first day here: nothing to hold it against"
    rows = []
    for row in found.rows:
        times = " to ".join(_clock(at) for at in (row.first, row.last)[: row.count])
        usual = "" if row.usual is None else f"usually {row.usual:.3g}"
        rows.append([row.pipeline, row.label or row.kind, str(row.count), times, usual, row.unusual])
    told += table(rows, right=frozenset({2})) if rows else []
    return told + [f"{_clock(at)}  {pipeline}: {text}" for at, pipeline, text in found.notable]


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at).strftime("%H:%M")


def _delete(args: argparse.Namespace, archive: Archive, wanted: Wanted, question: str) -> int:
    """Delete what the options name, once somebody has said yes."""
    import msgspec

    if question or not any(msgspec.structs.astuple(wanted)):
        raise UsageError("--delete: name what goes by --since, --until, --label, --zone, --pipeline or --kind")
    count = archive.count(wanted)
    if count and not args.yes:
        if not sys.stdin.isatty():
            raise UsageError(f"--delete: {count} events would go; add --yes")
        if input(f"delete {count} events from {archive.path}? yes or no: ").strip().lower() != "yes":
            note("nothing was deleted")
            return 1
    gone = archive.remove(wanted) if count else 0
    print_json({"deleted": gone}) if args.json else print(f"{gone} events deleted")
    return 0 if gone else 1
