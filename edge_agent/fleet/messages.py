"""What goes over MQTT for a job, AWS IoT Jobs' messages, and what a device keeps of jobs."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

from edge_agent.fleet.outcome import Outcome

MOST = 64_000
"""bytes of a message"""
OVER = ("SUCCEEDED", "FAILED", "TIMED_OUT", "REJECTED", "REMOVED", "CANCELED")
JOB = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""an id, as AWS has them"""
_Text = Annotated[str, msgspec.Meta(max_length=1000)]


class Execution(msgspec.Struct):
    """What is to be done, as `notify-next` says it."""

    jobId: str
    status: str = "QUEUED"
    versionNumber: int = 1
    executionNumber: int = 1
    jobDocument: msgspec.Raw = msgspec.Raw(b"{}")


class Document(msgspec.Struct):
    """What a job asks for."""

    target: _Text
    """KIND/NAME or KIND/NAME/NUMBER"""
    devices: list[_Text] = []
    """the device that it is for; empty: any that gets it"""
    expires: float = 0.0
    """seconds since 1970 after which it is not begun any more; 0: never"""


class Next(msgspec.Struct):
    """``notify-next``: what is to be done next, if anything is."""

    execution: Execution | msgspec.UnsetType = msgspec.UNSET


class State(msgspec.Struct):
    """How an execution is, as its sender knows it."""

    versionNumber: int = 0
    status: str = ""


class Answer(msgspec.Struct):
    """What comes back for an update."""

    clientToken: str = ""
    executionState: State = msgspec.field(default_factory=State)
    code: str = ""


class Update(msgspec.Struct):
    """What a device says of its execution."""

    status: str
    statusDetails: dict[str, str] = {}
    expectedVersion: Annotated[int, msgspec.Meta(ge=0, le=1 << 31)] = 0
    executionNumber: int = 1
    clientToken: Annotated[str, msgspec.Meta(max_length=64)] = ""


def update(status: str, details: dict[str, str], version: int, number: int, token: str) -> bytes:
    """An update as it is sent; `version`: the one that it is based on, `token`: by which its answer is known."""
    body = {"status": status, "statusDetails": details, "expectedVersion": version, "executionNumber": number}
    return msgspec.json.encode({**body, "includeJobExecutionState": True, "clientToken": token})


def details(outcome: Outcome) -> dict[str, str]:
    """What AWS keeps of a status: short texts."""
    told = {"target": outcome.target, "step": outcome.step, "reason": outcome.reason[:1000], "version": outcome.version}
    return {key: value for key, value in told.items() if value} | {
        key: f"{value:g}" for key, value in outcome.figures.items()
    }


class Doing(msgspec.Struct):
    """A job that is to be done, or was."""

    job: str
    target: str
    version: int
    number: int
    status: str = "QUEUED"
    details: dict[str, str] = {}
    told: bool = False
    """of one that is over: its sender knows"""


class Known(msgspec.Struct):
    """What the file holds."""

    now: Doing | None = None
    over: list[Doing] = []
    refused: int = 0
