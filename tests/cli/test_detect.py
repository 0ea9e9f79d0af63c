"""`edge-agent detect` on folders, films, lists, addresses and cameras."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.cli.test_cli import run
from tests.conftest import lines_of
from tests.sources.servers import Camera, mjpeg_server, rtsp_server
from tests.tiny import tiny_detector


@pytest.fixture()
def model(tmp_path: Path) -> str:
    return str(tiny_detector(tmp_path / "model"))


@pytest.fixture()
def photos(tmp_path: Path, demo_pictures: Path) -> Path:
    """Two pictures, one of them again in a folder of its own, a broken one, a film of five frames and a text."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for name in ("coffee", "chelsea"):
        (folder / f"{name}.png").write_bytes((demo_pictures / f"{name}.png").read_bytes())
    (folder / "more" / "coffee.png").write_bytes((demo_pictures / "coffee.png").read_bytes())
    (folder / "broken.jpg").write_bytes(b"\xff\xd8nothing")
    (folder / "note.txt").write_text("no picture")
    film = cv2.VideoWriter(str(folder / "film.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for _ in range(5):
        film.write(np.random.default_rng(1).integers(0, 255, (48, 64, 3), np.uint8))
    film.release()
    return folder


def names(out: subprocess.CompletedProcess[str]) -> list[str]:
    return [json.loads(line)["image"].rpartition("/")[2] for line in out.stdout.splitlines()]


def test_a_folder_of_pictures_and_films(tmp_path: Path, model: str, photos: Path) -> None:
    out = run(tmp_path, "detect", model, str(photos), "--json", "--save", str(tmp_path / "drawn"))
    assert names(out) == ["chelsea.png", "coffee.png", *[f"film.avi#{i}" for i in range(5)]]
    assert out.returncode == 1
    (bad,) = out.stderr.splitlines()
    assert "broken.jpg: is cut off" in bad
    drawn = sorted(path.name for path in (tmp_path / "drawn").iterdir())
    assert drawn == ["chelsea.jpg", "coffee.jpg", *[f"film-{i:06}.jpg" for i in range(5)]]


def test_a_glob_a_list_and_a_limit_of_frames(tmp_path: Path, model: str, photos: Path) -> None:
    out = run(tmp_path, "detect", model, f"{photos}/**/c*.png", str(photos / "film.avi"), "--frames", "2", "--json")
    assert names(out) == ["chelsea.png", "coffee.png", "coffee.png", "film.avi#0", "film.avi#1"]
    assert out.returncode == 0, out.stderr
    listed = f"{photos}/coffee.png\n\n{photos}/none.png\n{photos}/chelsea.png\n"
    out = run(tmp_path, "detect", model, "-", "--json", stdin=listed)
    assert names(out) == ["coffee.png", "chelsea.png"] and out.returncode == 1
    assert "none.png: cannot be read" in out.stderr
    for nothing, said in ((f"{photos}/*.tiff", "no picture or video matches"), (str(tmp_path), "in this folder")):
        out = run(tmp_path, "detect", model, nothing, str(photos / "coffee.png"), "--json")
        assert names(out) == ["coffee.png"] and out.returncode == 1 and said in out.stderr


def test_no_file_is_drawn_over_another(tmp_path: Path, model: str, photos: Path) -> None:
    drawn, own = tmp_path / "drawn", b"my own"
    drawn.mkdir()
    (drawn / "chelsea.jpg").write_bytes(own)
    for _ in range(2):
        out = run(tmp_path, "detect", model, f"{photos}/**/c*.png", "--save", str(drawn))
        assert out.returncode == 0, out.stderr
        # what we drew ourselves is drawn anew
        assert sorted(path.name for path in drawn.iterdir()) == [
            "chelsea-2.jpg",
            "chelsea.jpg",
            "coffee-2.jpg",
            "coffee.jpg",
        ]
    assert (drawn / "chelsea.jpg").read_bytes() == own
    good, data = cv2.imencode(".jpg", np.zeros((9, 9, 3), np.uint8))
    assert good
    (photos / "x.jpg").write_bytes(data.tobytes())
    out = run(tmp_path, "detect", model, str(photos / "x.jpg"), "--save", str(photos))
    assert out.returncode == 0 and (photos / "x.jpg").read_bytes() == data.tobytes()
    assert (photos / "x-2.jpg").is_file()
    out = run(tmp_path, "detect", model, str(photos / "x.jpg"), "--save", str(photos / "x.jpg"))
    assert out.returncode == 2 and "that is the picture itself" in out.stderr


def test_cameras_and_a_picture_on_the_web(tmp_path: Path, model: str) -> None:
    with mjpeg_server(Camera()) as http, rtsp_server(Camera(64, 48)) as rtsp:
        web = f"http://me:secret@127.0.0.1:{http.port}"
        both = (f"{web}/video?key=abc", f"rtsp://me:secret@127.0.0.1:{rtsp.port}/x")
        out = run(tmp_path, "detect", model, *both, "--frames", "3", "--json")
        rows = [json.loads(line) for line in out.stdout.splitlines()]
        assert out.returncode == 0, out.stderr
        assert sorted((row["width"], row["height"]) for row in rows) == [(64, 48)] * 3 + [(160, 96)] * 3
        assert all(row["at"].endswith("+00:00") for row in rows)
        out2 = run(tmp_path, "detect", model, f"{web}/gone", f"{web}/page")
        assert "secret" not in out.stdout + out.stderr + out2.stdout + out2.stderr and "abc" not in out.stdout
        assert "HTTP 404" in out2.stderr and "answers text/html, not pictures" in out2.stderr
        one = run(tmp_path, "detect", model, f"{web}/snapshot", "--json")
        assert one.returncode == 0 and len(one.stdout.splitlines()) == 1
    out = run(tmp_path, "detect", model, both[1], "--seconds", "1")
    assert out.returncode == 1 and "gave no frame" in out.stderr and "refused" in out.stderr


def test_ctrl_c_ends_a_camera_well(tmp_path: Path, model: str) -> None:
    with mjpeg_server(Camera()) as server:
        argv = [sys.executable, "-m", "edge_agent", "detect", model, f"http://127.0.0.1:{server.port}/video"]
        environment = {**os.environ, "EDGE_AGENT_HOME": str(tmp_path / "home")}
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environment) as program:
            assert program.stdout is not None
            assert "160x96" in program.stdout.readline()
            program.send_signal(signal.SIGINT)
            assert program.wait(60) == 0


def test_wrong_addresses_are_wrong_usage(tmp_path: Path, model: str) -> None:
    for address, said in (
        ("rtsp://u:a#b@h/x", "write the signs"),
        ("http://h/x#fsp=3", "fsp"),
        ("camera:x", "camera:0"),
    ):
        out = run(tmp_path, "detect", model, address)
        assert out.returncode == 2 and said in out.stderr and len(lines_of(out.stderr)) == 1
