"""`edge-agent doctor --cameras` against a device of our own on 127.0.0.1, which may lie."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from edge_agent.cli import main
from edge_agent.device import onvif, soap

MATCH = (
    '<e:Envelope xmlns:e="http://www.w3.org/2003/05/soap-envelope" xmlns:d="urn:d"><e:Body>'
    "<d:ProbeMatches><d:ProbeMatch>"
    "<d:Scopes>onvif://www.onvif.org/type/video onvif://www.onvif.org/name/Front%20Door</d:Scopes>"
    "<d:XAddrs>http://192.0.2.1/onvif http://HOST/onvif/device_service</d:XAddrs></d:ProbeMatch></d:ProbeMatches>"
    "</e:Body></e:Envelope>"
)
BODY = '<e:Envelope xmlns:e="http://www.w3.org/2003/05/soap-envelope" xmlns:t="urn:t"><e:Body>{}</e:Body></e:Envelope>'
AHEAD = timedelta(days=400)
"""the device's clock is wrong, as that of a camera without a time server"""


class Device:
    """Answers probes and requests; `answers` holds what it says instead of the truth."""

    def __init__(self) -> None:
        self.answers: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.password = ""
        self.drip = False
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: object) -> None:
                pass

            def do_POST(self) -> None:
                text = self.rfile.read(int(self.headers["Content-Length"])).decode()
                found = re.search(r"<s:Body><(\w+)", text)
                assert found
                outer.asked.append(found[1])
                good = found[1] == "GetSystemDateAndTime" or outer.lets_in(text)
                data = (
                    outer.answers.get(found[1], outer.truth(found[1], text))
                    if good
                    else b"<Fault>NotAuthorized</Fault>"
                )
                self.send_response(200 if good else 400)
                self.end_headers()
                if outer.drip:
                    for _ in range(600):
                        self.wfile.write(b" ")
                        time.sleep(0.05)
                self.wfile.write(data)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.host = f"127.0.0.1:{self.http.server_port}"
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", 0))
        self.match = MATCH.replace("HOST", self.host).encode()
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()
        threading.Thread(target=self._answer, daemon=True).start()

    def _answer(self) -> None:
        try:
            while True:
                data, sender = self.udp.recvfrom(65535)
                assert b"NetworkVideoTransmitter" in data
                self.udp.sendto(self.match, sender)
        except OSError:
            pass

    def lets_in(self, text: str) -> bool:
        """Whether the digest is right, and of this device's time."""
        if not self.password:
            return True
        found = {
            name: re.search(rf"<\w:{name}(?: [^>]*)?>([^<]*)<", text)
            for name in ("Username", "Password", "Nonce", "Created")
        }
        said = {name: match[1] for name, match in found.items() if match}
        if len(said) < 4 or said["Username"] != "me":
            return False
        digest = hashlib.sha1(
            base64.b64decode(said["Nonce"]) + said["Created"].encode() + self.password.encode()
        ).digest()
        created = datetime.fromisoformat(said["Created"].replace("Z", "+00:00"))
        now = datetime.now(timezone.utc) + AHEAD
        return base64.b64encode(digest).decode() == said["Password"] and abs(created - now) < timedelta(minutes=5)

    def truth(self, name: str, text: str) -> bytes:
        now = datetime.now(timezone.utc) + AHEAD
        clock = f"<t:Hour>{now.hour}</t:Hour><t:Minute>{now.minute}</t:Minute><t:Second>{now.second}</t:Second>"
        day = f"<t:Year>{now.year}</t:Year><t:Month>{now.month}</t:Month><t:Day>{now.day}</t:Day>"
        profile = (
            '<t:Profiles token="{0}"><t:Name>{0}</t:Name><t:VideoEncoderConfiguration><t:Encoding>H264</t:Encoding>'
            "<t:Resolution><t:Width>{1}</t:Width><t:Height>{2}</t:Height></t:Resolution></t:VideoEncoderConfiguration>"
            "</t:Profiles>"
        )
        token = re.search("<ProfileToken>(.*)</ProfileToken>", text)
        told = {
            "GetSystemDateAndTime": f"<t:UTCDateTime>{clock}{day}</t:UTCDateTime>",
            "GetCapabilities": f"<t:Media><t:XAddr>http://{self.host}/onvif/media</t:XAddr></t:Media>",
            "GetProfiles": profile.format("main", 1920, 1080) + profile.format("sub", 640, 360),
            "GetStreamUri": f"<t:Uri>rtsp://root:pw@127.0.0.1/{token and token[1]}?channel=1&amp;password=pw</t:Uri>",
        }
        return BODY.format(told[name]).encode()


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    made = Device()
    monkeypatch.setattr(onvif, "GROUP", made.udp.getsockname())
    monkeypatch.setattr(onvif, "WAIT_S", 0.3)
    monkeypatch.setattr(soap, "ASK_S", 1.0)
    yield made
    made.udp.close()
    made.http.shutdown()
    made.http.server_close()


