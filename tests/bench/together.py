"""Aim 6: a detector and a text encoder at work at once in one process, over two default sessions doing the same.

Both sides get the same job, frames and sentences, and the time is that until both are done. Theirs only calls
`session.run`, in two threads, on tensors that lie ready; ours does the whole of both tasks, as two pipelines of the
agent do it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import onnxruntime as ort

from edge_agent.serving.models import Models
from edge_agent.types import Frame, Text
from tests.bench.cost import default_run
from tests.bench.measure import Row, in_turns, ms, ratio
from tests.bench.setup import Place, again
from tests.bench.words import ONE, answer_all, exact, same_file, teams_of

FRAMES, SENTENCES = 8, 80


def rows(place: Place, quick: bool) -> Iterator[Row]:
    for name in place.here(("yolov8n", "yolox-nano")):
        sides = {"ours": _ours(place, name), "default": _default(place, name)}
        took = in_turns(sides, 5 if quick else 15, pause=0.1)
        yield Row(
            6,
            f"{name} and edge-bert at once / two default sessions",
            ratio(took["ours"].wall, took["default"].wall),
            target=0.65,
            ours=ms(took["ours"].wall),
            theirs=ms(took["default"].wall),
            note=f"{FRAMES} frames and {SENTENCES} sentences; CPU {ratio(took['ours'].cpu, took['default'].cpu):.2f}",
        )


def _ours(place: Place, name: str) -> Callable[[], int]:
    """Two pipelines as `run` makes them of what waits, frames of a file and lines: with the forms that this device made
    of the models, as many samples at once as was measured to be best, one lane for all of it.
    """
    models = Models(race=True)
    shown, said = again(place.frames()), place.sentences(SENTENCES)

    seers = teams_of(models, f"detect:{place.registered(name)}", Frame)
    readers = teams_of(models, f"embed:{same_file()}", Text)

    def see() -> None:
        answer_all(seers, [next(shown) for _ in range(FRAMES)])

    def read() -> None:
        answer_all(readers, [Text(text, time.time(), time.monotonic()) for text in said])

    return lambda: _both(see, read)


def _default(place: Place, name: str) -> Callable[[], int]:
    detector, picture = default_run(place, name)
    encoder = ort.InferenceSession(str(same_file() / ONE), providers=["CPUExecutionProvider"])
    feeds = exact(encoder, place.sentences(SENTENCES))

    def see() -> None:
        for _ in range(FRAMES):
            detector.run(None, picture)

    def read() -> None:
        for feed in feeds:
            encoder.run(None, feed)

    return lambda: _both(see, read)


def _both(*jobs: Callable[[], None]) -> int:
    threads = [threading.Thread(target=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return 1
