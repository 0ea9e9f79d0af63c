"""The config on the page: the difference before it is written, comments kept, nobody overwritten, one click back."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent.agent.agent import Agent
from edge_agent.events import TextEvent
from tests.broker import until
from tests.ui.conftest import both
from tests.ui.serving import Answer, ask, at_work, comes_true, scene_of

from edge_agent.ui import settings  # isort: skip
from edge_agent.ui.config_text import Edit, edited, hidden, with_secrets  # isort: skip
from edge_agent.ui.server import Page  # isort: skip

CONFIG = "/api/v1/config"
TEXTS = '[[pipeline]]\nname = "said"  # what is said\nsource = "lines:{}"\n'


@pytest.fixture
def work(tmp_path: Path) -> Iterator[tuple[Agent, Page]]:
    (tmp_path / "texts").touch()
    with at_work(tmp_path, scene_of(tmp_path) + TEXTS.format(tmp_path / "texts")) as made:
        yield made


def base(made: Page) -> str:
    return str(ask(made, "GET", CONFIG).json["base"])


def put(made: Page, *edits: dict[str, Any], on: str = "", **more: Any) -> Answer:
    return ask(made, "PUT", CONFIG, {"base": on or base(made), "edits": list(edits), **more})


GATE = {"section": "zone", "name": "gate", "pipeline": "cam", "set": {"points": [[0, 0.5], [1, 0.5]], "line": True}}


def test_a_zone_is_added_changed_and_removed_and_all_else_stays(work: tuple[Agent, Page], tmp_path: Path) -> None:
    agent, made = work
    file = tmp_path / "agent.toml"
    before = file.read_text()
    shown = ask(made, "POST", f"{CONFIG}/preview", {"base": base(made), "edits": [GATE]}).json
    assert '+name = "gate"' in shown["diff"] and not shown["wrong"] and file.read_text() == before
    assert put(made, GATE).status == 200
    assert [zone.name for zone in agent.lines[0].zones] == ["yard", "gate"]
    assert set(before.splitlines()) <= set(file.read_text().splitlines()), "comments, too"
    more = {"section": "zone", "name": "yard", "pipeline": "cam", "set": {"stays": "60s"}, "drop": ["size"]}
    assert put(made, more).status == 200
    assert agent.lines[0].zones[0].stays == "60s" and file.read_text().count('name = "yard"') == 1
    assert put(made, {**GATE, "remove": True}).status == 200
    assert [zone.name for zone in agent.lines[0].zones] == ["yard"]
    assert put(made, {**GATE, "remove": True}).status == 409, "it is gone already"


def test_no_event_is_lost_while_it_is_taken_up(work: tuple[Agent, Page], tmp_path: Path) -> None:
    agent, made = work
    texts, stop, written = (tmp_path / "texts").open("a"), threading.Event(), list[str]()
    heard: list[str] = []
    agent.keep.listeners.append(lambda event: heard.append(event.text) if isinstance(event, TextEvent) else None)

    def write() -> None:
        while not stop.wait(0.005):
            written.append(f"text {len(written)}")
            print(written[-1], file=texts, flush=True)

    writer = threading.Thread(target=write)
    writer.start()
    until(lambda: len(heard) > 5, "texts come")
    for number in range(5):
        tasks = {"priority": 1 + number}
        assert put(made, {"section": "pipeline", "name": "said", "set": tasks}).status == 200
    stop.set()
    writer.join()
    until(lambda: len(heard) >= len(written), "all came")
    assert heard == written


def test_the_second_of_two_who_save_at_once_is_told(work: tuple[Agent, Page], tmp_path: Path) -> None:
    _, made = work
    seen = base(made)
    assert put(made, GATE, on=seen).status == 200
    late = put(made, {"section": "pipeline", "name": "cam", "set": {"priority": 9}}, on=seen)
    assert late.status == 409 and "somebody else has changed the config meanwhile" in late.json["error"]
    assert "priority" not in (tmp_path / "agent.toml").read_text()
    answers: list[int] = []
    now = base(made)

    def save(priority: int) -> None:
        change = {"section": "pipeline", "name": "cam", "set": {"priority": priority}}
        answers.append(put(made, change, on=now).status)

    threads = [threading.Thread(target=save, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [200, 409, 409, 409]


def test_what_is_wrong_is_refused_and_the_one_before_goes_on(work: tuple[Agent, Page], tmp_path: Path) -> None:
    agent, made = work
    file = tmp_path / "agent.toml"
    before, lines = file.read_text(), [line.config for line in agent.lines]
    for edit, says in (
        ({**GATE, "set": {"points": [[0, 0.5], [2, 0.5]], "line": True}}, "outside of the picture"),
        ({"section": "pipeline", "name": "cam", "set": {"tasks": ["detekt:detector", "track"]}}, "detekt"),
        ({"section": "pipeline", "name": "cam", "set": {"sauce": 1}}, "sauce"),
    ):
        got = put(made, edit)
        assert got.status == 400 and says in got.json["error"], got.body
    # what only the agent can tell: there is no such model
    got = put(made, {"section": "pipeline", "name": "cam", "set": {"tasks": ["detect:no-such-model", "track"]}})
    assert got.status == 400 and "the one before stands again" in got.json["error"]
    assert file.read_text() == before and [line.config for line in agent.lines] == lines
    got = ask(made, "POST", f"{CONFIG}/preview", {"base": base(made), "text": "[[pipeline"})
    assert got.status == 200 and got.json["wrong"]


def test_the_former_one_is_a_click_back(work: tuple[Agent, Page], tmp_path: Path) -> None:
    agent, made = work
    file = tmp_path / "agent.toml"
    before = file.read_text()
    assert ask(made, "POST", f"{CONFIG}/back", {"base": base(made)}).status == 404
    put(made, GATE)
    after = file.read_text()
    assert '-name = "gate"' in ask(made, "GET", f"{CONFIG}/former").json["diff"]
    assert ask(made, "POST", f"{CONFIG}/back", {"base": base(made)}).status == 200
    assert file.read_text() == before and [zone.name for zone in agent.lines[0].zones] == ["yard"]
    assert ask(made, "POST", f"{CONFIG}/back", {"base": base(made)}).status == 200
    assert file.read_text() == after, "and back again"
    kept = tmp_path / "page" / "configs"
    assert kept.stat().st_mode & 0o077 == 0 and all(path.stat().st_mode & 0o077 == 0 for path in kept.iterdir())


def test_it_keeps_its_mode_and_a_full_disk_leaves_it_whole(
    work: tuple[Agent, Page], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, made = work
    file = tmp_path / "agent.toml"
    file.chmod(0o600)
    assert put(made, GATE).status == 200 and file.stat().st_mode & 0o777 == 0o600
    before = file.read_text()

    def full(path: Path, data: bytes, **more: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(settings, "write_private", full)
    got = put(made, {**GATE, "remove": True})
    assert got.status == 507 and "No space left" in got.json["error"] and file.read_text() == before
    assert not list(tmp_path.glob(".agent.toml.*"))


def test_what_is_changed_elsewhere_is_only_shown(tmp_path: Path) -> None:
    (tmp_path / "texts").touch()
    with at_work(tmp_path, TEXTS.format(tmp_path / "texts"), edit=False) as (_, made):
        assert "changed elsewhere" in ask(made, "GET", CONFIG).json["locked"]
        got = put(made, {"section": "pipeline", "name": "said", "set": {"priority": 1}})
        assert got.status == 403 and "page.edit = false" in got.json["error"]


SECRETS = """# old: rtsp://me:older@cam/1
[[pipeline]]
name = "door"   # rtsp://me:comment@cam/2
source = "rtsp://me:geheim@192.168.1.20/stream1"
[[pipeline]]
name = "web"
source = "http://cam/video?user=me&password=geheim2"
"""


def test_passwords_are_hidden_and_stay() -> None:
    shown = hidden(SECRETS)
    assert not [word for word in ("geheim", "older", "comment") if word in shown] and 'name = "door"' in shown
    assert with_secrets(shown, SECRETS) == SECRETS
    changed = with_secrets(shown.replace('"door"', '"gate"').replace("stream1", "stream2"), SECRETS)
    assert 'name = "gate"' in changed and "rtsp://***@192.168.1.20/stream2" in changed, "of a new address it is asked"
    edit = Edit("pipeline", "door", set={"priority": 3})
    assert edited(SECRETS, [edit]).count("geheim") == 2


# ── in a browser ─────────────────────────────────────────────────────────────────────────────────────────


@both
def test_a_zone_is_drawn_on_the_picture(work: tuple[Agent, Page], tab: Any, tmp_path: Path) -> None:
    agent, made = work
    tab.goto(f"{made.address}#settings/cam")
    comes_true(tab, "document.querySelector('.view img')?.naturalWidth === 640")
    tab.get_by_role("button", name="New zone").click()
    tab.get_by_label("Name").fill("drive")
    draw = tab.locator("svg.draw")
    box = draw.bounding_box()
    for x, y in ((0.2, 0.2), (0.6, 0.2), (0.6, 0.7)):
        draw.click(position={"x": x * box["width"], "y": y * box["height"]})
    # a corner by keyboard
    tab.get_by_role("button", name="corner 3 of drive").focus()
    for _ in range(3):
        tab.keyboard.press("ArrowRight")
    tab.get_by_label("Loiters from").fill("30s")
    tab.get_by_label("Loiters from").blur()
    tab.get_by_label("Score from which a thing counts").fill("0.4")
    tab.get_by_label("Score from which a thing counts").blur()
    tab.get_by_role("region", name="Change").get_by_role("button", name="Show the change").click()
    comes_true(tab, "document.querySelector('.diff')?.textContent.includes('+name = \"drive\"')")
    tab.get_by_role("button", name="Write it").click()
    comes_true(tab, "document.querySelector('main').textContent.includes('the agent has taken it up')")
    zone = agent.lines[0].zones[-1]
    assert zone.name == "drive" and zone.stays == "30s" and "score=0.4" in agent.lines[0].config.tasks[0]
    assert [pytest.approx(point, abs=0.02) for point in zone.points] == [(0.2, 0.2), (0.6, 0.2), (0.63, 0.7)]
    tab.get_by_role("button", name="Back to it").click()
    until(lambda: len(agent.lines[0].zones) == 1, "the former one is there again")
