"""``replay:FOLDER``: the samples of a recording that `edge-agent record` or `[samples] record` made, once more.

Options: ``pipeline=NAME``, of the one of that name there; ``pace=own`` as fast as they came then (else as fast as they
are taken).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

from edge_agent.errors import ConfigError, InputError, SourceError, nearest
from edge_agent.sources import Here, Opened
from edge_agent.types import Audio, Frame, Sample, StreamState, Text
from edge_agent.uri import Uri, choice, option
from edge_agent.walk import recording

KNOWN = {"pipeline": "", "pace": ""}
KINDS: dict[str, type[Frame] | type[Text] | type[Audio]] = {"Frame": Frame, "Text": Text, "Audio": Audio}


def replay(uri: Uri, here: Here) -> Opened:
    """Bind it. SourceError where that is no recording, ConfigError for a pipeline that is not in it."""
    folder, name, own = (
        Path(uri.rest),
        option(uri, KNOWN, "pipeline"),
        choice(uri, KNOWN, "pace", ("", "own")) == "own",
    )
    try:
        head = recording.read_head(folder)
    except InputError as error:
        raise SourceError(str(error)) from None
    names = list(head.pipes)
    if not name and len(names) == 1:
        name = names[0]
    if name not in names:
        raise ConfigError(
            f'"{uri}": pipeline={name}: there are {", ".join(names)}{nearest(name, names) if name else ""}'
        )
    return Opened(lambda stop: _samples(folder, name, own, stop), KINDS[head.pipes[name].yields], live=False)


def _samples(folder: Path, name: str, own: bool, stop: threading.Event) -> Iterator[Sample | StreamState]:
    """Those of a pipeline. SourceError for what is damaged."""
    later: float | None = None
    try:
        for row in recording.rows(folder):
            if row.pipeline != name:
                continue
            later = round(time.monotonic() - row.mono) if later is None else later
            if stop.is_set() or (own and stop.wait(max(0.0, row.mono + later - time.monotonic()))):
                return
            if row.sample is not None:
                yield recording.sample_of(folder, row.sample, later)
            elif row.state is not None:
                yield row.state
    except InputError as error:
        raise SourceError(str(error)) from None
