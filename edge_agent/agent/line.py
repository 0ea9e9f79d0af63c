"""One pipeline made ready: its source opened, its tasks on models that answer, the mailbox between them."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from edge_agent import paths
from edge_agent.agent.stop import Stop
from edge_agent.agent.threshold import Threshold
from edge_agent.agent.zones import check_also, check_blur, check_tamper, mask_of, zones_of
from edge_agent.config import Pipeline, Zone
from edge_agent.errors import ConfigError, within
from edge_agent.manifest import Served
from edge_agent.sources import Opened, Subscribe, open_source
from edge_agent.tasks import TASKS, make_task
from edge_agent.tasks.chain import check_chain, check_order, completed, fitting, wanting
from edge_agent.types import Audio, Embedding, Frame, Sample, StreamState, Task, Text
from edge_agent.uri import parse_task, parse_uri
from edge_agent.walk.fair import Client
from edge_agent.walk.mailbox import TOO_OLD, Mailbox
from edge_agent.walk.pipeline import Show, Stats, Watcher
from edge_agent.walk.privacy import Guard

if TYPE_CHECKING:
    from edge_agent.agent.tampering import Tampering
    from edge_agent.serving.models import Models
    from edge_agent.serving.order import Pace
    from edge_agent.walk.follow import Follow

CAMERA_FPS = 30.0
"""frames a second of a camera that states none"""


@dataclass(slots=True)
class Line:
    """One pipeline at work."""

    config: Pipeline
    opened: Opened
    pace: Pace
    teams: list[list[Task]]
    """one list of tasks for each frame that is answered at once"""
    uses: list[dict[str, str]]
    """for each task, the models that it asked for -> which one serves, and why"""
    box: Mailbox[Sample]
    client: Client = field(default_factory=Client)
    """as whose its models take turns on the processor"""
    stats: Stats = field(default_factory=Stats)
    stream: StreamState = field(default_factory=lambda: StreamState("starting"))
    since: float = field(default_factory=time.time)
    taken: int = 0
    """samples that the source gave"""
    taken_at: float = 0.0
    """when the last one came, monotonic"""
    once: bool = False
    """they cannot be read again: texts without a mark"""
    refused: str = ""
    """why a model that was switched to does not serve, one line; empty when it does"""
    newest: dict[str, str] = field(default_factory=dict)
    """model that was switched to and does not serve -> its version"""
    zones: Sequence[Zone] = ()
    mask: Callable[[Frame], Frame] | None = None
    """what a frame goes through before anything sees it"""
    tampering: Tampering | None = None
    """what watches over its camera, where the config asks for it"""
    follow: Follow | None = None
    """what makes the lives of objects, where it tracks"""
    guard: Guard = field(default_factory=Guard)
    """what of captured text goes on"""
    watchers: list[Watcher] = field(default_factory=list)
    """shown each sample that was answered, and what was found; may change while it works"""
    thresholds: dict[str, Threshold] = field(default_factory=dict)
    """by the name of its task: what may be changed by command while it works"""
    paused_at: float = 0.0
    """seconds since 1970 at which it was paused, while it is"""
    seen: Callable[[Sample | StreamState | None], object] = lambda what: None
    """told of each sample once it was dealt with, of what the source says of itself, and of the end (None)"""
    held: StreamState | None = None
    """what is to be said while the governor has paused it"""
    rate: float = 1.0
    """share of the live frames that are taken, spread evenly"""
    saves: str = ""
    """how it does less than it could, by the governor; empty where it does not"""
    show: Show = lambda frame, found: frame.image
    """gives its pictures as they may be kept, shown and sent"""
    ended: bool = False
    stop: Stop = field(default_factory=Stop)
    leave: Callable[[], object] = lambda: None
    """gives up what it hears of the broker; called once it has stopped"""
    threads: list[threading.Thread] = field(default_factory=list)

    @property
    def unanswered(self) -> int:
        """Texts that were taken, cannot be read again and have no answer."""
        return self.opened.left() + (self.taken - self.stats.samples if self.once else 0)

    @property
    def gathers(self) -> bool:
        """Whether one of its tasks puts samples together."""
        return any(hasattr(task, "under_way") for task in self.teams[0])

    @property
    def under_way(self) -> bool:
        """Whether one of them has taken sound of which the rest is still to come."""
        return any(getattr(task, "under_way", False) for task in self.teams[0])

    @property
    def says(self) -> tuple[StreamState, float]:
        """The state of its stream, and since when (seconds since 1970)."""
        if self.stop.paused:
            by_command = StreamState("paused", "paused by command; cmd/pause lets it go on")
            return self.held or by_command, self.paused_at
        return self.stream, self.since

    @property
    def versions(self) -> dict[str, dict[str, str]]:
        """Model -> the version that serves here, and the newest one there is."""
        found = {}
        for uses in self.uses:
            for asked, why in uses.items():
                name, _, rest = why.partition(" ")
                version = rest.partition(": ")[0]
                found[name] = {"serves": version, "newest": self.newest.get(asked, version)}
        return found

    @property
    def models(self) -> list[str]:
        """Name, version and reason of each model that serves here."""
        return list(dict.fromkeys(why for uses in self.uses for why in uses.values()))


def whole(pipe: Pipeline) -> Pipeline:
    """With the tasks that others of it need before them, as its `Line` has it."""
    return msgspec.structs.replace(pipe, tasks=completed(pipe.tasks))


def make_line(
    pipe: Pipeline,
    models: Models,
    subscribe: Subscribe | None,
    resume_at: int | None = None,
    zones: Sequence[Zone] = (),
) -> Line:
    """Check one pipeline and make ready what it needs; nothing is read and no thread starts.

    Raises an EdgeAgentError, one line that names the pipeline.
    """
    pipe = whole(pipe)
    with within(f"pipeline {pipe.name}"):
        opened = opened_source(pipe, subscribe, resume_at)
        pace = pace_of(pipe, opened)
        teams, uses = make_teams(pipe, opened.yields, lambda name: models.serve(name, pace))
        _check_says(pipe, opened.yields, teams[0])
        zones = zones_of(zones, pipe, opened.yields, teams[0])
        check_blur(pipe, opened.yields, teams[0])
        check_also(pipe)
        check_tamper(pipe, opened.yields)
    # of pictures the newest counts; of sound every moment does, and its source says what it could not keep
    newest = opened.live and opened.yields is not Audio
    room = 1 if newest else opened.yields.room
    old = TOO_OLD if newest else math.inf
    box: Mailbox[Sample] = Mailbox(room, newest=newest, fresh=newest and pipe.workers == 1, too_old=old)
    # how many threads work on it is settled here: a model that is swapped in later keeps to it
    pace = pace if len(teams) > 1 else pace._replace(workers=1)
    late = math.inf if pipe.deadline_ms is None else pipe.deadline_ms / 1000
    client = Client(pipe.priority, pipe.share, late, gives_up=newest)
    mask, guard = mask_of(zones), Guard(words=pipe.text)
    return Line(pipe, opened, pace, teams, uses, box, client, zones=zones, mask=mask, guard=guard)


def _check_says(pipe: Pipeline, yields: type, tasks: list[Task]) -> None:
    """ConfigError where no event would come of it, or none of those that are asked for."""
    if not tasks and yields is not Text:
        raise ConfigError(f"tasks: {fitting(yields)}")
    if yields is not Text:
        return
    if not pipe.text and not any(_says_more(task) for task in pipe.tasks):
        raise ConfigError("text: false leaves nothing to say here; add a task that labels or marks a text")
    if pipe.report not in (None, "every") and not _folds_texts(pipe):
        raise ConfigError(f'report: "{pipe.report}": each text has its own event here; take the line out')


def opened_source(pipe: Pipeline, subscribe: Subscribe | None, resume_at: int | None) -> Opened:
    """The source of a pipeline, bound to its address. Raises an EdgeAgentError."""
    with within("source"):
        uri = parse_uri(pipe.source)
        opened = open_source(uri, subscribe=subscribe, resume_at=resume_at)
        if not pipe.isolate:
            return opened
        from edge_agent.sources.isolated import isolated

        return isolated(uri, opened)


def _says_more(task: str) -> bool:
    """Whether a task says more of a text than its words or their vector; of others' tasks nobody knows."""
    row = TASKS.get(parse_uri(f"{task}:").scheme)
    return row is None or row.gives not in (Text, Embedding)


