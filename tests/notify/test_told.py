"""The whole agent and a receiver: `edge-agent run`, ended, killed, and run again."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent.test_agent import AGENT, finish, start
from tests.agent.test_running import turning
from tests.broker import until
from tests.conftest import lines_of
from tests.notify.hook import Act, Hook, falls_over, hook


@pytest.fixture
def server() -> Iterator[Hook]:
    with hook() as made:
        yield made


def config(tmp_path: Path, server: Hook, source: str, more: str = "") -> Path:
    (tmp_path / "hook.url").write_text(f"{server.url}?token=t0psecret\n")
    (tmp_path / "hook.url").chmod(0o600)
    file = tmp_path / "agent.toml"
    file.write_text(
        f'[device]\nid = "porch"\n[store]\npath = "store"\n[[pipeline]]\nname = "said"\nsource = "{source}"\n'
        f'[[notify]]\nname = "phone"\nurl_file = "hook.url"\nkinds = ["text"]\nlimit = 3600\n{more}'
    )
    return file


def test_what_is_said_is_told_and_the_end_waits_for_it(tmp_path: Path, server: Hook) -> None:
    (tmp_path / "said.txt").write_text("one\ntwo\n")
    file = config(tmp_path, server, "lines:said.txt?follow=false", 'message = "{device} heard {text}"\n')
    said = finish(start(file))
    assert server.messages() == ["porch heard one", "porch heard two"] and "t0psecret" not in said
    check = subprocess.run([*AGENT, "check", "--notify", "-c", str(file)], capture_output=True, text=True)
    assert check.returncode == 0 and "ok  notify phone: took a test message" in check.stdout
    assert "t0psecret" not in check.stdout + check.stderr


def test_what_no_pipeline_gives_is_refused_by_name(tmp_path: Path, server: Hook, demo_pictures: Path) -> None:
    file = config(tmp_path, server, f"files:{demo_pictures}")
    text = file.read_text().replace("[[notify]]", 'tasks = ["detect:edge-yolo"]\n[[notify]]')
    for more, told in (
        ('kinds = ["object"]', 'notify phone: kinds: no pipeline that is meant gives "object"; write tasks = ["detect'),
        ('kinds = ["text"]', 'notify phone: kinds: no pipeline that is meant gives "text"'),
        ('kinds = ["detections"]\nlabels = ["persn"]', 'labels: "persn" is not found here; did you mean "person"?'),
        ('kinds = ["detections", "opinion"]\nlabels = ["Person", "yes"]', ""),
    ):
        file.write_text(text.replace('kinds = ["text"]', more))
        check = subprocess.run([*AGENT, "check", "-c", str(file)], capture_output=True, text=True)
        assert check.returncode == (2 if told else 0) and told in check.stderr and len(lines_of(check.stderr)) <= 1


def test_a_rule_is_told_when_it_comes_on_and_not_when_it_ends(tmp_path: Path, server: Hook) -> None:
    (tmp_path / "said.txt").write_text("all is well\nthe house is on fire\nall is well\n")
    file = config(tmp_path, server, "lines:said.txt?follow=false")
    rule = '[[rule]]\nname = "alarm"\nwhen = { text = "on fire", within = "1s" }\n'
    file.write_text(file.read_text().replace('kinds = ["text"]', 'rules = ["alarm"]') + rule)
    finish(start(file))
    finish(start(file))
    (request,) = server.taken
    assert request.json["title"] == "porch: alarm" and "on fire" in request.json["message"]
    assert request.json["event"]["phase"] == "on" and request.json["event"]["because"]


def test_a_receiver_that_is_away_ends_no_agent_and_is_told_after_the_next_start(tmp_path: Path, server: Hook) -> None:
    (tmp_path / "said.txt").write_text("one\ntwo\n")
    file = config(tmp_path, server, "lines:said.txt?follow=false")
    server.answers = [503]
    said = finish(start(file))
    assert "notify phone: HTTP 503" in said and not server.taken
    assert len(list((tmp_path / "store" / "notify" / "phone").glob("*.json"))) == 2
    finish(start(file))
    assert server.messages() == ['"one"', '"two"']
    # a receiver that the config has no more keeps nothing here
    file.write_text(file.read_text().replace('"phone"', '"mail"'))
    finish(start(file))
    assert [path.name for path in (tmp_path / "store" / "notify").iterdir()] == ["mail"]


def test_receivers_change_while_the_pipelines_go_on(tmp_path: Path, server: Hook) -> None:
    said = tmp_path / "said.txt"
    said.write_text("one\n")
    text = config(tmp_path, server, "lines:said.txt").read_text()

    def heard(word: str, as_: str) -> None:
        with said.open("a") as out:
            out.write(f"{word}\n")
        until(lambda: server.messages()[-1:] == [as_], f"{word} is told")

    with turning(tmp_path) as (agent, turn, _):
        until(lambda: server.messages() == ['"one"'], "it is told")
        (line,) = agent.lines
        turn(text + 'message = "heard {text}"\n')
        heard("two", "heard two")
        turn(text.replace('"phone"', '"mail"'))
        heard("three", '"three"')
        assert [path.name for path in (tmp_path / "store" / "notify").iterdir()] == ["mail"]
        turn(text.replace("hook.url", "none.url"))
        assert "none.url" in agent.state.refused
        heard("four", '"four"')
        turn(text.partition("[[notify]]")[0])
        assert agent.notices.about() == "off" and agent.lines == [line] and not line.ended
    assert len(server.taken) == 4


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.faults)])
def test_no_kill_costs_a_message(tmp_path: Path, server: Hook, kills: int) -> None:
    """At least once: what was kept is told, however often the agent is killed; more than once at most where a kill came
    between its being taken and our knowing of it, or between its being noted and its being kept.
    """
    chance, count = random.Random(23), 0
    choices: list[int | Act] = [200, 503, falls_over]
    server.choose = lambda: chance.choices(choices, [8, 1, 1])[0]
    log = tmp_path / "said.txt"
    log.write_text("")
    file = config(tmp_path, server, "lines:said.txt")
    for _ in range(kills):
        agent, before = start(file), len(server.taken)
        with log.open("a") as said:
            said.writelines(f"word {number}\n" for number in range(count, count + 10))
        count += 10
        some = before + chance.randrange(1, 8)
        until(lambda some=some: len(server.taken) >= some, "some came")  # type: ignore[misc]
        time.sleep(chance.random() * 0.05)
        agent.send_signal(signal.SIGKILL)
        agent.communicate()
    server.choose = lambda: 200
    file.write_text(file.read_text().replace("lines:said.txt", "lines:said.txt?follow=false"))
    finish(start(file))
    told = Counter(request.json["event"]["text"] for request in server.taken)
    assert not {f"word {number}" for number in range(count)} - told.keys(), "none was lost"
    twice = told.total() - count
    assert len(told) == count and 0 <= twice <= 2 * kills
    print(f"{kills} kills, {count} events, {len(server.requests)} requests, {twice} told twice")
