"""A config that a fleet shares, taken by an agent that runs: tried, turned to, watched, taken back."""

from __future__ import annotations

import threading
from pathlib import Path

import msgspec
import pytest

from edge_agent.agent.agent import Agent
from edge_agent.config import load
from edge_agent.fleet import verify
from edge_agent.fleet.bundle import Bundle, Wanted
from edge_agent.fleet.pack import pack
from tests.broker import until
from tests.fleet.made import publish, repository

CONFIG = """
[device]
id = "shop"
[store]
path = "store"
[update]
repository = "repo"
root = "repo/metadata/1.root.json"
config = "shop"
look = false
health = "1s"
[[pipeline]]
name = "own"
source = "lines:texts.txt"
"""


def pipelines(place: Path, **named: str) -> str:
    return "".join(f'[[pipeline]]\nname = "{name}"\nsource = "{source}"\n' for name, source in named.items())


def test_a_running_agent_turns_to_it_and_back_where_it_does_not_get_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tuf", reason="the extra [update] is not installed")
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    repo, found = repository(tmp_path / "repo", tmp_path / "keys"), dict[str, Bundle]()

    def look(asked: Wanted, *_: object) -> tuple[Bundle, bytes]:
        """What the child says of it has tests of its own."""
        return found[str(asked)], msgspec.json.encode(found[str(asked)])

    monkeypatch.setattr(verify, "found", look)
    (tmp_path / "texts.txt").touch()
    path, texts = tmp_path / "agent.toml", f"lines:{tmp_path / 'texts.txt'}"
    path.write_text(CONFIG)
    agent, stop = Agent(load(path), reread=lambda shared=None: load(path, shared=shared)), threading.Event()
    running = threading.Thread(target=agent.run, args=(stop,))
    running.start()

    def took(number: int, text: str) -> tuple[str, str]:
        (tmp_path / "shared.toml").write_text(text)
        bundle = publish(repo, pack(str(tmp_path / "shared.toml"), "shop", lambda path: pytest.fail()), "shop").bundle
        found[str(bundle.wanted)] = bundle
        assert agent.update is not None and bundle.number == number
        ended = agent.update.take(f"config/shop/{number}")
        return ended.state, ended.reason

    def runs() -> set[str]:
        return {line.config.name for line in agent.lines}

    try:
        assert took(1, pipelines(tmp_path, words=texts, more=texts)) == ("SUCCEEDED", "serves, and is healthy")
        assert runs() == {"words", "more"}
        state, why = took(2, pipelines(tmp_path, words=texts) + 'tasks = ["classify:none-such"]\n')
        assert state == "REJECTED" and 'no model "none-such"' in why and runs() == {"words", "more"}
        # nothing comes from there, which is seen once it is turned to and its thread has looked
        monkeypatch.setattr("edge_agent.agent.update.seconds", lambda health: 3.0)
        state, why = took(3, pipelines(tmp_path, door=f"lines:{tmp_path}/none.txt"))
        assert state == "FAILED" and "door: no sample came: reconnecting" in why and "serves again" in why
        until(lambda: runs() == {"words", "more"}, "the config before is turned to")
    finally:
        stop.set()
        running.join(60)
