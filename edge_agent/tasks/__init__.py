"""A sample becomes findings: detect, recognise, understand, anomaly, transcribe.

One row a task (table.py), which names all there is of it; what stands behind it is imported when it is first needed.
Somebody else's task is written as ``theirpkg.module:attr:MODEL`` and made by a function of the same signature.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_agent.errors import ConfigError, EdgeAgentError, nearest
from edge_agent.manifest import Served
from edge_agent.tasks.table import MEANT as MEANT
from edge_agent.tasks.table import PLAIN as PLAIN
from edge_agent.tasks.table import TASKS as TASKS
from edge_agent.tasks.table import TaskRow as TaskRow
from edge_agent.types import Frame, Task
from edge_agent.uri import Uri

log = logging.getLogger("edge_agent")

ASIDE = {
    purpose: TaskRow(
        make="",
        gives=Frame,
        purpose=purpose,
        prove="edge_agent.tasks.aside:prove",
        compare="edge_agent.tasks.aside:compare",
    )
    for purpose in ("draw", "clear")
}
"""what a model is for that no stream runs on -> how it proves itself"""


def row_of(model: Served) -> TaskRow:
    """The row of the task that needs nothing but this model, or of what it does where no stream runs on it."""
    purpose = model.manifest.task
    return ASIDE[purpose] if purpose in ASIDE else TASKS[PLAIN[purpose]]


def plain(model: Served) -> str:
    """The task that needs nothing but this model. ConfigError where no stream runs on it."""
    purpose = model.manifest.task
    if purpose in ASIDE:
        raise ConfigError(f"{model.ref.name}: no stream runs on it, as its task is {purpose}")
    return PLAIN[purpose]


def found_at(place: str) -> Any:
    """What "module:attr" names. ImportError or AttributeError where there is no such thing."""
    module, _, attr = place.partition(":")
    return getattr(importlib.import_module(module), attr)


def make_task(uri: Uri, serve: Callable[[str], Served], home: Path) -> Task:
    """Make the task that `uri` names (scheme) on the model that it names (rest), which `serve` gives.

    `home` is the folder for what a task stores. Somebody else's task that names no model is given None for it.
    Raises ConfigError for an unknown task or option, and what `serve` and the task raise about the model.
    """
    if ":" in uri.scheme:
        return _theirs(uri, serve, home)
    if uri.scheme not in TASKS:
        raise ConfigError(f'"{uri}": unknown task "{uri.scheme}"{nearest(uri.scheme, TASKS, MEANT)}')
    row = TASKS[uri.scheme]
    name = uri.rest or row.default
    if row.needs and not name:
        raise ConfigError(f'"{uri}": which model? write "{uri.scheme}:MODEL"')
    more = (serve,) if row.asks else ()
    task: Task = found_at(row.make)(uri, serve(name) if row.needs and name not in row.own else None, home, *more)
    return task


def _theirs(uri: Uri, serve: Callable[[str], Served], home: Path) -> Task:
    """Make somebody else's task."""
    try:
        make = found_at(uri.scheme)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f'"{uri}": task {uri.scheme} cannot be imported ({error}); is it installed?') from None
    model = serve(uri.rest) if uri.rest else None
    try:
        task: Task = make(uri, model, home)
    except EdgeAgentError:
        raise
    except Exception as error:
        log.debug("", exc_info=True)
        told = f"{type(error).__name__}: {error}"
        raise ConfigError(f'"{uri}": task {uri.scheme} fails: {told}; ask those who made it') from None
    return task
