"""How a model of taught states proves itself."""

from __future__ import annotations

import numpy as np

from edge_agent.errors import EdgeAgentError, RefusedError
from edge_agent.figures.scores import pearson
from edge_agent.manifest import Served
from edge_agent.samples.carried import frames
from edge_agent.tasks.proofs import Recorder, constant
from edge_agent.tasks.state.head import StateHead
from edge_agent.tasks.state.state import head_of, reader_of

PROBE = "coffee.png"
"""the carried picture of which the head knows the features"""
ALIKE = 0.98
"""correlation with them that the network has to reach"""
OWN = 0.8
"""share of the examples in it that a head has to name as they are meant"""


def prove(model: Served, seen: Recorder) -> list[str]:
    """Whether the network gives what the head was fitted on, and the head knows its own examples. Notes; RefusedError
    where not.
    """
    head, read = head_of(model), reader_of(model)
    shown = frames()
    seen.outputs.clear()
    try:
        features = {name: read(frame.image) for name, frame in shown.items()}
    except EdgeAgentError as error:
        raise RefusedError(f"on a proof picture: {error}") from None
    if constant(seen):
        raise RefusedError("it gives the same output for three different pictures and for noise")
    found = features[PROBE]
    if found.shape != head.probe.shape:
        raise RefusedError(f"the network gives {len(found)} features, its head is for {len(head.probe)}")
    alike = pearson(*(((one - head.centre) / head.unit).astype(np.float64) for one in (found, head.probe)))
    if not alike >= ALIKE:
        told = f"correlation {alike:.3f}, at least {ALIKE} is asked for"
        raise RefusedError(f"on {PROBE} it gives other features than where it was taught: {told}; teach it anew")
    own = known(head)
    if own < OWN:
        raise RefusedError(f"its head names {own:.0%} of its own examples right, at least {OWN:.0%} is asked for")
    strange = sum(max(scores := head(one), key=scores.__getitem__) == "unknown" for one in features.values())
    told = f"features of {PROBE} as where it was taught (correlation {alike:.4f})"
    return [f"{told}; {own:.0%} of its examples right; {strange} of {len(features)} proof pictures unknown"]


def known(head: StateHead) -> float:
    """Share of the examples in a head that it names as they are meant."""
    said = (head.examples @ head.weight + head.bias).argmax(1)
    return float((said == head.which).mean())