def test_it_lists_what_is_there_and_its_streams(device: Device, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--cameras"]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        "127.0.0.1  Front Door",
        "  rtsp://127.0.0.1/main?channel=1&password=***  H264 1920x1080  main",
        "  rtsp://127.0.0.1/sub?channel=1&password=***  H264 640x360  sub",
    ]
    assert "UDP to 127.0.0.1" in said.err


def test_json_and_a_login_by_the_clock_of_the_device(
    device: Device, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    device.password = "it's <secret>"
    login = tmp_path / "login"
    login.write_text(f"me:{device.password}\n")
    login.chmod(0o600)
    assert main(["doctor", "--cameras", "--json", "--credentials", str(login)]) == 0
    said = capsys.readouterr()
    (row,) = json.loads(said.out)
    assert (row["host"], row["name"], row["wrong"]) == ("127.0.0.1", "Front Door", "")
    assert [(one["profile"], one["width"]) for one in row["streams"]] == [("main", 1920), ("sub", 640)]
    assert "secret" not in said.out + said.err and "pw" not in said.out
    assert main(["doctor", "--cameras"]) == 0
    assert "wants a user and password" in capsys.readouterr().out


BOMB = b'<!DOCTYPE a [<!ENTITY b "' + b"x" * 1000 + b'">]><a>' + b"&b;" * 1000 + b"</a>"


@pytest.mark.parametrize(
    ("name", "answer", "said"),
    [
        ("GetCapabilities", BOMB, "a document type"),
        ("GetCapabilities", BOMB.decode().encode("utf-16"), "no UTF-8"),
        ("GetCapabilities", b"<a>" * 100_000, "no XML"),
        ("GetCapabilities", b"<a>" * 60_000 + b"</a>" * 60_000, "names no media service of its own"),
        ("GetCapabilities", b" " * (600 << 10), "more than 512 KiB"),
        ("GetCapabilities", b"", "no XML"),
        ("GetCapabilities", b"<Media><XAddr>http://192.0.2.1/media</XAddr></Media>", "no media service of its own"),
        ("GetCapabilities", b"<Media><XAddr>http://127.0.0.1:99999/</XAddr></Media>", "no media service of its own"),
        ("GetProfiles", b"<Fault><Text>busy\x1b[31m</Text></Fault>", "no XML"),
        ("GetProfiles", b"<Fault><Text>busy</Text></Fault>", "refuses with status 200: busy"),
    ],
)
def test_a_device_that_lies_is_a_line(
    device: Device, capsys: pytest.CaptureFixture[str], name: str, answer: bytes, said: str
) -> None:
    device.answers[name] = answer
    assert main(["doctor", "--cameras"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("127.0.0.1  Front Door: ") and said in out and len(out.splitlines()) == 1


def test_a_device_that_answers_drop_by_drop_is_left(device: Device, capsys: pytest.CaptureFixture[str]) -> None:
    device.drip = True
    assert main(["doctor", "--cameras"]) == 0
    assert "no whole answer within 1 s" in capsys.readouterr().out


def test_no_end_of_profiles_and_a_name_that_moves_the_cursor(
    device: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    device.answers["GetProfiles"] = BODY.format('<Profiles token="a"><Name>&#x9b;2J</Name></Profiles>' * 500).encode()
    assert main(["doctor", "--cameras"]) == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 1 + onvif.MOST_STREAMS and "\x9b" not in out and "0x0  ?2J" in out


@pytest.mark.parametrize("match", [b"", b"\xff\xfe", b"<a/>", BOMB, b"x" * 60_000])
def test_noise_instead_of_an_answer_is_no_camera(
    device: Device, capsys: pytest.CaptureFixture[str], match: bytes
) -> None:
    device.match = match
    assert main(["doctor", "--cameras"]) == 1
    assert "no camera answered" in capsys.readouterr().err and not device.asked


def test_a_device_that_names_another_host_is_not_followed(device: Device, capsys: pytest.CaptureFixture[str]) -> None:
    device.match = MATCH.replace("HOST", "192.0.2.2").encode()
    assert main(["doctor", "--cameras"]) == 0
    assert "gives no address of its own" in capsys.readouterr().out and not device.asked


@pytest.mark.parametrize("text", [None, "", "me", "me:a\nb", "x" * 5000])
def test_a_login_that_cannot_be_read_is_a_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str | None
) -> None:
    if text is not None:
        (tmp_path / "login").write_text(text)
    assert main(["doctor", "--cameras", "--credentials", str(tmp_path / "login")]) == 2
    assert str(tmp_path / "login") in capsys.readouterr().err


def test_nothing_is_sent_unasked(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_agent.cli.doctor.examine", lambda config: [])
    assert main(["doctor"]) == 0
    assert main(["doctor", "--credentials", "x"]) == 2
    device.udp.settimeout(0.2)
    assert not device.asked
