"""What may stand in a chain of tasks, in which order, what is put into one, and what is said of one that cannot be."""

from __future__ import annotations

from collections.abc import Sequence

from edge_agent.errors import ConfigError
from edge_agent.tasks import TASKS, TaskRow
from edge_agent.types import Audio, Detections, Finding, Frame, Task
from edge_agent.uri import Uri

FOUND = "what a task before it found"


def wanting(uris: Sequence[Uri], pipeline: str = "") -> list[Uri]:
    """The tasks of a pipeline of this name, each with the options that it is to have where they are not given: what the
    task behind it wants, and the name under which it remembers.
    """
    rows = [TASKS.get(uri.scheme) for uri in uris]
    wants = [row.wants if row is not None else {} for row in [*rows, None][1:]]
    return [
        Uri(uri.scheme, uri.rest, {**more, **_named(row, uri, pipeline), **uri.options}) if row is not None else uri
        for uri, row, more in zip(uris, rows, wants, strict=True)
    ]


def _named(row: TaskRow, uri: Uri, pipeline: str) -> dict[str, str]:
    """The name under which one remembers what it learns in a pipeline, where it does."""
    return {row.named: pipeline} if row.named and pipeline and uri.rest in row.own else {}


def completed(tasks: Sequence[str]) -> list[str]:
    """The tasks of a config, with those put in that one of them has to stand behind."""
    found: list[str] = []
    names = [task.partition(":")[0].partition("?")[0] for task in tasks]
    for at, name in enumerate(names):
        before = TASKS[name].behind if name in TASKS else ""
        if before and before not in names[:at]:
            found.append(f"{before}:{TASKS[before].default}")
        found.append(tasks[at])
    return found


def check_order(yields: type, names: Sequence[str]) -> None:
    """As `check_chain`, by the names of the tasks alone: before their models are looked for."""
    comes = yields
    for name in names:
        row = TASKS.get(name)
        if row is None or row.takes is None:
            return
        if not issubclass(comes, row.takes):
            raise _cannot(name, (row.takes,), comes)
        comes = row.gives
    _check_end(comes, names)


def check_chain(yields: type, chain: Sequence[tuple[str, Task]]) -> None:
    """ConfigError unless each (name, task) takes what comes to it: `yields` from the source, then findings.

    A task that gives something else than a Finding says so in an attribute `gives`.
    """
    comes = yields
    for name, task in chain:
        if not any(issubclass(comes, kind) for kind in task.takes):
            raise _cannot(name, task.takes, comes)
        comes = getattr(task, "gives", Finding)
    _check_end(comes, [name for name, _ in chain])


def _check_end(comes: type, names: Sequence[str]) -> None:
    """ConfigError where the last of these tasks leaves samples that no event says."""
    if names and comes in (Frame, Audio):
        raise ConfigError(f'task "{names[-1]}" gives {_words(comes)}, which no event says; put a task behind it')


def fitting(yields: type) -> str:
    """What to do where a source yields this and no task is named."""
    rows = [(name, row) for name, row in TASKS.items() if row.takes is yields and row.gives not in (Frame, Audio)]
    names = [f"{name}:{row.default or 'MODEL'}" for name, row in rows]
    need = f"{_words(yields)} {'need' if yields is Frame else 'needs'} a task"
    return f'{need}; write tasks = ["{names[0]}"]' if names else f"{need}; name one of your own (theirpkg.module:attr)"


def _words(kind: type) -> str:
    """What people call a kind of sample, or of finding."""
    return str(getattr(kind, "words", "boxes" if kind is Detections else FOUND))


def _cannot(name: str, takes: Sequence[type], comes: type) -> ConfigError:
    """The error of a task to which something comes that it does not take."""
    wanted, given = " or ".join(map(_words, takes)), _words(comes) if comes is not Detections else FOUND
    names = " or ".join(task for task, row in TASKS.items() if row.takes is comes is not Detections)
    mend = f"change the source, or name a task that takes {given}: {names}" if names else "give it its own pipeline"
    verb = "come" if comes is Frame else "comes"
    return ConfigError(f'task "{name}" takes {wanted}, but {given} {verb} to it; {mend}')
