"""The steps of an update: where each may fail, and kills at any of them."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import pytest

from edge_agent.errors import EdgeAgentError, NotNowError, RefusedError
from edge_agent.fleet.bundle import Bundle, Wanted
from edge_agent.fleet.outcome import Outcome
from edge_agent.fleet.pack import Packed
from edge_agent.fleet.served import Served
from edge_agent.fleet.ways import Asked
from edge_agent.registry import catalogue
from tests.fleet.made import Device, a_model, publish, repository, some_files
from tests.forked import forked

pytest.importorskip("tuf", reason="the extra [update] is not installed")

GOOD, BAD = (1, 2, 4, 5, 7), (3, 6)
"""numbers that are healthy, and those that are not"""


@pytest.fixture(scope="module")
def offered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """A repository with seven numbers of a model and of a config; and each index by its name."""
    at = tmp_path_factory.mktemp("offered")
    repo, found = repository(at / "repo", at / "keys"), {}
    for number in range(1, 8):
        word = f"number {number}".encode()
        config = Packed("config", "", {"agent.toml": word, "labels.txt": word}, some_files(a=b"").origin)
        for packed, name in ((a_model("people", word * 300, str(number)), "people"), (config, "shop")):
            bundle = publish(repo, packed, name).bundle
            found[str(bundle.wanted)] = msgspec.json.encode(bundle)
    return at, found


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def device(offered: tuple[Path, dict[str, bytes]], home: Path) -> Device:
    """One that has verified what it is offered already."""
    at, found = offered

    def look(asked: Wanted) -> tuple[Bundle, bytes]:
        raw = found[str(asked)]
        return msgspec.json.decode(raw, type=Bundle), raw

    return Device(home, f"file://{at / 'repo'}/", at / "root.json", look=look)


def raising(error: Exception) -> Callable[..., Any]:
    def act(*_: object) -> NoReturn:
        raise error

    return act


def serves(home: Path) -> str:
    return catalogue.locate("people").manifest.version if (home / "models" / "people").is_symlink() else ""


def test_every_step_is_told_and_the_same_again_is_no_harm(offered: Any, home: Path) -> None:
    one, told = device(offered, home), list[Outcome]()
    ended = one.update.take("model/people/1", told.append)
    assert [outcome.step for outcome in told] == ["look", "download", "prove", "canary", "switch", "window", "done"]
    assert ended == told[-1] and ended.state == "SUCCEEDED" and ended.figures["bytes"] > 0
    assert serves(home) == "1" and catalogue.verify("people") == []
    assert one.update.take("model/people/1").reason == "serves already"
    again = Device(home, one.address, one.root, look=one._look)
    assert again.update.resume() == [] and again.served.known("model/people").highest == 1


@pytest.mark.parametrize(
    ("asked", "state", "step", "why", "kept"),
    [
        (Asked(prove=raising(RefusedError("finds nothing"))), "REJECTED", "prove", "finds nothing", True),
        (Asked(canary=raising(EdgeAgentError("disagrees"))), "FAILED", "canary", "disagrees", True),
        (Asked(window=raising(EdgeAgentError("is silent"))), "FAILED", "done", "is silent; what served before", True),
        (Asked(canary=raising(NotNowError("it is dark"))), "IN_PROGRESS", "canary", "it is dark", False),
    ],
)
def test_what_fails_leaves_what_served(
    offered: Any, home: Path, asked: Asked, state: str, step: str, why: str, kept: bool
) -> None:
    one = device(offered, home)
    assert one.update.take("model/people/1").state == "SUCCEEDED"
    one.model = asked
    ended = one.update.take("model/people/2")
    assert (ended.state, ended.step, ended.later) == (state, step, state == "IN_PROGRESS") and why in ended.reason
    assert serves(home) == "1" and catalogue.verify("people") == []
    counted = {"prove": {"proof": 1}, "canary": {"canary": 1}, "done": {"health": 1}}[step] if kept else {}
    assert one.served.kept.refused == counted
    one.model = Asked()
    again = one.update.take("model/people/2")
    assert again.state == ("FAILED" if kept else "SUCCEEDED")
    if kept:  # until somebody says so
        assert "failed here before" in again.reason
        one.update.again("model/people/2")
        assert one.update.take("model/people/2").state == "SUCCEEDED"
    assert one.update.take("model/people/1").state == "REJECTED" and serves(home) == "2"


def test_the_first_of_a_name_that_is_not_healthy_leaves_none(offered: Any, home: Path) -> None:
    one = device(offered, home)
    one.model = one.config = Asked(window=raising(EdgeAgentError("is silent")))
    for target in ("model/people/1", "config/shop/1"):
        assert one.update.take(target).state == "FAILED"
    assert serves(home) == "" and one.holds("shop", "config") == {}


def test_what_is_of_another_name_or_names_other_files_is_refused(offered: Any, home: Path) -> None:
    one = device(offered, home)
    real = one._look
    assert real is not None

    def swapped(asked: Wanted) -> tuple[Bundle, bytes]:
        bundle, raw = real(asked)
        return msgspec.structs.replace(bundle, name="cars"), raw

    one._look = swapped
    ended = one.update.take("model/people/1")
    assert ended.state == "REJECTED" and "its manifest is that of people" in ended.reason
    one._look = lambda asked: (msgspec.structs.replace(real(asked)[0], files=real(asked)[0].files[:1]), b"")
    ended = one.update.take("model/people/1")
    assert ended.state == "REJECTED" and serves(home) == ""


def test_a_stop_in_the_health_window_goes_on_and_a_program_that_ends_each_time_goes_back(
    offered: Any, home: Path
) -> None:
    one = device(offered, home)
    one.update.take("model/people/1")
    for _ in range(5):  # stopped in order, as often as one likes
        one.model = Asked(window=raising(NotNowError("it is stopped")))
        assert one.update.take("model/people/2").later and serves(home) == "2"
        again = device(offered, home)
        again.model = one.model
        assert [outcome.later for outcome in again.update.resume()] == [True]
        one = again
    killed = 0
    while Served(home / "fleet").known("model/people").trying is not None:
        one = device(offered, home)
        one.model = Asked(window=lambda bundle: os.kill(os.getpid(), signal.SIGKILL))
        killed += forked(one.update.resume) == -signal.SIGKILL
    assert killed == 3 and serves(home) == "1"
    known = Served(home / "fleet").known("model/people")
    assert known.last is not None and known.last.state == "FAILED" and "ended 3 times" in known.last.reason
    assert known.highest == 2 and known.serves is not None and known.serves.number == 1


def test_a_state_that_cannot_be_read_is_said(home: Path) -> None:
    (home / "fleet").mkdir(parents=True)
    (home / "fleet" / "state.json").write_text("{")
    with pytest.raises(RefusedError, match=r"state\.json: is damaged; no update is taken"):
        Served(home / "fleet")


# ── kills ────────────────────────────────────────────────────────────────────────────────────────────────

CALLS = ("fsync", "replace", "rename", "write", "unlink", "symlink", "open", "mkdir")
"""what the disk is asked for; a kill comes before or behind one of them"""


counted = pytest.mark.skipif(sys.version_info < (3, 11), reason="pathlib of 3.10 keeps functions of os for itself")


def counting(told: Callable[[str], None], after: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Have each of CALLS told before and after it is done; the real ones."""
    real = {name: getattr(os, name) for name in CALLS}

    def counted(name: str) -> Callable[..., Any]:
        def call(*args: Any, **named: Any) -> Any:
            told(name)
            done = real[name](*args, **named)
            after()
            return done

        return call

    for name in CALLS:
        setattr(os, name, counted(name))
    return real


