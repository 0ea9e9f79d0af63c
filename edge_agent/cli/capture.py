"""The verb understand on what is heard or seen: sounds, pictures, microphones, cameras -> their text, and what is
understood of it.
"""

from __future__ import annotations

import argparse
import glob
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from edge_agent.cli.say import note, one_line, print_json
from edge_agent.errors import EdgeAgentError, InputError, LateError, ModelError, UsageError, within
from edge_agent.events import rfc3339
from edge_agent.redact import redact
from edge_agent.types import Audio, Finding, Frame, Heard, Sample, StreamState, Task, Text
from edge_agent.uri import Uri, parse_uri

if TYPE_CHECKING:
    from edge_agent.serving.models import Models
    from edge_agent.sources import Opened


def task_of(model: str, models: Models) -> str:
    """The task of a model that takes sounds or pictures and gives text; empty for another model."""
    from edge_agent.tasks import TASKS, plain

    name = _named(model).rest
    own = [task for task, row in TASKS.items() if name in row.own]
    task = own[0] if own else plain(models.serve(name))
    return task if TASKS[task].takes in (Audio, Frame) and TASKS[task].gives is Text else ""


def _named(model: str) -> Uri:
    """MODEL?option=value, where that is no path."""
    return Uri("", model) if Path(model).exists() else parse_uri(f"model:{model}")


def capture(args: argparse.Namespace, task: str, models: Models) -> int:
    """Answer all that is given, files first; 1 when one of them cannot be read or answered."""
    from edge_agent.cli.signals import stop_after, stop_on_signals

    if not args.text:
        raise UsageError(
            f"{args.model}: give it files, folders, globs, or addresses such as microphone:NAME or camera:0"
        )
    model = _named(args.model)
    uris = [*_before(task), Uri(task, model.rest, model.options), *map(_then, args.then)]
    out, stop = _Out(uris, models, args.json), stop_on_signals()
    stop_after(args.seconds, stop)
    live = [place for place in _places(args.text, out) if not out.answer_finite(*place, stop)]
    if not stop.is_set():
        _answer_all(live, out, stop)
    return 1 if out.failed else 0


def _answer_all(live: list[tuple[str, Uri]], out: _Out, stop: threading.Event) -> None:
    """Answer all that goes on at once, until `stop` or to their ends."""
    threads = [threading.Thread(target=out.answer, args=(*place, stop), daemon=True) for place in live]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(0.2)


def _before(task: str) -> list[Uri]:
    """What has to stand before a task."""
    from edge_agent.tasks import TASKS

    return [Uri(TASKS[task].behind, "")] if TASKS[task].behind else []


def _then(text: str) -> Uri:
    """A task behind it. ConfigError for what is none."""
    with within("--then"):
        return parse_uri(text if ":" in text else f"{text}:")


def _places(texts: list[str], out: _Out) -> Iterator[tuple[str, Uri]]:
    """What is to be heard or seen, as it may be shown, and its address; of a glob, each file."""
    from edge_agent.cli.places import given

    for text in given(texts):
        if _is_address(text):
            yield redact(text), parse_uri(text)
            continue
        found = [text]
        if glob.has_magic(text) and not Path(text).exists():
            found = sorted(path for path in glob.iglob(text, recursive=True) if Path(path).is_file())  # noqa: PTH207
        if not found:
            out.bad(text, InputError("no file matches"))
        for path in found:
            yield redact(path), Uri("files", path)


def _is_address(text: str) -> bool:
    """Whether it is the address of a source, ours or a package's, and no file."""
    from edge_agent.sources import SCHEMES

    scheme = text.partition(":")[0]
    return not Path(text).exists() and (scheme in SCHEMES or ("." in scheme and text.count(":") > 1))


