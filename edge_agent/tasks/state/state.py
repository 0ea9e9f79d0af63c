"""``state:MODEL?hold=3&score=0.6``: a Frame -> which of the states that it was taught a part of it is in.

The state that is told changes once `hold` frames in a row are in another one; of pictures that are no film each stands
for itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edge_agent.errors import ConfigError, InputError, ManifestError, ModelError
from edge_agent.manifest import Served
from edge_agent.tasks.state.features import cut, reader
from edge_agent.tasks.state.head import UNKNOWN, StateHead, unpacked
from edge_agent.types import Finding, Floats, Frame, Pixels, Scores, Task
from edge_agent.uri import Uri, number, whole

OPTIONS = {"score": "", "hold": "3"}
"""score: probability from which on a state is told, defaults to the manifest's"""
HEAD = "head"
"""role of the file that the head is in"""
FAMILY = "state"


@dataclass(slots=True)
class State:
    """The task. Of one camera and one thread."""

    model: Served
    head: StateHead
    read: Callable[[Pixels], Floats]
    score: float
    hold: int
    told: str = ""
    """the state that is told; empty at first"""
    coming: str = ""
    """another one that it is in since `since` frames"""
    since: int = 0
    takes: tuple[type, ...] = (Frame,)

    @property
    def gives_names(self) -> list[str]:
        """The labels that it may give."""
        return [*self.head.labels, UNKNOWN]

    def __call__(self, item: Frame) -> Iterator[Finding]:
        """One Finding a Frame, none before the first state has held. InputError for a bad result."""
        began = time.perf_counter()
        try:
            features = self.read(cut(item.image, self.head.region))
        except InputError as error:
            named = f"{item.name}: " if item.name else ""
            raise InputError(f"{self.model.ref.name}: {named}{error}") from None
        inferred = time.perf_counter()
        scores = dict(sorted(self.head(features).items(), key=lambda pair: -pair[1]))
        label = next(iter(scores))
        label = label if scores[label] >= self.score else UNKNOWN
        if item.played is not None or not item.name:
            label = self._held(label)
        spent = {
            "decode": item.decode_ms,
            "infer": (inferred - began) * 1e3,
            "finish": (time.perf_counter() - inferred) * 1e3,
        }
        if label:
            yield Finding(item, Scores(label, scores[label], scores), self.model.ref, spent)

    def _held(self, label: str) -> str:
        """The state that is told now that a frame is in this one."""
        self.since = self.since + 1 if label == self.coming else 1
        self.coming = label
        if self.since >= self.hold:
            self.told = label
        return self.told

    def take_over(self, before: object) -> None:
        """Go on from what the same task told on the model before."""
        if isinstance(before, State) and before.told in (*self.head.labels, UNKNOWN):
            self.told, self.coming, self.since = before.told, before.coming, before.since


def state(uri: Uri, model: Served, home: Path) -> Task:
    """Make the task. ConfigError for its options, ManifestError or RefusedError for a model that was not taught so."""
    score = number(uri, OPTIONS, "score", 0, 1) if "score" in uri.options else model.manifest.score
    hold = whole(uri, OPTIONS, "hold", 1, 1000)
    return State(model, head_of(model, uri), reader_of(model), score, hold)


def head_of(model: Served, uri: Uri | str = "state") -> StateHead:
    """The head of a model, which is right for its network. Raises as `state` does."""
    manifest = model.manifest
    if manifest.task != "state" or model.input is None:
        raise ConfigError(f'"{uri}": {manifest.name} was taught no states (its task is {manifest.task})')
    if manifest.family != FAMILY:
        raise ManifestError(f'{manifest.name}: unknown family "{manifest.family}"; known is {FAMILY}')
    try:
        with model.part(HEAD) as path:
            head = unpacked(path.read_bytes())
    except KeyError:
        raise ManifestError(f'{manifest.name}: no [[file]] of role "{HEAD}"') from None
    except ModelError as error:
        raise type(error)(f"{manifest.name}: {error}") from None
    if list(head.labels) != manifest.labels:
        raise ManifestError(f"{manifest.name}: its labels are not those of its head")
    return head


def reader_of(model: Served) -> Callable[[Pixels], Floats]:
    """A function from a picture to its features."""
    assert model.input is not None
    try:
        return reader(model.net, model.input)
    except ModelError as error:
        raise type(error)(f"{model.manifest.name}: {error}") from None