def killed(act: Callable[[], object], at: int, behind: bool = False) -> bool:
    """Do it in a process of its own that is killed before, or behind, the at-th of CALLS; whether it was."""
    left = at

    def die(when: bool) -> None:
        if left == 0 and behind == when:
            os.kill(os.getpid(), signal.SIGKILL)

    def told(_: str) -> None:
        nonlocal left
        left -= 1
        die(False)

    def work() -> None:
        counting(told, lambda: die(True))
        act()

    return forked(work) == -signal.SIGKILL


def check(home: Path, floor: dict[str, int]) -> None:
    """What serves is whole, and no older than what was healthy before."""
    version = serves(home)
    if floor["people"]:
        assert catalogue.verify("people") == [] and int(version) >= floor["people"]
    folder = home / "fleet" / "laid" / "config.shop" / "current"
    if floor["shop"] or folder.exists():
        words = {path.read_bytes() for path in folder.iterdir()}
        assert len(words) == 1 and len(list(folder.iterdir())) == 2, "half a config"
        assert int(words.pop().split()[-1]) >= floor["shop"]
    if (home / "fleet" / "state.json").exists():
        Served(home / "fleet")


def storm(offered: Any, home: Path, kills: int, seed: int) -> None:
    """Take number after number of both, killed again and again; each number of GOOD serves in the end, none of BAD."""
    chance, floor, done = random.Random(seed), {"people": 0, "shop": 0}, 0

    def act(target: str) -> Callable[[], object]:
        one = device(offered, home)
        bad = Asked(window=lambda bundle: raising(EdgeAgentError("is bad"))() if bundle.number in BAD else None)
        one.model = one.config = bad
        return lambda: (one.update.resume(), one.update.take(target))

    while done < kills:
        for number in range(1, 8):
            for target, name in ((f"model/people/{number}", "people"), (f"config/shop/{number}", "shop")):
                for _ in range(2):  # what ends the program three times is given up
                    done += killed(act(target), chance.randint(1, 170), chance.random() < 0.5)
                    check(home, floor)
                act(target)()
                if number in GOOD:
                    floor[name] = number
                check(home, floor)
        assert serves(home) == "7" and floor == {"people": 7, "shop": 7}
        for target in ("model/people/5", "config/shop/5"):  # a downgrade is refused, however often it was killed
            assert device(offered, home).update.take(target).state == "REJECTED"
        home = home.with_name(f"{home.name}x")
        os.environ["EDGE_AGENT_HOME"], floor = str(home), {"people": 0, "shop": 0}