class _Out:
    """What answers, what was answered, and what failed."""

    def __init__(self, uris: list[Uri], models: Models, as_json: bool) -> None:
        from edge_agent.tasks import TASKS

        self.uris, self.models, self.json = uris, models, as_json
        self.first = next(uri for uri in uris if TASKS[uri.scheme].gives is Text)
        """what gives the text"""
        self.takes: type[Frame] | type[Audio] = Audio if TASKS[self.first.scheme].takes is Audio else Frame
        self.failed = 0
        self._one_says = threading.Lock()
        self._tasks = self._chain()

    def _chain(self) -> list[Task]:
        """The tasks, made anew: some remember what came before. ConfigError, ModelError."""
        from edge_agent.paths import home
        from edge_agent.tasks import make_task
        from edge_agent.tasks.chain import check_chain, check_order, completed, wanting

        uris = wanting([parse_uri(text) for text in completed([str(uri) for uri in self.uris])])
        check_order(self.takes, [uri.scheme for uri in uris])
        tasks = [make_task(uri, self.models.serve, home()) for uri in uris]
        check_chain(self.takes, [(uri.scheme, task) for uri, task in zip(uris, tasks, strict=True)])
        return tasks

    def answer_finite(self, title: str, uri: Uri, stop: threading.Event) -> bool:
        """Answer what ends by itself; False for what does not, which is left."""
        try:
            opened = self._opened(uri)
            if not opened.live and not stop.is_set():
                self._answer(title, opened, self._tasks, stop)
            return not opened.live
        except EdgeAgentError as error:
            self.bad(title, error)
            return True

    def answer(self, title: str, uri: Uri, stop: threading.Event) -> None:
        """Answer what goes on until `stop`, with tasks of its own."""
        try:
            self._answer(title, self._opened(uri), self._chain(), stop)
        except EdgeAgentError as error:
            self.bad(title, error)

    def _opened(self, uri: Uri) -> Opened:
        from edge_agent.sources import open_source

        opened = open_source(uri)
        if not issubclass(opened.yields, self.takes):
            raise InputError(f"gives {opened.yields.words}, and {self.first.rest} takes {self.takes.words}")
        return opened

    def _answer(self, title: str, opened: Opened, tasks: list[Task], stop: threading.Event) -> None:
        """Each sample through the tasks; one that fails is said, and the next one is taken."""
        from edge_agent.walk.mailbox import Mailbox
        from edge_agent.walk.pipeline import walk

        box: Mailbox[Sample] = Mailbox(opened.yields.room, newest=opened.live and opened.yields is Frame)
        said, failure = 0, []

        def read() -> None:
            try:
                for item in opened.run(stop):
                    if isinstance(item, StreamState):
                        if opened.live or item.why:
                            note(f"{title}: {item.condition}{item.why and f': {item.why}'}")
                        # a file that could not be read
                        self.failed += item.condition == "ended" and bool(item.why)
                    elif not box.put(item):
                        return
            except EdgeAgentError as error:
                failure.append(error)
            finally:
                box.close()

        reader = threading.Thread(target=read, name="capture", daemon=True)
        reader.start()
        for sample in box:
            try:
                for found in walk(sample, tasks):
                    said += 1
                    self._say(title, found)
            except (InputError, ModelError, LateError) as error:
                self.bad(title, error)
        if failure:
            raise failure[0]
        if not said and not opened.live:
            note(f"{title}: no text in it")

    def bad(self, title: str, error: Exception) -> None:
        """One that cannot be read or answered: the others go on."""
        with self._one_says:
            self.failed += 1
            print(f"edge-agent understand: {title}: {one_line(error)}", file=sys.stderr, flush=True)

    def _say(self, title: str, found: Sample | Finding) -> None:
        """One text, or what was understood of it."""
        from edge_agent.tasks import TASKS, found_at

        sample = found.of if isinstance(found, Finding) else found
        last = self.uris[-1] if isinstance(found, Finding) else self.first
        show = TASKS[last.scheme].show if last.scheme in TASKS else ""
        row, words = found_at(show)(found) if show else _plain(found)
        with self._one_says:
            if not self.json:
                print(f"{title}: {words}", flush=True)
                return
            print_json({"input": title, "at": rfc3339(sample.at), **row, **_got(sample), **_of(found)})


def _got(sample: Sample) -> dict[str, Any]:
    """How a text was got, as an event says it."""
    got = sample.got if isinstance(sample, Text) else None
    return {} if got is None else {"heard" if isinstance(got, Heard) else "read": msgspec.to_builtins(got)}


def _of(found: Sample | Finding) -> dict[str, Any]:
    """Which model understood it."""
    return {"model": msgspec.to_builtins(found.model)} if isinstance(found, Finding) else {}


def _plain(found: Sample | Finding) -> tuple[dict[str, Any], str]:
    """What a task of somebody else found."""
    text = found.of.text if isinstance(found, Finding) else found.text
    return {"text": text}, text
