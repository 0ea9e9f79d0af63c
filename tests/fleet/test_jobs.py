"""Jobs as AWS IoT Jobs names them, on a device; and rollouts to a simulated fleet."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_agent.errors import RefusedError
from edge_agent.fleet.jobs import AGAIN_S, ANSWER_S, Jobs
from edge_agent.fleet.outcome import Outcome, Tell, untold
from edge_agent.fleet.plan import Plan, Rollout, counted
from edge_agent.fleet.rollout import Driver
from tests.fleet.simulate import START, Model, simulate


class Device:
    """One, with what it publishes, and an update that ends as it is told to."""

    def __init__(self, place: Path, **options: Any) -> None:
        self.said: list[tuple[str, Any, bool]] = []
        self.now, self.ends, self.taken = START, ["SUCCEEDED"], list[str]()
        self._again: Callable[[], Jobs] = lambda: Jobs(
            "porch", place / "jobs.json", self._publish, self.take, lambda: self.now, **options
        )
        self.jobs = self._again()

    def _publish(self, tail: str, payload: bytes, retain: bool) -> None:
        self.said.append((tail, json.loads(payload or b"null"), retain))

    def take(self, target: str, tell: Tell = untold) -> Outcome:
        self.taken.append(target)
        tell(Outcome("IN_PROGRESS", target, "download"))
        state: Any = self.ends.pop(0) if len(self.ends) > 1 else self.ends[0]
        return Outcome(state, target, "done", "no network" if state == "IN_PROGRESS" else "", later=True)

    def restart(self) -> None:
        self.jobs = self._again()
        self.jobs.connected()

    def offer(self, job: str = "one", number: int = 1, version: int = 1, **document: Any) -> None:
        body = {"target": "model/people/2", **document}
        execution = {"jobId": job, "status": "QUEUED", "versionNumber": version, "executionNumber": number}
        self.jobs.heard("notify-next", json.dumps({"execution": {**execution, "jobDocument": body}}).encode())

    def answer(self, kind: str, version: int, **more: Any) -> None:
        """To the last update."""
        tail, body, _ = next(row for row in reversed(self.said) if row[0].endswith("/update") and row[1])
        state = {"versionNumber": version, "status": more.pop("status", body["status"])}
        said = {"clientToken": body["clientToken"], "executionState": state, **more}
        self.jobs.heard(f"{tail}/{kind}", json.dumps(said).encode())

    @property
    def updates(self) -> list[str]:
        return [body["status"] for tail, body, _ in self.said if tail.endswith("/update") and body]


def test_a_job_is_done_and_each_status_has_the_version_before(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.jobs.connected()
    assert device.said == [("$next/get", {}, False)]
    device.offer(version=7)
    assert device.jobs.work() and device.taken == ["model/people/2"]
    assert device.updates == ["IN_PROGRESS", "SUCCEEDED"]
    _, body, retained = next(row for row in reversed(device.said) if row[0] == "one/update")
    assert retained and body["expectedVersion"] == 7 and body["statusDetails"]["step"] == "done"
    device.answer("accepted", 9)
    assert device.said[-1] == ("one/update", None, True), "what is known is retained no longer"
    assert not device.jobs.work() and device.jobs.status_of("one") == "SUCCEEDED"


def test_a_version_that_differs_is_taken_over_and_told_again(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.ends = ["IN_PROGRESS", "SUCCEEDED"]
    device.offer()
    device.jobs.work()
    device.answer("rejected", 5, code="VersionMismatch")
    device.now += AGAIN_S
    device.jobs.work()
    assert [body["expectedVersion"] for tail, body, _ in device.said if tail == "one/update" and body][-1] == 5
    assert device.taken == ["model/people/2"] * 2


def test_a_kill_goes_on_where_it_was_and_tells_what_nobody_knows(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.ends = ["IN_PROGRESS", "SUCCEEDED"]
    device.offer()
    device.jobs.work()
    device.restart()
    device.jobs.work()
    assert device.jobs.status_of("one") == "SUCCEEDED" and len(device.taken) == 2
    device.said.clear()
    device.restart()
    assert device.updates == ["SUCCEEDED"], "the answer never came"


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"target": "nonsense"}, "is no bundle"),
        ({"target": "model/../../etc"}, "is no bundle"),
        ({"target": 5}, "cannot be read"),
        ({"devices": ["gate"]}, "is for gate, not for porch"),
        ({"expires": START - 1}, "has expired"),
    ],
)
def test_what_is_not_for_it_is_rejected_counted_and_changes_nothing(
    tmp_path: Path, document: dict[str, Any], says: str
) -> None:
    device = Device(tmp_path)
    device.offer(**document)
    (tail, body, retained) = device.said[-1]
    assert (tail, body["status"], retained) == ("one/update", "REJECTED", False) and says in body["statusDetails"][
        "reason"
    ]
    for _ in range(5):  # retained for ever
        device.offer(**document)
    assert device.updates == ["REJECTED"]
    assert device.jobs.refused == 1 and not device.jobs.work() and not device.taken


def test_a_job_that_was_done_is_not_done_again(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.offer()
    device.jobs.work()
    device.answer("accepted", 3)
    device.restart()
    device.offer()
    assert device.updates[-1] == "REJECTED" and device.jobs.refused == 1 and not device.jobs.work()
    assert device.jobs.status_of("one") == "SUCCEEDED" and len(device.taken) == 1
    device.offer(number=2)
    assert device.jobs.work(), "another execution of it is another one"


def test_who_has_no_right_is_rejected(tmp_path: Path) -> None:
    def unsigned(topic: str, raw: bytes) -> bytes:
        raise RefusedError("is signed by none of the keys")

    device = Device(tmp_path, open_=unsigned)
    device.offer()
    assert device.updates == ["REJECTED"] and device.jobs.refused == 1 and not device.jobs.work()


@pytest.mark.parametrize(
    "payload", [b"nonsense", b"[]", b'{"execution": 5}', b"\xff\xfe", b"[" * 10_000, b"x" * 70_000]
)
def test_what_makes_no_sense_is_passed_over(tmp_path: Path, payload: bytes) -> None:
    device = Device(tmp_path)
    for tail in ("notify-next", "one/update/accepted", "one/update/rejected", "else"):
        device.jobs.heard(tail, payload)
    assert not device.said and not device.jobs.work()


def test_one_that_is_taken_back_before_it_began_is_not_begun(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.offer()
    device.jobs.heard("notify-next", b'{"timestamp": 5}')
    assert not device.jobs.work() and device.jobs.status_of("one") == "CANCELED"


def test_aws_accepts_before_anything_begins(tmp_path: Path) -> None:
    device = Device(tmp_path, claim=True)
    device.offer()
    assert not device.jobs.work() and device.updates == ["IN_PROGRESS"] and not device.taken
    device.now += ANSWER_S
    assert not device.jobs.work() and device.updates == ["IN_PROGRESS"] * 2
    device.answer("accepted", 2)
    assert device.jobs.work() and device.taken == ["model/people/2"]
    other = Device(tmp_path / "..", claim=True)
    other.offer("two")
    other.jobs.work()
    other.answer("rejected", 2, code="InvalidStateTransition", status="CANCELED")
    assert other.jobs.status_of("two") == "CANCELED" and not other.jobs.work() and not other.taken


def test_a_rollout_that_was_halted_goes_on_when_it_is_told_to(tmp_path: Path) -> None:
    said: list[tuple[str, str, bytes]] = []
    now, kept = [START], list[bytes]()
    plan = Plan("model/people/2", "all", canary=1, soak_s=0, agreement=0.9)
    driver = Driver(
        Rollout("r", plan, START),
        lambda device, tail, payload, retain: said.append((device, tail, payload)),
        lambda it: kept.append(msgspec.json.encode(it)),
        lambda: now[0],
    )
    driver.add(["a", "b", "c"])
    driver.tick()
    update = {"status": "IN_PROGRESS", "expectedVersion": 1, "clientToken": "t"}
    driver.heard("a", "r/update", json.dumps(update).encode())
    driver.halt("asked to")
    assert counted(driver.it) == {"IN_PROGRESS": 1, "WAITING": 2}
    done = {"status": "SUCCEEDED", "expectedVersion": 2, "statusDetails": {"agreement": "0.97"}}
    driver.heard("a", "r/update", json.dumps(done).encode())
    driver.tick()
    assert driver.it.status == "HALTED" and counted(driver.it) == {"SUCCEEDED": 1, "WAITING": 2}
    driver.resume()
    driver.tick()
    assert {device for device, tail, payload in said if tail == "notify-next" and payload} == {"a", "b", "c"}
    driver.heard("b", "r/update", json.dumps({**update, "expectedVersion": 0}).encode())
    assert said[-1][1] == "r/update/rejected" and b"VersionMismatch" in said[-1][2]
    driver.accuracy("a", "broken")
    assert driver.it.status == "HALTED" and "accuracy" in driver.it.why
    assert msgspec.json.decode(kept[-1], type=Rollout) == driver.it


def test_a_good_model_reaches_all_and_a_bad_one_the_canary() -> None:
    good = simulate("good", 30, Model())
    assert (good.status, good.updated, good.twice) == ("DONE", 30, 0)
    bad = simulate("bad", 30, Model(fails=1.0))
    assert (bad.status, bad.begun, bad.updated) == ("HALTED", 1, 0) and "canary" in bad.why
    worse = simulate("worse", 30, Model(agreement=0.8))
    assert (worse.status, worse.begun) == ("HALTED", 1) and "agreement 0.800" in worse.why
