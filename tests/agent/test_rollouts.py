"""A rollout as its operator has it: a real broker, agents that hear of jobs, and the verb."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edge_agent import config
from edge_agent.agent.agent import Agent
from edge_agent.config import Mqtt
from edge_agent.errors import ConfigError
from edge_agent.fleet.outcome import Outcome, Tell, untold
from edge_agent.link import topics
from tests.agent.test_agent import pipeline
from tests.broker import Consumer, Mosquitto, broker, hears, until
from tests.cli.test_cli import run
from tests.fleet.made import publish, repository, some_files


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    with broker(tmp_path) as server:
        yield server


UPDATE = '[update]\nrepository = "repo"\ngroup = "shops"\n'


class Taker:
    """Stands for what takes bundles: its verification and its steps have tests of their own."""

    def __init__(self, state: str = "SUCCEEDED") -> None:
        self.state, self.taken, self.numbers = state, list[str](), dict[str, int]()
        self.served = SimpleNamespace(known=self._known)

    def _known(self, key: str) -> Any:
        number = self.numbers.get(key, 0)
        return SimpleNamespace(serves=SimpleNamespace(number=number, version=f"v{number}") if number else None)

    def take(self, target: str, tell: Tell = untold) -> Outcome:
        self.taken.append(target)
        tell(Outcome("IN_PROGRESS", target, "download"))
        if self.state == "SUCCEEDED":
            key, _, number = target.rpartition("/")
            self.numbers[key] = int(number)
        state: Any = self.state
        return Outcome(state, target, "done", "" if self.state == "SUCCEEDED" else "it agrees too little")


@contextmanager
def working(
    place: Path, url: str, name: str, taker: Taker | None, more: str = "", update: str = UPDATE
) -> Iterator[Agent]:
    """An agent that hears of jobs. `update`: its [update], with what takes bundles of its own where it is another."""
    folder = place / name
    folder.mkdir(exist_ok=True)
    (folder / "texts.txt").touch()
    text = f'[device]\nid = "{name}"\n[mqtt]\nurl = "{url}"\n{more}[store]\npath = "store"\n[rollout]\n{update}'
    text += '[[profile]]\nname = "home"\n[[profile]]\nname = "night"\n'
    (folder / "root.json").write_text("{}")
    (folder / "agent.toml").write_text(text + pipeline("texts", "lines:texts.txt"))
    agent, stop = Agent(config.load(folder / "agent.toml")), threading.Event()
    if update == UPDATE:
        agent.update = taker  # type: ignore[assignment]
    thread = threading.Thread(target=agent.run, args=(stop,))
    thread.start()
    try:
        with Consumer(Mqtt(url=url), f"edge/v1/{name}/reported") as told:
            until(lambda: told.heard and hears(agent.link), "it says what it is, and hears of jobs")
        yield agent
    finally:
        stop.set()
        thread.join()


def started(place: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return run(place, "rollout", *args, "--state", str(place / "rollout.json"))


START = ("start", "files/labels/2", "--group", "shops", "--soak", "1s", "--patience", "30s")


def test_a_good_one_reaches_all_and_each_says_what_it_is(mosquitto: Mosquitto, tmp_path: Path) -> None:
    first, second = Taker(), Taker()
    with working(tmp_path, mosquitto.url, "one", first), working(tmp_path, mosquitto.url, "two", second):
        done = started(tmp_path, *START, "--url", mosquitto.url)
        assert done.returncode == 0 and "2 SUCCEEDED" in done.stderr, done.stderr
        assert first.taken == second.taken == ["files/labels/2"]
        status = started(tmp_path, "status", "--json")
        devices = json.loads(status.stdout)["devices"]
        assert {name: one["status"] for name, one in devices.items()} == {"one": "SUCCEEDED", "two": "SUCCEEDED"}
        assert sorted(one["wave"] for one in devices.values()) == [0, 1]
        with Consumer(Mqtt(url=mosquitto.url)) as late:
            until(lambda: late.last("one/reported"), "it is retained")
            said = json.loads(late.last("one/reported") or b"")
            assert said["group"] == "shops" and said["job"] is None and said["profile"] == "home"
            assert not [topic for topic, payload, _ in late.heard if "/jobs/" in topic and payload]


def test_what_nothing_looks_for_comes_by_a_job_alone(
    mosquitto: Mosquitto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tuf", reason="the extra [update] is not installed")
    from edge_agent.agent.update import first

    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    repo = repository(tmp_path / "repo", tmp_path / "keys")
    publish(repo, some_files(labels_txt=b"person"), "labels")
    more = 'repository = "../repo"\nroot = "../repo/metadata/1.root.json"\ngroup = "shops"\nfiles = ["labels"]\n'
    update = f'[update]\nlook = false\nhealth = "1s"\n{more}'
    with working(tmp_path, mosquitto.url, "one", None, update=update) as agent:
        (waits,) = first(agent.config, lambda shared=None: agent.config)
        assert waits.later and "none of it is here, and [update] look = false" in waits.reason
        start = ("start", "files/labels/1", *START[2:])
        done = started(tmp_path, *start, "--url", mosquitto.url)
        assert done.returncode == 0, done.stderr
        said = json.loads(started(tmp_path, "status", "--json").stdout)["devices"]["one"]["details"]
        assert said["reason"] == "serves, and is healthy" and float(said["bytes"]) > 0
        assert agent.rollouts is not None and agent.rollouts.jobs.refused == 0


def test_a_bad_one_stops_at_the_canary(mosquitto: Mosquitto, tmp_path: Path) -> None:
    first, second = Taker("FAILED"), Taker("FAILED")
    with working(tmp_path, mosquitto.url, "one", first), working(tmp_path, mosquitto.url, "two", second):
        done = started(tmp_path, *START, "--url", mosquitto.url)
    assert done.returncode == 1 and "the canary went wrong: FAILED, it agrees too little" in done.stderr, done.stderr
    assert len(first.taken) + len(second.taken) == 1
    again = started(tmp_path, *START, "--url", mosquitto.url)
    assert again.returncode == 2 and "is halted; resume or halt it" in again.stderr


def test_what_is_wanted_is_taken_and_why_not_is_said(mosquitto: Mosquitto, tmp_path: Path) -> None:
    taker = Taker()
    desire = ("rollout", "desire", "--url", mosquitto.url, "--group", "shops", "--bundle", "files/labels/3")
    assert run(tmp_path, *desire, "--profile", "night").returncode == 0
    with working(tmp_path, mosquitto.url, "one", taker) as agent:
        until(lambda: agent.rules.profile == "night" and taker.taken, "it is brought to what is wanted")
        assert taker.taken[0] == "files/labels/3" and agent.rollouts is not None
        rollouts = agent.rollouts
        until(lambda: not rollouts.state()["differs"], "nothing differs")
        taker.state = "REJECTED"
        own = ("rollout", "desire", "--url", mosquitto.url, "--to", "one", "--bundle", "files/labels/4")
        assert run(tmp_path, *own, "--profile", "nite").returncode == 0
        until(lambda: len(rollouts.state()["differs"]) == 2 and len(taker.taken) == 2, "both differ")
        until(lambda: "agrees" in str(rollouts.state()["differs"]), "it says why")
        rows = {row["what"]: row for row in rollouts.state()["differs"]}
        assert (rows["files/labels"]["wanted"], rows["files/labels"]["now"]) == ("4", "3")
        assert "nite" in rows["profile"]["why"]
        pytest.importorskip("starlette", reason="the extra [page] is not installed")
        from edge_agent.ui import fleet

        (call,) = fleet.calls(SimpleNamespace(now=agent))  # type: ignore[arg-type]
        shown: Any = call.answer(None)  # type: ignore[arg-type]
        assert shown.bundles == {"files/labels": "3 (v3)"} and shown.wanted.bundles == {
            "files/labels": "files/labels/4"
        }


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_who_has_no_key_is_rejected_and_who_has_is_not(mosquitto: Mosquitto, tmp_path: Path) -> None:
    pytest.importorskip("cryptography", reason="the extra [signed] is not installed")
    key, public = tmp_path / "key.pem", tmp_path / "public.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", key], check=True)
    subprocess.run(["openssl", "pkey", "-in", key, "-pubout", "-out", public], check=True)
    taker = Taker()
    with working(tmp_path, mosquitto.url, "one", taker, f'signers = "{public}"\n') as agent:
        done = started(tmp_path, *START, "--url", mosquitto.url)
        assert done.returncode == 1 and "REJECTED, is not signed" in done.stderr, done.stderr
        assert not taker.taken and agent.rollouts is not None and agent.rollouts.jobs.refused == 1
        (tmp_path / "rollout.json").unlink()
        done = started(tmp_path, *START, "--url", mosquitto.url, "--sign", str(key))
        assert done.returncode == 0 and taker.taken == ["files/labels/2"], done.stderr


@pytest.mark.slow
def test_without_update_a_job_is_rejected_with_the_reason(mosquitto: Mosquitto, tmp_path: Path) -> None:
    with working(tmp_path, mosquitto.url, "one", None):
        done = started(tmp_path, *START, "--url", mosquitto.url)
    assert done.returncode == 1 and "write [update] in its config" in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ("[rollout]\n", "write mqtt.url, or hawkbit"),
        ('[mqtt]\nurl = "mqtt://h"\n[rollout]\njobs = "a/#"\n', "topic levels without"),
        ('[rollout]\nhawkbit = "http://far/DEFAULT"\ntoken_file = "t"\n', "over https:// only"),
        ('[mqtt]\nurl = "mqtt://h"\n[rollout]\ntoken_file = "t"\n', "is for hawkbit"),
    ],
)
def test_what_cannot_be_meant_is_one_line(section: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        config.parse(section + pipeline("texts", "lines:-"))


def test_the_topics_are_those_of_aws_where_they_are_named() -> None:
    loaded = config.parse(
        '[device]\nid = "porch"\n[mqtt]\nurl = "mqtt://h"\n[rollout]\njobs = "$aws/things/porch/jobs"\n'
        + pipeline("texts", "lines:-")
    )
    assert loaded.rollout is not None and loaded.rollout.is_aws
    assert "$aws/things/porch/jobs/notify-next" in topics.heard(loaded)
    assert topics.tail_of("edge/v1/porch", "$aws/things/porch/jobs") == "/$aws/things/porch/jobs"


def test_check_says_who_may(tmp_path: Path) -> None:
    from edge_agent.cli.sections import sections

    loaded = config.parse(
        '[mqtt]\nurl = "mqtt://h"\n[device]\nid = "porch"\n[rollout]\n' + pipeline("texts", "lines:-")
    )
    (said,) = [line for line in sections(loaded) if line.startswith("rollout")]
    assert "jobs at edge/v1/porch/jobs" in said and "set an ACL" in said and "without [update]" in said
