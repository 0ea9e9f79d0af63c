"""Logins, certificates and redirections of network cameras, against servers that are as real ones are."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import pytest

from edge_agent.errors import ConfigError
from edge_agent.sources import open_source
from edge_agent.sources.web import Login, challenges
from edge_agent.uri import parse_uri
from tests.sources.servers import Camera, Server, certificate, mjpeg_server, rtsp_server, running, served_with, talking

OK = b"HTTP/1.1 200 OK\r\n"


def stream(client: socket.socket, camera: Camera) -> None:
    client.sendall(OK + b"Content-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n")
    while True:
        data = camera.jpeg() or b""
        client.sendall(b"--frame\r\nContent-Length: %d\r\n\r\n%s\r\n" % (len(data), data))
        time.sleep(0.02)


# ── logins ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("algorithm", "response"),
    [
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ],
)
def test_the_example_of_the_standard(monkeypatch: pytest.MonkeyPatch, algorithm: str, response: str) -> None:
    """RFC 7616, 3.9.1."""
    nonce, own = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"
    monkeypatch.setattr("secrets.token_hex", lambda size: own)
    login = Login(urlsplit("http://Mufasa:Circle%20of%20Life@h/"))
    asked = f'Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm={algorithm}, nonce="{nonce}", '
    assert login.header("GET", "/") == {}
    assert login.learn([asked + 'opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"'], False)
    told = login.header("GET", "/dir/index.html")["Authorization"]
    assert f'response="{response}"' in told
    assert 'opaque="FQhe' in told and "nc=00000001" in told and f"algorithm={algorithm}" in told
    assert "nc=00000002" in login.header("GET", "/")["Authorization"], "a nonce serves again"


def test_challenges_in_one_header_and_in_several() -> None:
    headers = ['Negotiate, Digest realm="a, \\"b\\"", nonce=xy ,qop="auth",opaque=""', 'Basic realm="c"']
    assert challenges(headers) == [
        {"": "negotiate"},
        {"": "digest", "realm": 'a, "b"', "nonce": "xy", "qop": "auth", "opaque": ""},
        {"": "basic", "realm": "c"},
    ]


def test_the_strongest_is_answered_first_and_each_once() -> None:
    login = Login(urlsplit("http://u:p@h/"))
    asked = [
        'Basic realm="x", Digest realm="x", nonce="n", algorithm=MD5',
        'Digest realm="x",nonce="n",algorithm=SHA-256',
    ]
    for kind in ("SHA-256", "MD5", "Basic"):
        assert login.learn(asked, kind != "SHA-256")
        assert kind in login.header("GET", "/")["Authorization"]
    assert not login.learn(asked, True)
    login.begin()
    assert login.learn(asked, False)
    assert not Login(urlsplit("http://h/")).learn(asked, False), "without a user nothing is answered"
    assert not Login(urlsplit("http://u:p@h/")).learn(['Digest realm="x", nonce="n", algorithm=WHIRLPOOL'], False)


def guarded(kind: str, challenge: str, seen: list[str]) -> Callable[[socket.socket, str], None]:
    """A camera that knows one kind of Digest, and gives each nonce for three requests."""
    state = {"nonce": 0, "left": 0}
    camera = Camera()

    def h(text: str) -> str:
        return hashlib.new(kind, text.encode()).hexdigest()

    def serve(client: socket.socket, request: str) -> None:
        if not request:
            return  # only looked whether anybody is there
        told = dict(re.findall(r'(\w+)="?([^",\r]*)"?', request.partition("Authorization: Digest")[2].split("\r\n")[0]))
        nonce = f"n{state['nonce']}"
        middle = f"{nonce}:{told.get('nc')}:{told.get('cnonce')}:auth"
        right = h(f"{h('admin:cam:p@ss#w:rd/1')}:{middle}:{h('GET:/shot?x=1')}")
        if told.get("response") != right or not state["left"]:
            state["nonce"], state["left"] = state["nonce"] + 1, 3
            stale = ", stale=true" if told.get("response") == right else ""
            asked = challenge.replace("NONCE", f"n{state['nonce']}")
            head = f"HTTP/1.1 401 Unauthorized\r\n{asked}{stale}\r\nContent-Length: 0\r\n\r\n"
            client.sendall(head.encode())
            seen.append("asked")
            return
        state["left"] -= 1
        seen.append(told["nc"])
        data = camera.jpeg() or b""
        client.sendall(OK + b"Content-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(data) + data)

    return serve


BASIC = 'WWW-Authenticate: Basic realm="x"'
MD5 = 'WWW-Authenticate: Digest realm="cam", qop="auth", nonce="NONCE"'
SHA = 'WWW-Authenticate: Digest realm="cam", qop="auth,auth-int", nonce="NONCE", opaque="o", algorithm=SHA-256'


@pytest.mark.parametrize(
    ("kind", "challenge"),
    [
        ("md5", MD5),
        ("sha256", SHA),
        ("sha256", f'WWW-Authenticate: Basic realm="x"\r\n{SHA}'),
        ("md5", f"{SHA}\r\n{MD5}"),
    ],
)
def test_digest_of_each_kind(kind: str, challenge: str) -> None:
    seen: list[str] = []
    with talking(guarded(kind, challenge, seen)) as server:
        address = f"http://admin:p%40ss%23w%3Ard%2F1@127.0.0.1:{server.port}/shot?x=1#fps=50"
        with running(open_source(parse_uri(address))) as it:
            it.until_frames(8)
            assert it.states == ["ok"], "also where a nonce has become too old"
    good = [one for one in seen if one != "asked"]
    assert good[:3] == ["00000001", "00000002", "00000003"], "one challenge for several pictures"


def test_a_wrong_password_is_said_without_it() -> None:
    with (
        talking(guarded("sha256", SHA, [])) as server,
        running(open_source(parse_uri(f"http://admin:wr0ng@127.0.0.1:{server.port}/shot?x=1"))) as it,
    ):
        it.until_state("reconnecting")
        assert "the user or the password is wrong" in it.whys[0] and "wr0ng" not in it.whys[0]


@pytest.mark.parametrize("scheme", ["http", "rtsp", "rtsps", "https"])
@pytest.mark.parametrize("secret", ["12#34", "12?34", "12/34", "#34", "a/b#c?d", "a?b=c", "12#a=4", "12[3"])
def test_signs_in_a_password_that_end_an_address(scheme: str, secret: str) -> None:
    with pytest.raises(ConfigError, match=r"write the signs # . / @ and % of a user or password as %23") as caught:
        open_source(parse_uri(f"{scheme}://admin:{secret}@192.168.1.20/stream#fps=5"))
    assert secret not in str(caught.value) and "\n" not in str(caught.value)


def test_an_at_sign_behind_the_host_is_no_user() -> None:
    for rest in ("h/a@b", "h/a?mail=a@b", "h:8080/live/a@b", "u:p@h:8080/x@y", "u:p%23%40@h"):
        open_source(parse_uri(f"http://{rest}#fps=5"))


# ── redirections ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_camera_leads_to_its_own_host_alone() -> None:
    met: list[str] = []
    camera = Camera()

    def victim(client: socket.socket, request: str) -> None:
        met.append(request)

    with talking(victim) as other:

        def serve(client: socket.socket, request: str) -> None:
            path = request.split()[1]
            if path == "/stream":
                stream(client, camera)
            place = {
                "/own": "/stream",
                "/whole": f"http://127.0.0.1:{server.port}/stream",
                "/away": f"http://localhost:{other.port}/",
                "/odd": "http://[nonsense",
                "/file": "file:///etc/passwd",
                "/circle": "/circle",
            }[path]
            client.sendall(f"HTTP/1.1 302 Found\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n".encode())

        with talking(serve) as server:
            for path in ("own", "whole"):
                with running(open_source(parse_uri(f"http://u:p@127.0.0.1:{server.port}/{path}"))) as it:
                    it.until_frames(2)
            for path, said in (
                ("away", "leads to another host"),
                ("odd", "leads to an address that is none"),
                ("file", "leads to another host"),
                ("circle", "leads in a circle"),
            ):
                with running(open_source(parse_uri(f"http://u:p@127.0.0.1:{server.port}/{path}"))) as it:
                    it.until_state("reconnecting")
                    assert said in it.whys[0]
    assert met == []


def test_a_film_on_the_web_leads_nowhere_else_either(tmp_path: Path) -> None:
    """FFmpeg asks for it again, and may then be told something else."""
    film = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(film), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for _ in range(20):
        writer.write(Camera(64, 48).picture())
    writer.release()
    data = film.read_bytes()
    met: list[str] = []
    asked: list[str] = []

    with talking(lambda client, request: met.append(request)) as other:

        def serve(client: socket.socket, request: str) -> None:
            path = request.split()[1]
            asked.append(path)
            if path == "/moved":
                client.sendall(b"HTTP/1.1 302 Found\r\nLocation: /film\r\nContent-Length: 0\r\n\r\n")
            elif path == "/trap" and asked.count(path) > 1:
                place = f"http://localhost:{other.port}/"
                client.sendall(f"HTTP/1.1 302 Found\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n".encode())
            else:
                head = b"Content-Type: video/x-msvideo\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(data)
                client.sendall(OK + head + data)

        with talking(serve) as server:
            with running(open_source(parse_uri(f"http://u:p@127.0.0.1:{server.port}/moved"))) as it:
                it.until_frames(1)
            with running(open_source(parse_uri(f"http://u:p@127.0.0.1:{server.port}/trap#stall=1"))) as it:
                it.until(lambda: asked.count("/trap") > 2, "another try")
    assert met == []


# ── certificates ────────────────────────────────────────────────────────────────────────────────────────────


def test_rtsps_and_https_verify_before_anything_is_said(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path, "IP:127.0.0.1")
    asked: list[str] = []

    class Counted(Camera):
        def jpeg(self) -> bytes | None:
            asked.append("picture")
            return super().jpeg()

    camera = Counted()
    tls = served_with(cert, key)
    with rtsp_server(camera, tls) as rtsp, mjpeg_server(camera, tls) as http:
        addresses = (f"rtsps://u:p@127.0.0.1:{rtsp.port}/x", f"https://u:p@127.0.0.1:{http.port}/video")
        for address in addresses:
            with running(open_source(parse_uri(address))) as it:
                it.until_state("reconnecting")
                assert "its certificate is not trusted (self-signed certificate)" in it.whys[0]
                assert not asked and not it.frames
        for address in addresses:
            with running(open_source(parse_uri(f"{address}#ca={cert}"))) as it:
                it.until_frames(3)
            with running(open_source(parse_uri(f"{address}#verify=no"))) as it:
                it.until_frames(3)


def test_a_certificate_of_another_name_is_refused_unless_the_name_does_not_count(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path, "DNS:not-this-one")
    camera = Camera()
    with rtsp_server(camera, served_with(cert, key)) as server:
        address = f"rtsps://u:p@127.0.0.1:{server.port}/x#ca={cert}"
        with running(open_source(parse_uri(address))) as it:
            it.until_state("reconnecting")
            assert "its certificate is not trusted" in it.whys[0] and "127.0.0.1" in it.whys[0]
        with running(open_source(parse_uri(f"{address}&verify=chain"))) as it:
            it.until_frames(3)
            server.stop()
            it.until_state("reconnecting")
            server.start()
            it.until(lambda: it.states[-1] == "ok", "the way back")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("rtsp://h/x#verify=no", "are for https and rtsps"),
        ("rtsps://h/x#verify=off", "give yes or chain or no"),
        ("rtsps://h/x#ca=/not/there.pem", "no certificates can be read there"),
        ("https://h/x#ca=/not/there.pem&verify=no", "leave one of them out"),
    ],
)
def test_wrong_options_of_certificates(address: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        open_source(parse_uri(address))


# ── where FFmpeg is led ─────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture()
def canary() -> Iterator[Server]:
    """Another host of the network; nobody has a reason to connect to it."""
    with talking(lambda client, request: None) as server:
        yield server
        assert server.connections == 0


MOVED = "RTSP/1.0 302 Found\r\nCSeq: 1\r\nLocation: PLACE\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (MOVED, "leads to another host"),
        ("RTSP/1.0\t+302 Found\r\nlo\rcation:PLACE\n\n", "leads to another host"),
        ("RTSP/1.0 302 Found\r\n$\0\0\x08content-Location: PLACE\r\n\r\n", "leads "),
        ("RTSP/1.0 302 Found\r\nCSeq: 1\r\n\r\n", "leads in a circle"),
        (MOVED.replace("PLACE", "/x"), "leads in a circle"),
        (MOVED.replace("PLACE", "http://localhost/"), "leads to another host"),
    ],
)
@pytest.mark.parametrize("step", [1, 1000])
def test_an_rtsp_camera_leads_to_its_own_host_alone(canary: Server, answer: str, said: str, step: int) -> None:
    """However it says so, and in whatever pieces that comes."""

    def serve(client: socket.socket, request: str) -> None:
        told = answer.replace("PLACE", f"rtsp://localhost:{canary.port}/").encode("latin-1")
        for at in range(0, len(told), step):
            client.sendall(told[at : at + step])
        client.recv(10)

    with talking(serve) as server, running(open_source(parse_uri(f"rtsp://u:p@127.0.0.1:{server.port}/x"))) as it:
        it.until_state("reconnecting")
        assert said in it.whys[0]


def test_an_rtsp_camera_may_move_on_its_own_host(tmp_path: Path, canary: Server) -> None:
    cert, key = certificate(tmp_path, "IP:127.0.0.1")

    def serve(client: socket.socket, request: str) -> None:
        place = f"rtsp://127.0.0.1:{canary.port if server.tls else plain.port}/x"
        client.sendall(MOVED.replace("PLACE", place).encode())
        client.recv(10)

    with rtsp_server(Camera()) as plain, talking(serve) as server:
        with running(open_source(parse_uri(f"rtsp://u:p@127.0.0.1:{server.port}/x"))) as it:
            it.until_frames(3)
        server.tls = served_with(cert, key)
        with running(open_source(parse_uri(f"rtsps://u:p@127.0.0.1:{server.port}/x#ca={cert}&stall=1"))) as it:
            it.until_state("reconnecting")
            assert "leads from rtsps to rtsp" in it.whys[0]


@pytest.mark.parametrize("kind", ["video/mp4", "application/vnd.apple.mpegurl", "application/sdp"])
@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2.0,\nhttp://PLACE/a.ts\n#EXTINF:2.0,\nhttp://PLACE/b.ts\n",
            "HLS",
        ),
        (b"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1280000\nhttp://PLACE/a.m3u8\n", "HLS"),
        (b"<?xml version='1.0'?><MPD><BaseURL>http://PLACE/</BaseURL></MPD>", "DASH"),
        (b"ffconcat version 1.0\nfile 'http://PLACE/a.ts'\n", "no video"),
        (b"v=0\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 26\na=control:rtsp://PLACE/\n", "no video"),
    ],
)
def test_a_list_of_places_leads_nowhere(canary: Server, kind: str, body: bytes, said: str) -> None:
    told = body.replace(b"PLACE", f"localhost:{canary.port}".encode())

    def serve(client: socket.socket, request: str) -> None:
        head = f"Content-Type: {kind}\r\nContent-Length: {len(told)}\r\nConnection: close\r\n\r\n"
        client.sendall(OK + head.encode() + told)

    with talking(serve) as server, running(open_source(parse_uri(f"http://u:p@127.0.0.1:{server.port}/x"))) as it:
        it.until_state("reconnecting")
        assert said in it.whys[0]


def test_ffmpeg_opens_no_list_of_places_itself(canary: Server, tmp_path: Path) -> None:
    """It may be given something else than what we looked at, or a file."""
    place = f"http://localhost:{canary.port}/a.ts"
    told = f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2.0,\n{place}\n#EXT-X-ENDLIST\n".encode()
    (tmp_path / "film.mp4").write_bytes(told)

    def serve(client: socket.socket, request: str) -> None:
        head = f"Content-Type: application/vnd.apple.mpegurl\r\nContent-Length: {len(told)}\r\n\r\n"
        client.sendall(OK + head.encode() + told)

    with talking(serve) as server:
        for where in (f"http://127.0.0.1:{server.port}/x.m3u8", str(tmp_path / "film.mp4")):
            assert not cv2.VideoCapture(where, cv2.CAP_FFMPEG).isOpened()
        assert server.connections


def test_what_somebody_sets_for_ffmpeg_counts_and_the_rest_stays() -> None:
    ask = "import os, edge_agent.pictures.read; print(os.environ['OPENCV_FFMPEG_CAPTURE_OPTIONS'])"
    run = [sys.executable, "-c", ask]
    env = {**os.environ, "OPENCV_FFMPEG_CAPTURE_OPTIONS": "rtsp_transport;udp|threads;1"}
    said = subprocess.run(run, env=env, check=True, capture_output=True, text=True).stdout.strip().split("|")
    assert said[:2] == ["rtsp_transport;udp", "threads;1"] and "rtsp_transport;tcp" not in said
    assert "max_redirects;0" in said and any(part.startswith("format_whitelist;rtsp,") for part in said)
