"""How a reader of text proves itself."""

from __future__ import annotations

import numpy as np

from edge_agent.errors import EdgeAgentError, RefusedError
from edge_agent.figures.words import errors
from edge_agent.manifest import Served
from edge_agent.paths import home
from edge_agent.samples.carried import NOTICE, notice
from edge_agent.tasks import make_task
from edge_agent.tasks.proofs import Recorder
from edge_agent.types import Frame, Text
from edge_agent.uri import Uri

MOST_WRONG = 0.25
"""share of the characters of the carried picture that may be wrong"""


def prove(model: Served, seen: Recorder) -> list[str]:
    """Run it on what it is for. Notes on what it says; RefusedError where that makes no sense."""
    shown = notice()
    said = texts(model, shown)
    wrong = errors("".join(NOTICE), "".join(said)) / len("".join(NOTICE))
    told = "; ".join(said[:4]) or "nothing"
    blank = Frame(np.full_like(shown.image, 200), shown.at, shown.mono)
    if more := texts(model, blank):
        raise RefusedError(f'it reads "{more[0][:40]}" in a picture of one grey')
    if wrong > MOST_WRONG:
        raise RefusedError(
            f"of the carried picture of English text it reads {told}: {wrong:.0%} of its characters are wrong; its "
            "input under [input] is prepared wrongly, it reads another script, or the file is broken"
        )
    return [f"{shown.name or 'the carried picture'}: {told}; {wrong:.1%} of its characters wrong"]


def texts(model: Served, frame: Frame) -> list[str]:
    """The lines that it surely reads, in reading order. RefusedError where it fails."""
    task = make_task(Uri("read", model.ref.name, {"unsure": "no"}), lambda _: model, home())
    try:
        return [line.text for line in task(frame) if isinstance(line, Text)]
    except EdgeAgentError as error:
        raise RefusedError(f"on the carried picture of text: {error}") from None
