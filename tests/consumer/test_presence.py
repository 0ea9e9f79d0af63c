"""Who is there: a retained word, a live one, a will that comes too late, and one that never comes."""

from __future__ import annotations

import json
import time
from datetime import datetime, timezone
from pathlib import Path

import pytest

from edge_agent.cli import main
from edge_agent.config import Mqtt
from edge_agent.consumer.presence import Presence
from edge_agent.link.broker import Broker
from edge_agent.link.rights import Visit
from tests.broker import broker, until

BASE, GROUP = "edge/v1/porch", "edge/v1/_groups/canary/desired"


class Clock:
    def __init__(self) -> None:
        self.now = 1_790_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def who(clock: Clock) -> Presence:
    return Presence("edge/v1", clock)


def health(clock: Clock, ago: float = 0.0, **more: object) -> bytes:
    at = datetime.fromtimestamp(clock.now - ago, timezone.utc).isoformat().replace("+00:00", "Z")
    return json.dumps({"v": 1, "at": at, **more}).encode()


def is_(who: Presence) -> str:
    (row,) = who.rows()
    return str(row["is"])


def test_an_online_that_nobody_took_back_is_stale(who: Presence, clock: Clock) -> None:
    who.add(f"{BASE}/status", b"online", True)
    who.add(f"{BASE}/health", health(clock, ago=91, every_s=30), True)
    assert is_(who) == "stale"
    who.add(f"{BASE}/health", health(clock, every_s=30), False)
    assert is_(who) == "online"
    clock.now += 90
    assert is_(who) == "online"
    clock.now += 1
    assert is_(who) == "stale"
    who.add(f"{BASE}/door/events", b"{}", False)
    assert is_(who) == "online", "any word of it will do"


def test_on_a_metered_link_it_may_be_silent_for_hours(who: Presence, clock: Clock) -> None:
    who.add(f"{BASE}/status", b"online", True)
    who.add(f"{BASE}/health", health(clock, ago=7000, every_s=3600), True)
    assert is_(who) == "online"
    clock.now += 3801
    assert is_(who) == "stale"


def test_a_will_that_comes_too_late_is_corrected_by_the_next_word(who: Presence, clock: Clock) -> None:
    who.add(f"{BASE}/status", b"online", False)
    who.add(f"{BASE}/status", b"offline", False)
    assert is_(who) == "offline"
    who.add(f"{BASE}/door/state", b"{}", True)
    assert is_(who) == "offline", "that was retained"
    clock.now += 5
    who.add(f"{BASE}/health", health(clock), False)
    assert is_(who) == "online"
    who.add(f"{BASE}/status", b"offline", False)
    assert is_(who) == "offline"


def test_a_clock_that_is_wrong_makes_no_device_young_for_ever(who: Presence, clock: Clock) -> None:
    who.add(f"{BASE}/status", b"online", True)
    who.add(f"{BASE}/health", health(clock, ago=-1e9), True)
    assert is_(who) == "online"
    clock.now += 91
    assert is_(who) == "stale"


def test_what_is_meant_for_a_device_or_is_no_health_is_no_sign_of_life(who: Presence, clock: Clock) -> None:
    for topic in (
        f"{BASE}/cmd/ping",
        f"{BASE}/ack",
        "edge/v1/porch",
        "other/v1/porch/status",
        f"{BASE}/desired",
        GROUP,
    ):
        who.add(topic, b"online", False)
    assert not who.devices
    for bad in (b"", b"[]", b'{"every_s": "x"}', b'{"at": 5}', b"\xff", b'{"at": "no time"}', b'{"every_s": 1e300}'):
        who.add(f"{BASE}/health", bad, True)
    assert is_(who) == "online"
    clock.now += 86_400 * 3 + 1
    assert is_(who) == "stale"


def test_listen_says_who_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    clock.now = time.time()
    with broker(tmp_path) as server:
        with Visit(Broker(Mqtt(url=server.url)), "x") as visit:
            for name, ago in (("porch", 5.0), ("cellar", 4000.0)):
                visit.tell(f"edge/v1/{name}/status", b"online")
                visit.tell(f"edge/v1/{name}/health", health(clock, ago=ago, every_s=30))
        asked = ["listen", "--url", server.url, "--online", "--seconds", "1"]

        def rows() -> tuple[int, list[tuple[str, str]]]:
            code, out = main([*asked, "--quiet", "--json"]), capsys.readouterr().out
            return code, [(row["device"], row["is"]) for row in json.loads(out or "[]")]

        until(lambda: rows() == (1, [("cellar", "stale"), ("porch", "online")]), "who is there")
        told = "porch                 online    heard of"
        until(lambda: main([*asked, "--device", "porch"]) == 0 and told in capsys.readouterr().out, "the one is there")
        assert main(["listen", "--url", server.url, "--quiet", "--seconds", "1"]) == 2
        assert "--quiet: leaves nothing to print" in capsys.readouterr().err
