"""A broker of several nodes: any of them is taken, and another one when it is gone."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from edge_agent import config
from edge_agent.cli import main
from edge_agent.config import Mqtt
from edge_agent.errors import ConfigError
from edge_agent.events import TextEvent
from edge_agent.link.broker import Broker
from edge_agent.link.link import Link
from edge_agent.link.rights import tried
from edge_agent.outbox.outbox import Outbox
from tests.broker import Mosquitto, broker, free_port, until


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[list[Mosquitto]]:
    with ExitStack() as stack:
        made = []
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            made.append(stack.enter_context(broker(tmp_path / name)))
        yield made


def at(link: Link, nodes: list[Mosquitto]) -> Mosquitto:
    return next(node for node in nodes if node.port == link.broker.port)


def test_a_device_goes_to_another_node_and_back_and_everything_is_sent(nodes: list[Mosquitto], tmp_path: Path) -> None:
    box = Outbox(tmp_path / "store", "d")
    link = Link(Mqtt(url=[node.url for node in nodes]), "d", box)
    link.start()
    taken = []
    for count in range(4):
        until(lambda: link.connected, "it is connected")
        box.put(TextEvent(pipeline="p", at="2026-01-01T00:00:00Z", text=str(count)), "alert")
        until(lambda: box.empty, "its event is acknowledged")
        node = at(link, nodes)
        taken.append(node)
        node.stop(kill=True)
        until(lambda: link.connected and at(link, nodes) is not node, "it is at the other one")  # noqa: B023
        node.start()
    link.stop()
    box.close()
    assert taken in ([*nodes, *nodes], [*reversed(nodes), *reversed(nodes)])


def test_a_node_that_is_silent_or_has_no_address_costs_no_pause(nodes: list[Mosquitto], tmp_path: Path) -> None:
    box = Outbox(tmp_path / "store", "d")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        dead = [
            f"mqtt://127.0.0.1:{silent.getsockname()[1]}",
            "mqtt://nowhere.invalid",
            f"mqtt://127.0.0.1:{free_port()}",
        ]
        link = Link(Mqtt(url=[*dead, nodes[0].url]), "d", box)
        link.start()
        until(lambda: link.connected, "it is connected to the only one that answers")
        link.stop(drain=0)
    box.close()


def test_a_fleet_spreads_and_comes_back_elsewhere() -> None:
    urls = [f"mqtt://127.0.0.1:{port}" for port in (1, 2, 3)]
    firsts = set()
    for _ in range(100):
        asked = Broker(Mqtt(url=urls))
        asked.choose()
        firsts.add(asked.port)
        asked.worked()
        assert not asked.more
        round_ = []
        for _ in urls:
            asked.choose()
            round_.append(asked.port)
        assert sorted(round_) == [1, 2, 3] and round_[-1] == asked.port and not asked.more
    assert firsts == {1, 2, 3}


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ('["mqtt://a", "mqtt://a:1883"]', "stands twice"),
        ('["mqtts://a", "mqtt://b"]', "with TLS and without it"),
        ('["mqtt://a", "http://b"]', '"http://b" is not mqtt://'),
        ("[]", "the list is empty"),
        ("[1]", "mqtt.url"),
        ('["mqtt://a", "mqtt://b"]\nca = "x"', "write mqtts://"),
    ],
)
def test_a_list_that_is_wrong_is_refused_in_one_line(url: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        config.parse(f'[mqtt]\nurl = {url}\n[[pipeline]]\nname = "p"\nsource = "lines:x"')
    assert "\n" not in str(caught.value)


def test_check_and_listen_know_all_nodes(
    nodes: list[Mosquitto], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x").write_text("")
    urls, gone = [node.url for node in nodes], f"mqtt://127.0.0.1:{free_port()}"
    text = f'[mqtt]\nurl = {[*urls, gone]}\n[[pipeline]]\nname = "p"\nsource = "lines:x"'.replace("'", '"')
    (tmp_path / "agent.toml").write_text(text)
    assert main(["check", "-c", str(tmp_path / "agent.toml")]) == 0
    shown = capsys.readouterr().out
    assert all(f"127.0.0.1:{node.port}" in shown for node in nodes)
    rows = tried(config.load(tmp_path / "agent.toml"))
    for node in nodes:
        assert any(row.good and f"{node.port}: logged in" in row.told for row in rows)
    assert rows[-1].good is False and "refused" in rows[-1].told
    assert len([row for row in rows if "may publish" in row.told and "status" in row.told]) == 1
    until(lambda: main(["listen", "--url", ",".join([gone, *urls]), "--seconds", "2"]) == 0, "it is connected in time")
    assert "connected" in capsys.readouterr().err
