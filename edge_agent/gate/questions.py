"""What is asked of a model in the child process in which it is tried (gate/child.py; see gate/ask.py).

Detectors are shown the pictures that the program carries (a person, a cat, a cup) and noise, encoders some sentences.
"""

from __future__ import annotations

from pathlib import Path

from edge_agent.backends import open_net
from edge_agent.errors import EdgeAgentError
from edge_agent.gate.opened import bounded, open_served, peak_rss
from edge_agent.gate.trial import Result, Trial
from edge_agent.tasks import found_at, row_of
from edge_agent.tasks.proofs import Recorder


def asked(trial: Trial) -> Result:
    """Do what the trial asks for; what is wrong with the model stands in the Result."""
    try:
        return _asked(trial)
    except EdgeAgentError as error:
        return Result(False, " ".join(str(error).split()))
    except MemoryError:
        return Result(False, f"it needs more than {trial.limits.memory >> 20} MB of memory")


def _asked(trial: Trial) -> Result:
    if trial.what == "agree":
        from edge_agent.gate.agree import agree

        return agree(trial)
    if trial.what == "heads":
        from edge_agent.gate.heads import agree_heads

        return agree_heads(trial)
    if trial.what == "race":
        from edge_agent.gate.race import race

        return race(trial)
    if trial.what == "derive":
        from edge_agent.gate.derive import derive

        return derive(trial)
    return prove(trial) if trial.what == "prove" else load(trial)


def load(trial: Trial) -> Result:
    """Only open the file, of which nothing is known yet, and say what it declares; with "read" what it is, too."""
    from edge_agent.gate.read import declared, held

    (variant,) = trial.variants
    net = open_net(Path(variant.path), variant.file.format, trial.threads)
    bounded(net)
    return held(trial, net) if trial.what == "read" else Result(True, figures=declared(net))


def prove(trial: Trial) -> Result:
    """Run a model on what it is made for and look at what comes out. RefusedError when it makes no sense."""
    assert trial.manifest is not None
    (variant,) = trial.variants
    seen = Recorder()
    model = open_served(trial.manifest, variant, trial.parts, trial.threads, seen)

    notes: list[str] = found_at(row_of(model).prove)(model, seen)
    return Result(True, notes=notes, figures={"engine": model.net.engine, "peak_rss": peak_rss()})