def _folds_texts(pipe: Pipeline) -> bool:
    """Whether what its tasks find in texts can be alike: numbers are unusual or not; of others' tasks nobody knows."""
    rows = [TASKS.get(parse_uri(f"{task}:").scheme) for task in pipe.tasks]
    return any(row is None or row.alike for row in rows)


def pace_of(pipe: Pipeline, opened: Opened) -> Pace:
    """How fast its samples come: as its source says, else as cameras do; what waits comes as fast as it is taken, and
    text always waits.
    """
    from edge_agent.serving.order import Pace

    stated = parse_uri(pipe.source).options.get("fps") or CAMERA_FPS
    return Pace(float(stated) if opened.live else math.inf, pipe.workers)


def make_teams(
    pipe: Pipeline, yields: type, serve: Callable[[str], Served], keep: Line | None = None, swapped: str = ""
) -> tuple[list[list[Task]], list[dict[str, str]]]:
    """The tasks of a pipeline, once for each sample that is to be answered at once, and the models that they use.

    Parameters as of `make_tasks`. As many as its model is best run by; one where a task remembers what it saw.
    """
    workers = 1

    def ask(name: str) -> Served:
        nonlocal workers
        served = serve(name)
        workers = max(workers, served.workers)
        return served

    kept, used = (keep.teams, keep.uses) if keep else ([], None)
    tasks, uses = make_tasks(pipe, yields, ask, kept[0] if kept else None, used, swapped)
    rows = [TASKS.get(task.partition(":")[0]) for task in pipe.tasks]
    if not all(row is not None and row.alone for row in rows):
        workers = 1
    others = [
        make_tasks(pipe, yields, serve, kept[n] if kept else None, used, swapped)[0]
        for n in range(1, len(kept) or workers)
    ]
    return [tasks, *others], uses


