"""``also=http://neighbour:8484``: a detector that has a neighbour look, by the Open Inference Protocol, where it would
be late itself, where the governor asks for it, or where it was unsure.

A frame goes out as JPEG and boxes come back. The neighbour has `also_ms` for it; whatever it does then costs no more,
as it is left alone for a while. What it says is believed as far as boxes lie in the frame and labels are ones that this
detector knows. What sends, and what may be sent, is given where the pipeline is opened (agent/offload.py).
"""

from __future__ import annotations

import logging
import struct
import threading
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

import msgspec
import numpy as np

from edge_agent.errors import InputError
from edge_agent.pictures.draw import jpeg
from edge_agent.types import Detections, Finding, Floats, Frame, ModelRef

log = logging.getLogger("edge_agent")

QUALITY = 80
LATELY = 0.2
"""weight of the last answer among those that tell how long one takes"""
LATE_S = 0.3
"""age of an answer from which on it is late, where the pipeline has no deadline"""
PROBE_S, UNSURE_S = 60.0, 1.0
"""seconds between two looks at how long a neighbour takes, and between two frames that are unsure"""
UNSURE = 0.1
"""from the score from which on a box counts, within which a detector is unsure of it"""
FIRST_S, LONGEST_S = 2.0, 300.0
"""seconds for which a neighbour that failed is left alone: at first, and at most, twice as long each time"""
MOST = 1 << 20
"""bytes of an answer"""


class Reply(NamedTuple):
    """What came back."""

    body: bytes
    why: str = ""
    """there was none, in words"""


Send = Callable[[bytes, int, float], Reply]
"""a request, the length of the JSON in it, seconds -> what came back; never raises for what the other side does"""


class _Box(msgspec.Struct, frozen=True):
    label: str
    score: float
    box: tuple[float, float, float, float]


class _Found(msgspec.Struct, frozen=True):
    detections: list[_Box]


class _Output(msgspec.Struct, frozen=True):
    name: str
    data: list[str]


class _Answer(msgspec.Struct, frozen=True):
    model_name: str
    outputs: list[_Output]
    model_version: str = ""


