"""Does a model answer sanely? It is run on what it is made for; in the child of gate/ask.py.

Detectors are shown the pictures that the program carries (a person, a cat, a cup) and noise, encoders some sentences.
"""

from __future__ import annotations

from edge_agent.gate.opened import open_served, peak_rss
from edge_agent.gate.trial import Prove, Result
from edge_agent.tasks import found_at, row_of
from edge_agent.tasks.proofs import Recorder


def prove(question: Prove) -> Result:
    """Run a model on what it is made for and look at what comes out. RefusedError when it makes no sense."""
    (variant,) = question.variants
    seen = Recorder()
    model = open_served(question.manifest, variant, question.parts, question.threads, seen)
    notes: list[str] = found_at(row_of(model).prove)(model, seen)
    return Result(True, notes=notes, figures={"engine": model.net.engine, "peak_rss": peak_rss()})
