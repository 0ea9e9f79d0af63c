"""Aim 6: a detector and a text encoder at work at once in one process, over two default sessions doing the same.

Both sides get the same job, frames and sentences in two threads, and the time is that until both are done. Theirs only
calls `session.run` on tensors that lie ready; ours does the whole of both tasks.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import onnxruntime as ort

from edge_agent.registry import home
from edge_agent.serving import Models
from edge_agent.tasks import make_task
from edge_agent.types import Text, Uri
from tests.bench.cost import default_run
from tests.bench.measure import Row, in_turns, ms, ratio
from tests.bench.setup import Place, again
from tests.bench.words import ONE, exact, same_file

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
    models = Models()
    detect = make_task(Uri("detect", place.registered(name)), models.serve, home())
    embed = make_task(Uri("embed", str(same_file())), models.serve, home())
    shown, said = again(place.frames()), place.sentences(SENTENCES)

    def see() -> None:
        for _ in range(FRAMES):
            list(detect(next(shown)))

    def read() -> None:
        for text in said:
            list(embed(Text(text, time.time(), time.monotonic())))

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
