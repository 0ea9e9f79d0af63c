"""A neighbour that looks, too: asked when it helps, believed within bounds, left alone when it hangs, lies, leaves."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import numpy as np
import pytest

from edge_agent.tasks.detect.also import FIRST_S, Also, Reply
from edge_agent.types import Detections, Finding, Frame, ModelRef
from tests.broker import until

NAMES = {0: "person", 2: "car"}


class Local(msgspec.Struct):
    """A detector that finds a person."""

    found: float = 0.9
    takes_s: float = 0.0
    score: float = 0.3
    low: float = 1.0
    limit: int = 10
    looks: int = 0
    names: dict[int, str] = msgspec.field(default_factory=lambda: dict(NAMES))
    gives_names: list[str] = msgspec.field(default_factory=lambda: ["person"])
    takes: tuple[type, ...] = (Frame,)

    def __call__(self, item: Frame) -> Iterator[Finding]:
        self.looks += 1
        time.sleep(self.takes_s)
        what = Detections(
            np.array([[1, 1, 9, 9]], np.float32), np.array([self.found], np.float32), np.zeros(1, np.int32), NAMES, 0.3
        )
        yield Finding(item, what, ModelRef("local", "1", ""))


def says(*boxes: tuple[str, float, list[float]], outputs: Any = None) -> bytes:
    """An answer as `edge-agent serve` gives it."""
    found = {"detections": [{"label": label, "class_id": 0, "score": score, "box": box} for label, score, box in boxes]}
    rows = (
        [{"name": "found", "datatype": "BYTES", "shape": [1], "data": [json.dumps(found)]}]
        if outputs is None
        else outputs
    )
    return json.dumps({"model_name": "big", "model_version": "7", "outputs": rows}).encode()


GOOD = says(("person", 0.8, [2, 2, 30, 40]), ("car", 0.7, [5, 5, 20, 20]))


def also(send: Callable[[bytes, int, float], Reply], local: Local | None = None, s: float = 60.0, **given: Any) -> Also:
    return Also(local or Local(), "http://n:1", s, send, **given)


def frame() -> Frame:
    return Frame(np.zeros((48, 64, 3), np.uint8), time.time(), time.monotonic())


def ask(task: Also) -> Finding:
    (found,) = task(frame())
    return found


def test_who_answered_is_said_and_only_what_is_asked_for_counts() -> None:
    sent: list[tuple[bytes, int]] = []

    def send(body: bytes, head: int, limit: float) -> Reply:
        sent.append((body, head))
        return Reply(GOOD)

    task = also(send)
    found = ask(task)
    assert found.model == ModelRef("big", "7", "", "answered by http://n:1") and task.answered == 1
    assert isinstance(found.what, Detections) and found.what.label.tolist() == [0] and found.what.sure == 0.3
    ((body, head),) = sent
    asked = json.loads(body[:head])
    assert asked["inputs"][0]["parameters"]["binary_data_size"] == len(body) - head
    assert body[head + 4 : head + 6] == b"\xff\xd8" and asked["parameters"]["score"] == "0.3"
    assert ask(task).model.name == "local" and len(sent) == 1, "it was timed, and nothing is late"


def test_it_looks_where_this_device_would_be_late_or_is_to_do_less_or_was_unsure() -> None:
    slow = Local(takes_s=0.05)
    task = also(lambda *_: Reply(GOOD), slow)
    assert ask(task).model.name == "big" and ask(task).model.name == "local" and slow.looks == 1
    task.late = 0.04
    assert ask(task).model.name == "big" and slow.looks == 1
    task.late = 10.0
    assert ask(task).model.name == "local"
    task.urged = lambda: True
    assert ask(task).model.name == "big"
    task = also(lambda *_: Reply(GOOD), Local(found=0.35), asked=time.monotonic())
    assert ask(task).model.name == "big", "it was unsure"
    assert ask(task).model.name == "local", "once a second at most"


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"<html>", "JSON"),
        (says(("unicorn", 0.9, [1, 1, 2, 2])), "no label here"),
        (says(("person", 0.9, [1, 1, 2000, 2])), "do not lie in the picture"),
        (says(("person", 0.9, [9, 9, 2, 2])), "do not lie in the picture"),
        (says(("person", 9.0, [1, 1, 2, 2])), "do not lie in the picture"),
        (says(outputs=[]), "found"),
        (says(outputs=[{"name": "found", "data": [[1, 2]]}]), "str"),
        (says(("person", 0.9, [1, 1, 2])), "length 4"),
        (b"", "whole"),
    ],
)
def test_what_cannot_be_an_answer_is_none(body: bytes, why: str) -> None:
    task = also(lambda *_: Reply(body, "" if body else "no whole answer in time"))
    assert ask(task).model.name == "local" and task.fails == 1 and why in task.trouble
    assert task.until > time.monotonic() + FIRST_S / 2 and ask(task).model.name == "local" and task.fails == 1


def test_one_that_hangs_costs_its_time_once_and_is_left_alone_for_longer_and_longer() -> None:
    free, calls = threading.Event(), list[float]()

    def hang(body: bytes, head: int, limit: float) -> Reply:
        calls.append(limit)
        free.wait(120)
        return Reply(GOOD)

    task = also(hang, s=0.3)
    try:
        assert ask(task).model.name == "local" and "no answer within 300 ms" in task.trouble
        pauses = []
        for _ in range(3):
            task.until, task.asked = 0.0, -100.0
            assert ask(task).model.name == "local" and len(calls) == 1, "the first question is still out"
        free.set()
        until(lambda: not task.busy.is_set(), "it has come to its end")
        task.wait = 60.0
        task.send = lambda *_: Reply(b"")
        for _ in range(3):
            task.until, task.asked = 0.0, -100.0
            ask(task)
            pauses.append(task.until - time.monotonic())
        assert pauses == sorted(pauses) and pauses[-1] > 3 * FIRST_S
        task.until, task.asked, task.send = 0.0, -100.0, lambda *_: Reply(GOOD)
        assert ask(task).model.name == "big" and task.fails == 0 and not task.trouble
    finally:
        free.set()


def test_no_byte_goes_out_that_the_day_does_not_have() -> None:
    sizes: list[int] = []

    def may(size: int) -> bool:
        sizes.append(size)
        return False

    task = also(lambda *_: pytest.fail("nothing may be sent"), may=may)
    assert ask(task).model.name == "local" and sizes[0] > 300 and not task.fails
    fresh = also(lambda *_: Reply(GOOD))
    fresh.take_over(task)
    assert fresh.may is may


def test_a_detector_without_a_way_out_is_itself() -> None:
    task = Also(Local(), "http://n:1", 0.3)
    assert ask(task).model.name == "local" and task.score == 0.3 and task.gives_names == ["person"]