def each_step(offered: Any, home: Path, few: bool) -> int:
    """From number 1 to 2, killed before one of the calls; all of them, or few: those around the switch, and some."""
    kills = 0
    for key in ("model/people", "config/shop"):
        first = home.with_name(key.replace("/", "."))
        os.environ["EDGE_AGENT_HOME"] = str(first)
        device(offered, first).update.take(f"{key}/1")
        floor = {name: int(key.endswith(name)) for name in ("people", "shop")}
        calls: list[str] = []
        for at in range(1000):
            if few and calls and not (at % 50 == 0 or "symlink" in calls[max(0, at - 4) : at + 1]):
                continue
            place = first.with_name(f"{first.name}.{at}")
            shutil.copytree(first, place, symlinks=True)
            os.environ["EDGE_AGENT_HOME"] = str(place)
            one = device(offered, place)
            if not at:
                real = counting(calls.append)
                one.update.take(f"{key}/2")
                for name, call in real.items():
                    setattr(os, name, call)
                continue
            if at > len(calls):
                break
            kills += killed(partial(one.update.take, f"{key}/2"), at)
            check(place, floor)
            again = device(offered, place)
            again.update.resume()
            assert again.update.take(f"{key}/2").state == "SUCCEEDED"
            check(place, {name: 2 * least for name, least in floor.items()})
            shutil.rmtree(place)
    return kills


@counted
def test_kills_around_the_switch_leave_what_served_or_the_new(offered: Any, home: Path) -> None:
    assert each_step(offered, home, few=True) > 12


@counted
@pytest.mark.slow
def test_a_kill_at_each_step_leaves_what_served_or_the_new(offered: Any, home: Path) -> None:
    assert each_step(offered, home, few=False) > 200


@pytest.mark.slow
def test_two_hundred_kills(offered: Any, home: Path) -> None:
    storm(offered, home, 200, seed=1)
