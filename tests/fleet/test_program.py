"""A newer version of the program: handed over by the agent, and laid by root's side, whatever lies in its folder."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from edge_agent.errors import EdgeAgentError, RefusedError
from edge_agent.fleet import as_root, program, verify
from edge_agent.fleet.below import Below
from edge_agent.fleet.bundle import wanted
from edge_agent.fleet.jobs import Jobs
from edge_agent.fleet.outcome import Outcome
from edge_agent.fleet.pack import Packed
from edge_agent.fleet.program import Done, ProgramWay, Request
from edge_agent.fleet.served import Served
from edge_agent.fleet.update import Update
from tests.fleet.made import Device, publish, repository, some_files

pytest.importorskip("tuf", reason="the extra [update] is not installed")

WHEEL = "edge_agent_runtime-{0}-py3-none-any.whl"


class Fleet:
    """A repository with a version of the program, a device's agent, and root's side of it."""

    def __init__(self, place: Path) -> None:
        self.place, self.home, self.own = place, place / "home", place / "own"
        self.repository = repository(place / "repo", place / "keys")
        self.publish("9.0")
        self.config = place / "agent.toml"
        root = self.repository.place / "metadata" / "1.root.json"
        self.config.write_text(
            f'[update]\nrepository = "repo"\nroot = "{root}"\nagent = "edge-agent"\nhealth = "7s"\n[[nonsense]]\n'
        )
        self.device = Device(self.home, f"file://{place / 'repo'}/", root)
        self.laid: list[tuple[list[str], str, float]] = []
        self.fails: Exception | None = None

    def publish(self, version: str) -> None:
        wheels = {WHEEL.format(version): version.encode() * 500, "other-1-py3-none-any.whl": b"other"}
        publish(self.repository, Packed("agent", version, wheels, some_files(a=b"").origin), "edge-agent")

    def lay(self, wheels: Path, version: str, watched: float) -> None:
        assert (wheels / WHEEL.format(version)).read_bytes() == version.encode() * 500
        self.laid.append((sorted(path.name for path in wheels.iterdir()), version, watched))
        if self.fails is not None:
            raise self.fails

    def agent(self, stops: Callable[[float], bool] = lambda seconds: True) -> Update:
        """That of one start: it is stopped at once where it would wait."""
        made = Device(self.home, self.device.address, self.device.root)
        look = lambda asked: verify.found(asked, made.address, made.root, made.group, made.served)  # noqa: E731
        bring = made.update._bring
        ways = {"agent": ProgramWay(self.home, stops, self.own)}
        return Update(made.served, ways, look, bring, lambda bundle: None)

    def root(self) -> Done:
        told = as_root.answered(self.home, self.own, self.config, self.lay)
        assert not (self.home / program.READY).exists(), told
        return msgspec.json.decode((self.own / "outcome.json").read_bytes(), type=Done)

    def resumed(self) -> Outcome:
        (ended,) = self.agent().resume()
        return ended


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    return Fleet(tmp_path)


def test_what_is_handed_over_is_laid_and_the_new_version_says_so(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[dict[str, Any]] = []

    def started(update: Update) -> Jobs:
        """The device's side of a rollout, after a start."""
        publish = lambda tail, payload, retain: said.append(json.loads(payload or b"{}"))  # noqa: E731
        return Jobs("porch", fleet.place / "jobs.json", publish, update.take, time.time)

    jobs = started(fleet.agent())
    execution = {"jobId": "one", "status": "QUEUED", "jobDocument": {"target": "agent/edge-agent/1"}}
    jobs.heard("notify-next", json.dumps({"execution": execution}).encode())
    jobs.work()
    assert jobs.now is not None and jobs.now.details["step"] == "window" and (fleet.home / program.READY).exists()
    assert fleet.root().state == "SUCCEEDED"
    assert fleet.laid == [([WHEEL.format("9.0"), "other-1-py3-none-any.whl"], "9.0", 7.0)]
    assert not (fleet.own / "wheels").exists()
    monkeypatch.setattr(program, "__version__", "9.0")  # the new one runs now, and says how the job ended
    jobs = started(fleet.agent())
    jobs.work()
    told = [one for one in said if one.get("status") == "SUCCEEDED"][-1]["statusDetails"]
    assert (told["version"], told["target"]) == ("9.0", "agent/edge-agent/1") and jobs.status_of("one") == "SUCCEEDED"

    # one that does not come up: the version before says so, and what was laid cannot be gone back behind
    fleet.publish("9.1")
    fleet.fails = EdgeAgentError("the service does not come up; what was there before runs again")
    assert fleet.agent().take("agent/edge-agent").later
    assert fleet.root().state == "FAILED"
    ended = fleet.resumed()
    assert (ended.state, ended.version) == ("FAILED", "9.1") and "does not come up" in ended.reason
    request = Request("0" * 16, "agent/edge-agent/1")
    known = Served(fleet.own / "fleet")
    known.kept.bundles["agent/edge-agent"].highest = 2
    known.save()
    (fleet.home / program.HANDED).write_bytes(msgspec.json.encode(request))
    done = fleet.root()
    assert done.state == "REJECTED" and "is older than number 2, which was laid here" in done.reason
    assert len(fleet.laid) == 2


