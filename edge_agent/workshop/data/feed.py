"""What the task that serves a model gives to its network for a sample."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from edge_agent.manifest import Served
from edge_agent.paths import home
from edge_agent.tasks import make_task, plain
from edge_agent.types import Frame, Task, Tensors, Text
from edge_agent.uri import Uri

Item = Frame | Text
"""a sample"""


class _Seen(Exception):
    """The network's input is known; nothing more is wanted."""


def feeder(parent: Served) -> Callable[[Item], dict[str, npt.NDArray[Any]]]:
    """A function from a sample to what the task gives to the network. It raises InputError as the task does."""
    seen: dict[str, npt.NDArray[Any]] = {}
    made = False

    def run(tensors: Tensors) -> dict[str, Any]:
        # a task may try the network when it is made
        if not made:
            return parent.net.run(tensors)
        seen.update({name: np.array(tensor) for name, tensor in tensors.items()})
        raise _Seen

    task = served_by(msgspec.structs.replace(parent, net=msgspec.structs.replace(parent.net, run=run)))
    made = True

    def feed(item: Item) -> dict[str, npt.NDArray[Any]]:
        seen.clear()
        with contextlib.suppress(_Seen):
            for _ in task(item):
                pass
        return dict(seen)

    return feed


def served_by(model: Served, options: Mapping[str, str] | None = None) -> Task:
    """The task that serves a model of this kind."""
    return make_task(Uri(plain(model), model.ref.name, options or {}), lambda _: model, home())
