"""A sample becomes findings: detect, recognise, understand, anomaly.

One row a task; the module behind it is imported when a config first names it. Somebody else's task is written as
``theirpkg.module:attr:MODEL`` and made by a function of the same signature.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edge_agent.errors import ConfigError, EdgeAgentError, nearest
from edge_agent.manifest import Served
from edge_agent.types import Finding, Frame, Task, Text
from edge_agent.uri import Uri

log = logging.getLogger("edge_agent")

TASKS = {
    "detect": "edge_agent.tasks.detect.detect:detect",
    "embed": "edge_agent.tasks.text.understand:embed",
    "classify": "edge_agent.tasks.text.understand:classify",
    "tag": "edge_agent.tasks.text.texthead:tag",
    "recognise": "edge_agent.tasks.recognise.recognise:recognise",
    "anomaly": "edge_agent.tasks.anomaly.anomaly:anomaly",
}
"""task -> "module:attr" of a function (uri, model, home) -> Task"""

PLAIN = {
    "detect": "detect",
    "encode": "embed",
    "classify": "classify",
    "tag": "tag",
    "recognise": "recognise",
    "anomaly": "anomaly",
}
"""what a model's manifest says it is for -> the task that needs nothing but the model"""

MODELS = {"detect": "detector", "embed": "encoder", "classify": "encoder"}
"""the model of a task that names none; the others have to name one"""

MEANT = {
    **dict.fromkeys(("yolo", "find", "objects"), "detect"),
    **dict.fromkeys(("ner", "entities", "spans", "slots"), "tag"),
    **dict.fromkeys(("intent", "intents", "understand", "bert"), "classify"),
    **dict.fromkeys(("vector", "encode", "encoder"), "embed"),
    **dict.fromkeys(("image", "label"), "recognise"),
}
"""what people call a task -> what it is called here"""
TAKES: dict[str, type] = {"detect": Frame, "recognise": Frame, "embed": Text, "classify": Text, "tag": Text}
"""what a task takes, where that does not hang on its model"""
WORDS: dict[type, str] = {Frame: "pictures", Text: "text", Finding: "what a task before it found"}
"""what a kind of sample is called"""


def make_task(uri: Uri, serve: Callable[[str], Served], home: Path) -> Task:
    """Make the task that `uri` names (scheme) on the model that it names (rest), which `serve` gives.

    `home` is the folder for what a task stores. Somebody else's task that names no model is given None for it.
    Raises ConfigError for an unknown task or option, and what `serve` and the task raise about the model.
    """
    theirs = ":" in uri.scheme
    if not theirs and uri.scheme not in TASKS:
        raise ConfigError(f'"{uri}": unknown task "{uri.scheme}"{nearest(uri.scheme, TASKS, MEANT)}')
    module, _, attr = (uri.scheme if theirs else TASKS[uri.scheme]).partition(":")
    try:
        make: Callable[[Uri, Any, Path], Task] = getattr(importlib.import_module(module), attr)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f'"{uri}": task {module}:{attr} cannot be imported ({error}); is it installed?') from None
    name = uri.rest or MODELS.get(uri.scheme, "")
    if not name and not theirs:
        raise ConfigError(f'"{uri}": which model? write "{uri.scheme}:MODEL"')
    model = serve(name) if name else None
    try:
        return make(uri, model, home)
    except EdgeAgentError:
        raise
    except Exception as error:
        if not theirs:
            raise
        log.debug("", exc_info=True)
        told = f"{type(error).__name__}: {error}"
        raise ConfigError(f'"{uri}": task {module}:{attr} fails: {told}; ask those who made it') from None


def check_order(yields: type, names: Sequence[str]) -> None:
    """As `check_chain`, by the names of the tasks alone: before their models are looked for."""
    comes = yields
    for name in names:
        if name not in TAKES:
            return
        if not issubclass(comes, TAKES[name]):
            raise _cannot(name, (TAKES[name],), comes)
        comes = Finding


def check_chain(yields: type, chain: Sequence[tuple[str, Task]]) -> None:
    """ConfigError unless each (name, task) takes what comes to it: `yields` from the source, then findings.

    A task that gives something else than a Finding says so in an attribute `gives`.
    """
    comes = yields
    for name, task in chain:
        if not any(issubclass(comes, kind) for kind in task.takes):
            raise _cannot(name, task.takes, comes)
        comes = getattr(task, "gives", Finding)


def _cannot(name: str, takes: Sequence[type], comes: type) -> ConfigError:
    """The error of a task to which something comes that it does not take."""
    wanted = " or ".join(WORDS.get(kind, kind.__name__) for kind in takes)
    given = WORDS.get(comes, comes.__name__)
    fitting = " or ".join(task for task, kind in TAKES.items() if kind is comes)
    mend = f"change the source, or name a task that takes {given}: {fitting}" if fitting else "give it its own pipeline"
    verb = "come" if comes is Frame else "comes"
    return ConfigError(f'task "{name}" takes {wanted}, but {given} {verb} to it; {mend}')
