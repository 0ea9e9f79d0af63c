"""``similar:MODEL?store=NAME``: the stored sentences that are most like a text.

``add=yes`` stores each text, too, once it was looked for. Who keeps a store by hand uses `edge-agent understand`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_agent.errors import ConfigError
from edge_agent.events.understood import Near, Similar
from edge_agent.manifest import Served
from edge_agent.tasks.text.encoder import Encoder, encoder
from edge_agent.tasks.text.store import Store, store_of
from edge_agent.types import Finding, Floats, Task, Text
from edge_agent.uri import Uri, number, option

TOP = 5


@dataclass(slots=True)
class Finder:
    """The task ``similar``."""

    encoder: Encoder
    store: Store
    top: int = TOP
    adds: bool = False
    takes: tuple[type, ...] = (Text,)

    def __call__(self, item: Text) -> Iterator[Finding]:
        """One Finding with what is like the text. InputError for a text with nothing to read."""
        began = time.perf_counter()
        vector = self.vectors([item.text])
        read = time.perf_counter()
        near = tuple(Near(text, round(score, 4)) for score, text in self.store.nearest(vector[0], self.top))
        spent = {"infer": (read - began) * 1e3, "finish": (time.perf_counter() - read) * 1e3}
        yield Finding(item, Similar(near, self.store.folder.name, self.store.count), self.encoder.model.ref, spent)
        if self.adds:
            self.store.add([item.text], vector)

    def vectors(self, texts: Sequence[str]) -> Floats:
        """(n, d) of length 1."""
        found = self.encoder.embed_many(texts)
        unit: Floats = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
        return unit


def similar(uri: Uri, model: Served, home: Path) -> Task:
    """Make the task. ConfigError for its options, or a store of another model; ManifestError for what is no encoder."""
    known = {"store": "", "top": str(TOP), "add": "no"}
    name, adds = option(uri, known, "store"), option(uri, known, "add")
    if not name:
        raise ConfigError(f'"{uri}": which store? write "similar:{uri.rest}?store=NAME"')
    if adds not in ("yes", "no"):
        raise ConfigError(f'"{uri}": add={adds}; write add=yes to store each text, or add=no')
    origin = model.manifest.original()
    store = store_of(home, name, f"{model.manifest.name} {model.manifest.version}", origin.sha256)
    made = Finder(encoder(model), store, int(number(uri, known, "top", 1, 1000)), adds == "yes")
    made.store.count  # noqa: B018  an error in it is said now, and not with the first text
    return made