def test_root_trusts_nothing_of_the_agent_s_but_signatures(fleet: Fleet) -> None:
    assert fleet.agent().take("agent/edge-agent/1").later
    tuf, secret = fleet.home / "fleet" / "tuf", fleet.place / "secret"
    secret.write_text("of root")
    blobs = {path.stat().st_size: path for path in (fleet.home / "blobs").rglob("*") if path.is_file()}
    wheel, other = blobs[1500], blobs[5]

    def says(words: str, token: str) -> None:
        target = msgspec.json.decode((fleet.home / program.HANDED).read_bytes(), type=Request).target
        (fleet.home / program.HANDED).write_bytes(msgspec.json.encode(Request(token * 16, target)))
        done = fleet.root()
        assert done.state in ("REJECTED", "FAILED") and words in done.reason and not fleet.laid, done
        assert "of root" not in done.reason

    # another file than was signed, a link, a FIFO, in the place of a wheel
    was = other.read_bytes()
    other.write_bytes(b"wrong")
    says("is not the file that was signed", "a")
    other.unlink()
    other.symlink_to(secret)
    says("Too many levels of symbolic links", "b")
    other.unlink()
    os.mkfifo(other)
    with pytest.raises(OSError, match="no regular file"):
        Below(fleet.home).open(str(other.relative_to(fleet.home)))
    other.unlink()
    other.write_bytes(was)
    # a folder on the way that is a link
    tuf.rename(fleet.place / "elsewhere")
    tuf.symlink_to(fleet.place / "elsewhere")
    says("Not a directory", "d")
    tuf.unlink()
    # metadata that others signed
    shutil.copytree(fleet.place / "elsewhere", tuf, symlinks=True)
    theirs = repository(fleet.place / "theirs", fleet.place / "their-keys").place / "metadata"
    for name in ("timestamp", "snapshot", "targets"):
        shutil.copyfile(next(theirs.glob(f"*{name}.json")), tuf / f"{name}.json")
    says("signed by 0/1 keys", "e")
    assert wheel.is_file()


def test_only_root_says_what_may_be_laid(fleet: Fleet) -> None:
    (fleet.home / "fleet").mkdir(parents=True)

    def said(target: str, token: str) -> str:
        (fleet.home / program.HANDED).write_bytes(msgspec.json.encode(Request(token * 16, target)))
        done = fleet.root()
        assert done.state == "REJECTED" and not fleet.laid
        return done.reason

    assert "is not what [update] agent of" in said("agent/other/1", "a")
    assert "is not what [update] agent of" in said("agent/edge-agent", "b")
    assert "is no bundle" in said("agent/../1", "c")
    fleet.config.chmod(0o666)
    assert "others than root may write it" in said("agent/edge-agent/1", "d")
    fleet.config.chmod(0o644)
    fleet.config.write_text("[update]\nrepository = 'repo'\n")
    assert "names no agent" in said("agent/edge-agent/1", "e")
    for raw in (b"{", b'{"token": "../x", "target": "agent/edge-agent/1"}', b"x" * 20_000):
        (fleet.home / program.HANDED).write_bytes(raw)
        assert "cannot be read" in as_root.answered(fleet.home, fleet.own, fleet.config, fleet.lay)


def test_without_root_s_unit_it_is_rejected_with_what_to_type(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bundle = SimpleNamespace(name="edge-agent", wanted=wanted("agent/edge-agent/1"))
    with pytest.raises(RefusedError, match=r'write agent = "edge-agent" under \[update\]'):
        program.check(bundle, tmp_path, None)  # type: ignore[arg-type]
    with pytest.raises(RefusedError, match="type: sudo edge-agent install"):
        program.check(bundle, tmp_path, "edge-agent")  # type: ignore[arg-type]


def test_what_ends_the_device_each_time_is_given_up(fleet: Fleet) -> None:
    (fleet.home / "fleet").mkdir(parents=True)
    fleet.own.mkdir()
    (fleet.home / program.HANDED).write_bytes(msgspec.json.encode(Request("a" * 16, "agent/edge-agent/1")))
    (fleet.own / "tries").write_text(f"{'a' * 16} " * 3)
    assert "ended 3 times while it was laid" in fleet.root().reason and not fleet.laid
