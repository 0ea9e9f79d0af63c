"""Who is told of events beside the broker, and asked about them: their addresses checked, and put to work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from edge_agent.agent.keep import Keep
from edge_agent.agent.line import Line
from edge_agent.agent.rule_pipes import pipes_of
from edge_agent.config import Choice, Config, Opinion
from edge_agent.errors import ConfigError, StoreError, nearest, within
from edge_agent.events import Event, OpinionEvent
from edge_agent.events.opinion import Verdict
from edge_agent.notify.notices import FOLDER, Notices, clear_others
from edge_agent.rules.facts import Pipe
from edge_agent.types import Text
from edge_agent.walk.privacy import Guard

if TYPE_CHECKING:
    from edge_agent.agent.lines import Lines
    from edge_agent.agent.record import Recorder
    from edge_agent.notify.opinion import Doubted, Opinions
    from edge_agent.notify.receiver import Picture, Receiver, Told

OURS = {"rule", "opinion"}
"""kinds of events that no pipeline gives"""


def told_by(keep: Keep, config: Config, store: Path, record: Recorder, work: Lines) -> Notices:
    """Those that a config names, told from now on of each event, and those of each other config that `work` turns to.

    ConfigError, StoreError.
    """
    pictures, differing = record.pictures, record.differing
    picture: Picture = (lambda name: None) if pictures is None else pictures.path
    # of a whole frame the snapshot has the box drawn in
    doubted = differing.doubted if differing is not None and not config.samples.whole else None
    notices = Notices()

    def turn(new: Config, lines: Sequence[Line]) -> Callable[[], None]:
        check_told(new)
        check_heard(new, lines)
        wanted: dict[str, Told] = {f"notify {one.name}": one for one in new.notify}
        if new.opinion is not None:
            wanted["opinion"] = new.opinion
        made = lambda what: _receiver(wanted[what], keep, store, picture, work.all, doubted)  # noqa: E731
        return notices.turn_to(wanted, made)

    turn(config, work.all)()
    clear_others(config, store)
    work.turning.append(turn)
    keep.fillers.append(notices.before)
    keep.listeners.append(notices.listen)
    return notices


def _receiver(
    section: Told, keep: Keep, store: Path, picture: Picture, lines: Sequence[Line], doubted: Doubted | None
) -> Receiver:
    """StoreError where the disk has no place for what waits for it."""
    from edge_agent.notify.receiver import People

    place = store / "opinion" if isinstance(section, Opinion) else store / FOLDER / section.name
    try:
        if isinstance(section, Opinion):
            return _opinions(keep, section, place, picture, lines, doubted)
        return People(section, place, picture)
    except OSError as error:
        raise StoreError(f"{place}: {error.strerror}; what waits to be sent has no place") from None


def _opinions(
    keep: Keep, section: Opinion, place: Path, picture: Picture, lines: Sequence[Line], doubted: Doubted | None
) -> Opinions:
    """Raises OSError."""
    from edge_agent.link.budget import Budget
    from edge_agent.notify.opinion import Opinions

    def put(event: OpinionEvent) -> Event:
        """Keep it as an event of its pipeline, or, where several made it, of all of them."""
        among = [line for line in lines if line.config.name == event.pipeline] or lines
        guard = Guard(next((line.guard.hide for line in among), None), all(line.guard.words for line in among))
        kinds = {line.config.class_of("opinion") for line in among}
        return keep.put(guard.event(event, Text("", 0.0, 0.0)), kinds.pop() if len(kinds) == 1 else "alert")

    budget = Budget(section.bytes_per_day, place.with_suffix(".json"))
    return Opinions(section, place, picture, budget, put, doubted)


def check_told(config: Config) -> None:
    """ConfigError for an address that cannot be had, or that nothing here can send to."""
    if config.notify:
        from edge_agent.notify.send import address_of

        for one in config.notify:
            address_of(one)
    if config.opinion is not None:
        from edge_agent.notify.opinion import check

        check(config.opinion)


def check_heard(config: Config, lines: Sequence[Line]) -> None:
    """ConfigError for a kind of event that no pipeline gives, and for a label that no model gives."""
    pipes = pipes_of(lines)
    asked = [("opinion", config.opinion)] if config.opinion else []
    for where, choice in [*((f"notify {one.name}", one) for one in config.notify), *asked]:
        among = [pipe for name, pipe in pipes.items() if name in (choice.pipelines or pipes)]
        with within(where):
            _check_kinds(choice, among)
            _check_labels(choice, among)


def _check_kinds(choice: Choice, among: Sequence[Pipe]) -> None:
    for kind in choice.kinds:
        if kind not in OURS and not any(_gives(pipe, kind) for pipe in among):
            mend = 'write tasks = ["detect:detector", "track"]' if kind in ("object", "crossing") else "see its tasks"
            raise ConfigError(f'kinds: no pipeline that is meant gives "{kind}"; {mend}')


def _check_labels(choice: Choice, among: Sequence[Pipe]) -> None:
    given = [pipe.labels for pipe in among if any(_gives(pipe, kind) for kind in choice.kinds)]
    known = set(filter(None, get_args(Verdict))) if "opinion" in choice.kinds else set[str]()
    known = known.union(*(names or () for names in given))
    for label in choice.labels:
        if None not in given and label.casefold() not in set(map(str.casefold, known)):
            raise ConfigError(f'labels: "{label}" is not found here{nearest(label, known)}')


def _gives(pipe: Pipe, kind: str) -> bool:
    """Whether a pipeline may say events of a kind; one that tracks says its boxes, too, where it is asked to."""
    return pipe.kinds is None or kind in pipe.kinds or (kind == "detections" and "object" in pipe.kinds)


def about_told(config: Config) -> Iterator[str]:
    """Each receiver and what it is told of, a line each. ConfigError for an address that cannot be one."""
    from edge_agent.notify.send import checked

    for one in config.notify:
        when = f"quiet {one.quiet}, " * bool(one.quiet)
        yield f"notify {one.name}: {checked(one)}: {_of(one)}; {when}{one.limit} an hour at most"
    if (asked := config.opinion) is not None:
        open_ = " (not encrypted)" * asked.url.startswith("http:")
        most = f"{asked.limit} an hour and {asked.bytes_per_day / 1e6:g} MB a day at most"
        yield f"opinion: {asked.model} at {asked.address}{open_}: pictures of {_of(asked)}; {most}"


def _of(choice: Choice) -> str:
    """Of what somebody is told, in words."""
    kinds = [kind for kind in choice.kinds if kind != "rule" or not choice.rules]
    of = [*(f"rule {name}" for name in choice.rules), *kinds] or ["every rule"]
    only = [f"{key} {', '.join(given)}" for key in ("pipelines", "labels") if (given := getattr(choice, key))]
    return ", ".join([*of, *only])


def try_told(config: Config, name: str) -> Iterator[tuple[bool, str]]:
    """Send a test message to the receiver of this name, or to all for ""; "opinion" is the one that is asked.

    Whether each took it, and a line about it. ConfigError for a name that is none.
    """
    from edge_agent.notify.opinion import tried as asked
    from edge_agent.notify.send import tried

    names = [*(one.name for one in config.notify), *(["opinion"] if config.opinion else [])]
    if not names:
        raise ConfigError("there is no [[notify]] to try")
    if name not in ("", *names):
        raise ConfigError(f'--notify: "{name}" is none{nearest(name, names)}')
    for one in config.notify:
        if name in ("", one.name):
            yield tried(one, config.device.id)
    if config.opinion is not None and name in ("", "opinion"):
        yield asked(config.opinion)