def make_tasks(
    pipe: Pipeline,
    yields: type,
    serve: Callable[[str], Served],
    kept: list[Task] | None = None,
    used: list[dict[str, str]] | None = None,
    swapped: str = "",
) -> tuple[list[Task], list[dict[str, str]]]:
    """The tasks of a pipeline and, for each, the models that it asked for (see `Line.uses`).

    `kept`, `used`, `swapped`: of those tasks only the ones on the model of that name are made anew. Raises an
    EdgeAgentError.
    """
    uris = [parse_task(task) for task in pipe.tasks]
    with within("tasks"):
        check_order(yields, [uri.scheme for uri in uris])
    uris = wanting(uris, pipe.name)
    tasks: list[Task] = []
    uses: list[dict[str, str]] = []
    for number, uri in enumerate(uris):
        asked: dict[str, str] = {}

        def ask(name: str, asked: dict[str, str] = asked) -> Served:
            served = serve(name)
            asked[name] = f"{served.ref.name} {served.ref.version}: {served.why}"
            return served

        if kept is not None and used is not None and swapped not in used[number]:
            tasks.append(kept[number])
            asked |= used[number]
        else:
            with within("tasks"):
                tasks.append(make_task(uri, ask, paths.home()))
            if kept is not None and hasattr(tasks[-1], "take_over"):
                tasks[-1].take_over(kept[number])
        uses.append(asked)
    check_chain(yields, [(uri.scheme, task) for uri, task in zip(uris, tasks, strict=True)])
    return tasks, uses
