"""The first sample of a pipeline's source, taken to see that one comes."""

from __future__ import annotations

import threading
import time

import msgspec

from edge_agent.agent.line import Line
from edge_agent.errors import EdgeAgentError
from edge_agent.types import Audio, Sample, StreamState, Text
from edge_agent.uri import parse_uri

FIRST_S = 20.0
"""seconds that a source has for its first picture when it is tried"""
SOUND_S = 1.0
"""seconds of sound whose level is said when it is tried"""


def first_sample(line: Line) -> tuple[bool | None, str]:
    """Whether a sample comes from its source within FIRST_S, and a line about it. None for a source of text: what is
    read there is not read again.
    """
    if line.opened.yields is Text:
        uri = parse_uri(line.config.source)
        return None, f"{line.config.name}: no text is taken from {uri.scheme}, as it would be gone"
    stop, said, of = threading.Event(), ["nothing comes"], [""]
    found: list[Sample] = []
    began = time.monotonic()

    def read() -> None:
        try:
            for item in line.opened.run(stop):
                if not isinstance(item, StreamState):
                    found.append(item)
                elif item.condition != "ok":
                    said.append(f"{item.condition}{item.why and f': {item.why}'}")
                else:
                    of.append(item.why and f" from {item.why},")
                if _enough(found):
                    break
        except EdgeAgentError as error:
            said.append(str(error))
        finally:
            ended.set()

    ended = threading.Event()
    reader = threading.Thread(target=read, name="first", daemon=True)
    reader.start()
    ended.wait(FIRST_S)
    stop.set()
    reader.join(FIRST_S)
    took = time.monotonic() - began
    if not found:
        what = line.opened.yields.words.removesuffix("s")
        return False, f"{line.config.name}: no {what} within {took:.0f} s: {said[-1]}"
    return True, f"{line.config.name}: {_joined(found).described()}{of[-1]} after {took:.1f} s"


def _enough(found: list[Sample]) -> bool:
    """A picture, or SOUND_S seconds of sound."""
    parts = [one for one in found if isinstance(one, Audio)]
    if not parts:
        return bool(found)
    return parts[-1].last or sum(len(one.samples) for one in parts) >= SOUND_S * parts[0].rate


def _joined(found: list[Sample]) -> Sample:
    """The first picture, or the sound that came."""
    parts = [one.samples for one in found if isinstance(one, Audio)]
    if not parts:
        return found[0]
    import numpy as np

    return msgspec.structs.replace(found[0], samples=np.concatenate(parts))
