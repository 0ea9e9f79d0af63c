"""What a model of any kind is shown while it is timed."""

from __future__ import annotations

from edge_agent.manifest import Served
from edge_agent.samples.carried import SENTENCES, frames, notice, text
from edge_agent.samples.sounds import voices
from edge_agent.tasks import row_of
from edge_agent.tasks.anomaly.proof import windows
from edge_agent.types import Audio, Sample


def some(model: Served) -> list[Sample]:
    """A few samples of what the model takes."""
    if model.input is not None:
        shown = frames() if model.manifest.task != "read" else {"notice": notice()}
        return [frame for name, frame in shown.items() if name != "noise"]
    if model.manifest.text is not None:
        mask = " [MASK]" if model.manifest.task == "fill" else ""
        return [text(sentence + mask) for pair in SENTENCES for sentence in pair]
    if row_of(model).takes is Audio:
        return voices()
    return list(windows(model)[:8])
