"""No password, user or token of an address comes out of the agent, wherever it went in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from edge_agent.config import Mqtt
from edge_agent.errors import ConfigError, FetchError, SourceError
from edge_agent.redact import redact, source_for_people
from edge_agent.registry import catalogue, download
from tests.broker import Consumer, broker, until
from tests.tiny import tiny_detector

SECRETS = ("S3cret", "root-user", "tok3n")
ADDRESSES = """
rtsp://root-user:S3cret@host/x
rtsp://root-user@host
rtsp://:S3cret@host
rtsp://root-user:12#S3cret@host/x
rtsp://root-user:S3c/S3cret?S3cret@host:554/x
rtsp://root-user:S3 S3cret@host
rtsp://root-user:S3cret@S3cret@host/x?channel=tok3n#fps=5
rtsp:/root-user:S3cret@host/x
root-user:S3cret@host/x
mqtts://root-user:S3cret@[::1]:8883
http://host/video?token=tok3n&x=1
http://host/video?x=tok3n#fps=5
http://host/video#tok3n
http://host/video#access_token=tok3n
theirs.module:open:http://root-user:S3cret@host/x?t=tok3n
ffmpeg -i "rtsp://root-user:S3cret@host/x?t=tok3n" -f rawvideo -
curl --password=S3cret --user='root-user' -H "Authorization: Bearer tok3n" -H 'X-Api-Key: tok3n'
AccountName=x;AccountKey=tok3n;SharedAccessSignature="tok3n"
https://root-user:S3cret@mirror.example/simple and http://root-user:S3cret@other.example/x
""".strip().splitlines()


@pytest.mark.parametrize("address", ADDRESSES)
def test_nothing_secret_is_left_and_the_host_is(address: str) -> None:
    for text in (address, f'pipeline door: "{address}": HTTP 404, try again', f"{address}: failed\n{address}"):
        left = redact(text)
        assert not any(secret in left for secret in SECRETS), left
        assert ("host" in left) == ("host" in address) and redact(left) == left
        for error in (ConfigError(text), SourceError(f"door: {ConfigError(text)}")):
            assert not any(secret in str(error) for secret in SECRETS), error


@pytest.mark.parametrize(
    "text",
    [
        "rtsp://host:554/stream#fps=5",
        "[h264 @ 0x1234] rtsp://host/x: error while decoding",
        '"files:photos?fps=2&loop=true": unknown option "lop"',
        "pypi:NAME==1.0#path/in/wheel",
        "detect:detector?classes=person,dog&score=0.5",
        "127.0.0.1:1883: Connection refused",
        "edge-yolo@2: at 12:30, monkey=1 width=640",
        "http://host: see https://docs.example/page.",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize("piece", ["a.", ",a", "a:", "://", "@", "token", "x-", "://a@", "?#", "bearer "])
def test_a_long_text_is_redacted_in_steps_that_grow_with_it(piece: str) -> None:
    """Quadratic, these would take minutes."""
    assert len(redact(piece * 20_000 + "=@://")) > 0


def test_of_a_program_only_its_name_is_said() -> None:
    assert source_for_people("pipe:ffmpeg -i x -pass S3cret -?width=4&height=4") == "pipe:ffmpeg …"
    assert source_for_people("lines:a?from=end") == "lines:a?from=end"


def verb(tmp_path: Path, *args: str, **environment: str) -> str:
    """All that a verb prints."""
    env = {**os.environ, "EDGE_AGENT_HOME": str(tmp_path / "home"), **environment}
    done = subprocess.run([sys.executable, "-m", "edge_agent", "-v", *args], capture_output=True, text=True, env=env)
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout + done.stderr


def config(tmp_path: Path, url: str | None, *sources: str) -> Path:
    model = tiny_detector(tmp_path / "model")
    pipes = "".join(
        f'[[pipeline]]\nname = "p{n}"\nsource = """{source}"""\n'
        + ("" if source.startswith("lines") else f'tasks = ["detect:{model}"]\n')
        for n, source in enumerate(sources)
    )
    file = tmp_path / "agent.toml"
    mqtt = f'[mqtt]\nurl = "{url}"\n' if url else ""
    file.write_text(f'[device]\nid = "porch"\n{mqtt}[store]\npath = "store"\n{pipes}')
    return file


CAMERAS = (
    "rtsp://root-user:S3cret@127.0.0.1:1/x?token=tok3n#fps=5",
    "http://root-user:S3cret@127.0.0.1:1/x?token=tok3n",
    "pipe:sh -c 'echo rtsp://root-user:S3cret@host/x?token=tok3n: refused >&2; exit 1'?width=4&height=4",
)


def test_check_says_where_and_not_with_what(tmp_path: Path) -> None:
    said = verb(tmp_path, "check", "-c", str(config(tmp_path, None, *CAMERAS)))
    # not what stands for the rest: that is as the locale can write it
    assert "127.0.0.1:1/x" in said and "pipe:sh " in said
    assert not any(secret in said for secret in SECRETS), said


@pytest.mark.parametrize(
    "source",
    [
        "rtsp://root-user:S3cret@host/x?token=tok3n#stal=3",
        "rtsp://root-user:S3cret@host:port/x?token=tok3n",
        "rtsp:root-user:S3cret@host",
        "root-user:S3cret@host/x",
        "root-user@host/x?token=tok3n",
        "http:///x?token=tok3n",
        "htp://root-user:S3cret@host/x?token=tok3n",
        "pipe:curl -u root-user:S3cret http://host/x?width=4",
        "pipe:curl -u root-user:S3cret http://host/x?width=4&height=a",
        "lines:/nowhere/x?token=tok3n",
        "nothing.here:attr:http://root-user:S3cret@host/x?token=tok3n",
    ],
)
def test_a_wrong_source_is_refused_without_its_secrets(tmp_path: Path, source: str) -> None:
    from edge_agent.cli import main

    file = config(tmp_path, None, source)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
        said: list[str] = []
        patch.setattr(sys.stderr, "write", said.append)
        patch.setattr(sys.stdout, "write", said.append)
        assert main(["check", "-c", str(file)]) == 2
    assert not any(secret in "".join(said) for secret in SECRETS), said


def test_other_verbs_hide_what_they_were_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = verb(tmp_path, "listen", "--url", "mqtt://root-user:S3cret@127.0.0.1:1?token=tok3n")
    said += verb(tmp_path, "listen", "rtsp://root-user:S3cret@host")
    said += verb(tmp_path, "models", "add", "http://root-user:S3cret@host/m.onnx?token=tok3n")
    said += verb(tmp_path, "run", "-c", str(config(tmp_path, "mqtt://root-user:S3cret@host", "lines:x")))
    assert said.count("edge-agent") >= 4 and not any(secret in said for secret in SECRETS), said


def test_a_pull_hides_the_mirror_s_password_and_that_of_pip_s_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = "http://root-user:S3cret@127.0.0.1:1/models?token=tok3n"
    monkeypatch.setattr(download, "PAUSES", (0.0, 0.0))
    for key, value in (("EDGE_AGENT_MODEL_MIRROR", mirror), ("PIP_INDEX_URL", mirror), ("PIP_RETRIES", "0")):
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    with pytest.raises(FetchError, match=r"127\.0\.0\.1:1") as caught:
        catalogue.pull("yolox-nano")
    assert not any(secret in str(caught.value) for secret in SECRETS), caught.value


def test_log_states_replies_and_health_hold_no_secret(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("see http://host/x?token=mine\n")
    with broker(tmp_path) as server, Consumer(Mqtt(url=server.url)) as consumer:
        file = config(tmp_path, server.url, *CAMERAS, f"lines:{tmp_path}/log.txt")
        env = {**os.environ, "EDGE_AGENT_HOME": str(tmp_path / "home")}
        command = [sys.executable, "-m", "edge_agent", "-v", "run", "-c", str(file)]
        agent = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)
        asker = Client(CallbackAPIVersion.VERSION2)
        asker.connect("127.0.0.1", server.port)
        asker.loop_start()

        def heard(tail: str, of: bytes) -> int:
            return len({topic for topic, payload, _ in consumer.heard if topic.endswith(tail) and of in payload})

        try:
            until(lambda: heard("/state", b"reconnecting") == 3 and heard("/events", b"token=mine"), "all say why")
            for verb_ in ("state", "health", "nonsense"):
                asker.publish(f"edge/v1/porch/cmd/{verb_}", f'{{"id": "{verb_}"}}'.encode(), qos=1)
            until(lambda: heard("reply/state", b"reconnecting") and heard("reply/health", b"rss"), "replies")
            until(lambda: heard("/health", b"rss") == 2, "health")
        finally:
            asker.loop_stop()
            agent.terminate()
            log, _ = agent.communicate(timeout=180)
    everything = b"\n".join(payload for topic, payload, _ in consumer.heard if "cmd" not in topic)
    assert not any(secret.encode() in everything for secret in SECRETS), everything
    assert not any(secret in log for secret in SECRETS) and "127.0.0.1:1" in log, log