class Also(msgspec.Struct):
    """The task: a detector, and a neighbour. One thread; what it asks, it asks on another one."""

    detector: Any
    """`Detector` or `Watched`"""
    whom: str
    """for people: host and port"""
    wait: float
    """seconds that the neighbour has"""
    send: Send | None = None
    may: Callable[[int], bool] = lambda size: True
    """whether so many bytes may be sent now; counts them if so"""
    urged: Callable[[], bool] = lambda: False
    """whether this device is to do less"""
    late: float = LATE_S
    answered: int = 0
    """frames, by the neighbour"""
    trouble: str = ""
    """why it is left alone, one line"""
    own_s: float = 0.0
    """that the detector takes, waiting for its turn included"""
    its_s: float = 0.0
    """that the neighbour takes; 0: not known"""
    fails: int = 0
    until: float = 0.0
    """it is left alone till then, monotonic"""
    asked: float = -PROBE_S
    doubted: float = -UNSURE_S
    busy: threading.Event = msgspec.field(default_factory=threading.Event)
    """an earlier question is still out"""
    takes: tuple[type, ...] = (Frame,)

    @property
    def model(self) -> Any:
        """The detector's."""
        return getattr(self.detector, "detector", self.detector).model

    @property
    def score(self) -> float:
        """The detector's."""
        return float(self.detector.score)

    @score.setter
    def score(self, value: float) -> None:
        self.detector.score = value

    @property
    def gives_names(self) -> list[str]:
        """The labels that its boxes may have."""
        names: list[str] = self.detector.gives_names
        return names

    def take_over(self, before: Any) -> None:
        """Go on with what the task whose place this one takes knew of the neighbour."""
        before = before if isinstance(before, Also) else getattr(before, "detector", None)
        if isinstance(before, Also) and before.whom == self.whom:
            for name in ("send", "may", "urged", "late", "its_s", "fails", "until", "trouble", "answered"):
                setattr(self, name, getattr(before, name))

    def __call__(self, item: Frame) -> Iterator[Finding]:
        """As of the detector; the finding's model says who answered."""
        began = time.monotonic()
        if self._is_free(began) and self._wants(item, began) and (found := self._ask(item)) is not None:
            yield found
            return
        began = time.monotonic()
        for own in self.detector(item):
            took = time.monotonic() - began
            self.own_s += (took - self.own_s) * (LATELY if self.own_s else 1.0)
            better = self._ask(item) if self._doubts(own, time.monotonic()) else None
            yield better or own

    # ── whether ──────────────────────────────────────────────────────────────────────────────────────────

    def _is_free(self, now: float) -> bool:
        return self.send is not None and now >= self.until and not self.busy.is_set()

    def _wants(self, item: Frame, now: float) -> bool:
        """Whether the neighbour is to look first: it is asked for, sooner than this device, or to be timed."""
        if self.urged() or now - self.asked >= PROBE_S:
            return True
        return bool(0 < self.its_s < self.own_s and now - item.mono + self.own_s > self.late)

    def _doubts(self, own: Finding, now: float) -> bool:
        """Whether it was unsure, and may ask about that now."""
        what = own.what
        assert isinstance(what, Detections)
        if not self._is_free(now) or now - self.doubted < UNSURE_S:
            return False
        if not bool((np.abs(what.score - what.sure) < UNSURE).any()):
            return False
        self.doubted = now
        return True

    # ── asking ───────────────────────────────────────────────────────────────────────────────────────────

    def _ask(self, item: Frame) -> Finding | None:
        """What the neighbour finds; None where it says nothing that counts in time, or nothing may be sent."""
        began = self.asked = time.monotonic()
        picture = jpeg(item.image, QUALITY)
        body, head = self._request(picture)
        if not self.may(len(body)):
            return None
        reply = self._reply(body, head)
        took = time.monotonic() - began
        try:
            if reply.why:
                raise InputError(reply.why)
            found = self._read(item, reply.body, took)
        except (InputError, msgspec.MsgspecError, ValueError) as error:
            self._failed(str(error))
            return None
        if self.fails:
            log.info("%s: answers again", self.whom)
        self.its_s += (took - self.its_s) * (LATELY if self.its_s else 1.0)
        self.fails, self.trouble, self.answered = 0, "", self.answered + 1
        return found

    def _reply(self, body: bytes, head: int) -> Reply:
        """From a thread that is left to itself once its time is over."""
        got: list[Reply] = []
        done, send, busy = threading.Event(), self.send, self.busy
        assert send is not None

        def work() -> None:
            try:
                got.append(send(body, head, self.wait))
            finally:
                busy.clear()
                done.set()

        busy.set()
        threading.Thread(target=work, name="neighbour", daemon=True).start()
        done.wait(self.wait)
        return got[0] if got else Reply(b"", f"no answer within {1000 * self.wait:.0f} ms")

    def _request(self, picture: bytes) -> tuple[bytes, int]:
        """One input of BYTES behind the JSON, and how long that is."""
        inner = getattr(self.detector, "detector", self.detector)
        data = struct.pack("<I", len(picture)) + picture
        one = {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(data)}}
        wanted = {"score": f"{min(inner.low, inner.score):g}", "max": str(inner.limit)}
        head = msgspec.json.encode({"inputs": [one], "parameters": wanted})
        return head + data, len(head)

    def _read(self, item: Frame, body: bytes, took: float) -> Finding:
        """InputError or msgspec's for an answer that cannot be one to this frame."""
        answer, boxes = _found_in(body)
        inner = getattr(self.detector, "detector", self.detector)
        known = {name: key for key, name in inner.names.items()}
        mine = _mine(boxes, known.keys(), set(self.gives_names))[: inner.limit]
        xyxy = np.array([box.box for box in mine], np.float32).reshape(-1, 4)
        score = np.array([box.score for box in mine], np.float32)
        if not _fit(xyxy, score, item):
            raise InputError("its boxes do not lie in the picture")
        label = np.array([known[box.label] for box in mine], np.int32)
        ref = ModelRef(answer.model_name[:64], answer.model_version[:64], "", f"answered by {self.whom}")
        spent = {"decode": item.decode_ms, "ask": 1000 * took}
        return Finding(item, Detections(xyxy, score, label, inner.names, inner.score), ref, spent)

    def _failed(self, why: str) -> None:
        self.fails += 1
        pause = min(LONGEST_S, FIRST_S * 2 ** (self.fails - 1))
        self.until, self.trouble = time.monotonic() + pause, " ".join(why.split())[:200]
        log.log(logging.WARNING if self.fails == 1 else logging.DEBUG, "%s: %s; left alone for %g s", self.whom,
                self.trouble, pause)  # fmt: skip


def _found_in(body: bytes) -> tuple[_Answer, list[_Box]]:
    """What an answer to one picture holds. InputError, msgspec's."""
    answer = msgspec.json.decode(body, type=_Answer)
    rows = [one.data for one in answer.outputs if one.name == "found"]
    if len(rows) != 1 or len(rows[0]) != 1:
        raise InputError('its answer has not one "found"')
    return answer, msgspec.json.decode(rows[0][0], type=_Found).detections


def _fit(xyxy: Floats, score: Floats, frame: Frame) -> bool:
    """Whether boxes lie in a frame, a pixel of rounding aside, and scores are ones."""
    edge = np.array([frame.width, frame.height] * 2, np.float32) + 1
    inside = np.isfinite(xyxy) & (xyxy >= -1) & (xyxy <= edge)
    ordered = xyxy[:, 2:] >= xyxy[:, :2]
    return bool(inside.all() and ordered.all() and ((score >= 0) & (score <= 1)).all())


def _mine(boxes: list[_Box], known: Collection[str], wanted: Collection[str]) -> list[_Box]:
    """Those that are asked for, best first. InputError where one has a label that is not known."""
    if strange := next((box.label for box in boxes if box.label not in known), None):
        raise InputError(f'it finds "{strange[:40]}", which is no label here')
    return sorted((box for box in boxes if box.label in wanted), key=lambda box: -box.score)
