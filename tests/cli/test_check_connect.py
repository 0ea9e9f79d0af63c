"""``check --connect``: what it tries is tried, at a real broker with rights, and nobody hears of it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.cli import main
from edge_agent.config import Mqtt, parse
from edge_agent.link.rights import tried
from tests.broker import Consumer, Mosquitto, broker, free_port, password_file
from tests.conftest import ROOT
from tests.tiny import tiny_detector

ACL = """
user admin
topic readwrite #

user porch
topic write edge/v1/porch/#
topic read edge/v1/porch/cmd/+

user half
topic write edge/v1/porch/status
topic write edge/v1/porch/door/events
"""


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Mosquitto]:
    """A broker that knows three users, each with its name as password."""
    names = ("admin", "porch", "half")
    password_file(tmp_path / "users", **{name: name for name in names})
    for name in names:
        (tmp_path / f"{name}.password").write_text(f"{name}\n")
    (tmp_path / "acl").write_text(ACL)
    rules = f"allow_anonymous false\npassword_file {tmp_path}/users\nacl_file {tmp_path}/acl"
    with broker(tmp_path, config=rules) as it:
        yield it


def config(folder: Path, url: str, user: str, password: str, source: str) -> str:
    """A config of one pipeline, written to `folder`."""
    model = folder / "model"
    (folder / "agent.toml").write_text(
        f'[device]\nid = "porch"\n[store]\npath = "store"\n'
        f'[mqtt]\nurl = "{url}"\nusername = "{user}"\npassword_file = "{password}.password"\nack = true\n'
        "[rollout]\n"
        f'[[pipeline]]\nname = "door"\nsource = "{source}"\ntasks = ["detect:{model}"]\n'
    )
    return str(folder / "agent.toml")


def test_rights_are_asked_for_and_nothing_goes_out(
    tmp_path: Path, guarded: Mosquitto, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    tiny_detector(tmp_path / "model")
    pictures = f"files:{ROOT / 'deploy' / 'demo'}/*.png"
    admin = Mqtt(url=guarded.url, username="admin", password_file=str(tmp_path / "admin.password"))
    with Consumer(admin) as consumer:
        assert main(["check", "--connect", "-c", config(tmp_path, guarded.url, "porch", "porch", pictures)]) == 0
        said = capsys.readouterr().out
        for line in (
            "ok  door: a picture of ",
            "logged in as edge-agent-porch-check (MQTT 5)",
            "ok  mqtt: may publish edge/v1/porch/status",
            "ok  mqtt: may publish edge/v1/porch/door/events",
            "ok  mqtt: may subscribe to edge/v1/porch/cmd/+",
            "ok  mqtt: may subscribe to edge/v1/porch/ack",
            "ok  mqtt: may publish edge/v1/porch/reported",
            "ok  mqtt: may publish edge/v1/porch/jobs/$next/get",
            "ok  mqtt: may publish edge/v1/porch/jobs/JOB/update",
            "ok  mqtt: may subscribe to edge/v1/porch/jobs/notify-next",
            "ok  mqtt: may subscribe to edge/v1/porch/jobs/+/update/accepted",
            "ok  mqtt: may subscribe to edge/v1/porch/desired",
            "ok  store: ",
        ):
            assert line in said, said
        assert "\nNO " not in said
        assert main(["check", "--connect", "-c", config(tmp_path, guarded.url, "half", "half", pictures)]) == 1
        said = capsys.readouterr().out
        assert "ok  mqtt: may publish edge/v1/porch/door/events" in said
        assert "NO  mqtt: " in said and "edge/v1/porch/jobs/JOB/update" in said.partition("NO  ")[2]
        for tail in ("health", "door/state", "agent/events", "reply/ping"):
            assert f"NO  mqtt: may not publish edge/v1/porch/{tail} (Not authorized)" in said
        assert main(["check", "--connect", "-c", config(tmp_path, guarded.url, "porch", "half", pictures)]) == 1
        assert "NO  mqtt: " in (said := capsys.readouterr().out) and "Not authorized; check [mqtt] username" in said
        subprocess.run(
            ["mosquitto_pub", "-p", str(guarded.port), "-u", "admin", "-P", "admin", "-t", "last", "-m", "x"],
            check=True,
        )
        deadline = time.monotonic() + 30
        while consumer.last("last") is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert [topic for topic, _, _ in consumer.heard] == ["last"]


def test_what_is_not_there_is_said_and_secrets_are_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("edge_agent.agent.first.FIRST_S", 2.0)
    tiny_detector(tmp_path / "model")
    (tmp_path / "porch.password").write_text("x")
    path = config(tmp_path, "mqtt://127.0.0.1:1", "porch", "porch", "rtsp://ada:hunter2@127.0.0.1:1/s")
    assert main(["check", "--connect", "-c", path]) == 1
    said = "".join(capsys.readouterr())
    assert "NO  door: no picture within " in said and "Connection refused" in said
    assert "NO  mqtt: 127.0.0.1:1: " in said and "hunter2" not in said and "ada" not in said
    assert main(["check", "-c", path]) == 0
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.startswith("not tried: the login and the rights at the broker, a picture of door, a write")


def test_a_broker_of_3_1_1_says_nothing_of_rights() -> None:
    iotcore = pytest.importorskip("iotcore", reason="the extra [demo] is not installed")
    port = free_port()
    with iotcore.Broker(listen="127.0.0.1", port=port):
        rows = tried(parse(f'[mqtt]\nurl = "mqtt://127.0.0.1:{port}"\n[[pipeline]]\nname = "a"\nsource = "mqtt:x"\n'))
    assert [row.good for row in rows] == [True, True, True, None]
    assert "MQTT 3.1.1" in rows[0].told and rows[2].told == "mqtt: may subscribe to x"
    assert rows[3].told.startswith("mqtt: the right to publish cannot be known: by MQTT 3.1.1")


def test_a_text_is_not_taken_to_try(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    (tmp_path / "agent.toml").write_text(
        '[store]\npath = "store"\n[[pipeline]]\nname = "said"\nsource = "lines:said.txt"\n'
    )
    (tmp_path / "said.txt").write_text("one\n")
    assert main(["check", "--connect", "-c", str(tmp_path / "agent.toml")]) == 0
    assert "--  said: no text is taken from lines" in capsys.readouterr().out
