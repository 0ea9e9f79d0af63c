"""The verbs as a user types them, in a process of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from edge_agent.cli import say
from edge_agent.cli.say import width
from tests.broker import broker, until
from tests.conftest import lines_of
from tests.nets import blob_finder_onnx
from tests.tiny import tiny_detector


def run(
    tmp_path: Path, *args: str, stdin: str | bytes | None = None, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "EDGE_AGENT_HOME": str(tmp_path / "home"), **(env or {})}
    done = subprocess.run(
        [sys.executable, "-m", "edge_agent", *args],
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        capture_output=True,
        env=environment,
    )
    out = subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())
    assert "Traceback" not in out.stderr, out.stderr
    return out


def test_detect_prints_the_promised_object_and_draws(tmp_path: Path, demo_pictures: Path) -> None:
    model = tiny_detector(tmp_path / "model")
    picture = str(demo_pictures / "coffee.png")
    out = run(tmp_path, "detect", str(model), picture, "--json", "--save", str(tmp_path / "out" / "x.jpg"))
    assert out.returncode == 0, out.stderr
    (line,) = out.stdout.splitlines()
    row = json.loads(line)
    assert (row["image"], row["width"], row["height"]) == (picture, 600, 400)
    (found,) = row["detections"]
    assert found["label"] == "person" and found["class_id"] == 0 and 0 < found["score"] < 1
    # 16..48 of 64 px; the picture is 64 x 43 of them (42.67 rounded) with 10 px of grey above
    assert found["box"] == pytest.approx([150, 6 / 43 * 400, 450, 38 / 43 * 400], abs=0.02)
    assert set(row["spent_ms"]) == {"decode", "prepare", "infer", "finish"}
    drawn, plain = cv2.imread(str(tmp_path / "out" / "x.jpg")), cv2.imread(picture)
    assert drawn is not None and plain is not None and drawn.shape == plain.shape
    assert np.abs(drawn[45:55, 200:400].astype(int) - plain[45:55, 200:400]).max() > 60


def test_detect_goes_on_past_a_bad_picture_and_says_no_at_the_end(tmp_path: Path, demo_pictures: Path) -> None:
    model = tiny_detector(tmp_path / "model")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8nothing")
    good = str(demo_pictures / "coffee.png")
    out = run(tmp_path, "detect", str(model), str(tmp_path / "broken.jpg"), str(tmp_path / "none.png"), good)
    assert out.returncode == 1
    assert "coffee.png 600x400: person" in out.stdout
    assert [line.split(":")[1].strip().rpartition("/")[2] for line in out.stderr.splitlines()] == [
        "broken.jpg",
        "none.png",
    ]


def test_detect_on_pictures_of_every_kind(tmp_path: Path) -> None:
    model = tiny_detector(tmp_path / "model")
    rng = np.random.default_rng(0)
    kinds = {
        "one.png": np.full((1, 1, 3), 200, np.uint8),
        "grey.png": rng.integers(0, 255, (40, 30), np.uint8),
        "alpha.png": rng.integers(0, 255, (30, 50, 4), np.uint8),
        "huge.png": np.full((6000, 8000, 3), 90, np.uint8),
        "thin.png": rng.integers(0, 255, (3, 2000, 3), np.uint8),
    }
    for name, image in kinds.items():
        cv2.imwrite(str(tmp_path / name), image)
    out = run(tmp_path, "detect", str(model), "--json", *(str(tmp_path / name) for name in kinds))
    assert out.returncode == 0, out.stderr
    for row in map(json.loads, out.stdout.splitlines()):
        for found in row["detections"]:
            left, top, right, bottom = found["box"]
            assert 0 <= left < right <= row["width"] and 0 <= top < bottom <= row["height"]


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["detect"], 2, "required"),
        (["detct", "x"], 2, "invalid choice"),
        (["detect", "{model}", "{picture}", "--jsn"], 2, "unrecognized arguments: --jsn"),
        (["understand", "encoder", "hello", "--lables", "x"], 2, "unrecognized arguments: --lables"),
        (["detect", "nosuch", "{picture}"], 1, 'no model "nosuch"'),
        (["detect", "{folder}/none.onnx", "{picture}"], 1, "no such file"),
        (["detect", "{folder}/cut.onnx", "{picture}"], 1, "cut.onnx"),
        (["detect", "{folder}/text.tflite", "{picture}"], 1, "text.tflite"),
        (["detect", "{model}", "{picture}", "--score", "2"], 2, "score=2"),
        (["detect", "{model}", "{picture}", "--classes", "persn"], 2, 'did you mean "person"'),
        (["detect", "{model}", "{picture}", "{picture}", "--save", "one.jpg"], 2, "give a folder"),
        (["understand", "{model}", "hello"], 1, "no text encoder"),
        (["models", "pull", "nosuch"], 1, 'no model "nosuch"'),
        (["models", "remove", "nosuch"], 1, "nosuch"),
        (["models", "inspect", "{folder}/cut.onnx"], 1, "cut.onnx"),
        (["models", "add", "{folder}/none.onnx"], 1, "none.onnx"),
        (["listen"], 2, "give --url"),
        (["listen", "--url", "http://x"], 2, "is not mqtt://"),
        (["run", "-c", "{folder}/none.toml"], 2, "cannot be read"),
        (["demo", "--seconds", "-3"], 2, "no number of seconds"),
        (["bench", "{model}", "--threads", "²"], 2, '"²" is no number from 0 to 1024'),
        (["models", "gc", "--budget", "9" * 5000], 2, "is no number of bytes"),
        (["listen", "--url", "mqtt://x", "--prefix", "#"], 2, '--prefix "#": give 1 to 3 topic levels'),
        (["listen", "--url", "mqtt://x", "--device", "a/b"], 2, '--device "a/b"'),
        (["listen", "--url", "mqtt://x", "-c", "y"], 2, "give either -c"),
        (["detect", "{model}", "{picture}", "--save", "out.png"], 2, "give a name that ends in .jpg"),
    ],
)
def test_each_wrong_use_is_one_line(tmp_path: Path, demo_pictures: Path, args: list[str], code: int, says: str) -> None:
    model = tiny_detector(tmp_path / "model")
    raw = (model / "model.onnx").read_bytes()
    (tmp_path / "cut.onnx").write_bytes(raw[: len(raw) // 2])
    (tmp_path / "text.tflite").write_text("not a flatbuffer")
    (tmp_path / "own.jpg").write_bytes(b"")
    places = {"folder": tmp_path, "model": model, "picture": demo_pictures / "coffee.png"}
    out = run(tmp_path, *(arg.format(**places) for arg in args))
    assert out.returncode == code, out.stderr
    said = [line for line in out.stderr.splitlines() if not line.endswith("s so far)")]  # a slow machine says more
    assert len(said) == 1 and says in said[0], out.stderr
    assert out.stdout == ""


def test_models_of_a_fresh_install(tmp_path: Path) -> None:
    rows = {row["name"]: row for row in json.loads(run(tmp_path, "models", "list", "--json").stdout)}
    assert rows["yolox-nano"]["state"] == "absent" and rows["yolox-nano"]["licence"] == "Apache-2.0"
    keys = {"name", "task", "family", "format", "version", "sha256", "licence", "trained_by", "bytes", "state"}
    assert all(set(row) >= keys for row in rows.values())
    out = run(tmp_path, "models", "verify")
    assert (out.returncode, out.stderr) == (0, "")


def test_a_model_that_was_not_fetched_is_one_line(tmp_path: Path, demo_pictures: Path) -> None:
    out = run(tmp_path, "detect", "yolox-nano", str(demo_pictures / "coffee.png"))
    said = [line for line in out.stderr.splitlines() if not line.endswith("s so far)")]
    wanted = "edge-agent detect: yolox-nano: it is not here yet; run `edge-agent models pull yolox-nano`"
    assert (out.returncode, out.stdout, said) == (1, "", [wanted])


def test_add_inspect_verify_remove(tmp_path: Path, demo_pictures: Path) -> None:
    bare = blob_finder_onnx(tmp_path / "bare.onnx")
    shown = json.loads(run(tmp_path, "models", "inspect", str(bare), "--json").stdout)
    assert (shown["task"], shown["family"]) == ("detect", "yolox") and shown["reasons"]
    assert shown["inputs"][0]["shape"] == [1, 3, 64, 64] and shown["outputs"] and "labels" in shown
    assert run(tmp_path, "models", "add", str(bare), "--name", "mine").returncode == 0
    out = run(tmp_path, "models", "verify", "mine", "--prove")
    assert out.returncode == 0 and "bare.onnx: proved in " in out.stdout and "noise: class_" in out.stdout
    out = run(tmp_path, "detect", "mine", str(demo_pictures / "coffee.png"), "--score", "0.05")
    assert out.returncode == 0 and "600x400: " in out.stdout
    blob = next(
        path for path in (tmp_path / "home").rglob("*") if path.is_file() and path.stat().st_size == bare.stat().st_size
    )
    blob.chmod(0o600)
    blob.write_bytes(b"\0" * blob.stat().st_size)
    assert run(tmp_path, "models", "verify", "mine").returncode == 1
    out = run(tmp_path, "detect", "mine", str(demo_pictures / "coffee.png"))
    assert out.returncode == 1 and "damaged" in out.stderr
    assert run(tmp_path, "models", "remove", "mine").returncode == 0
    assert run(tmp_path, "detect", "mine", str(demo_pictures / "coffee.png")).returncode == 1


def test_pull_from_a_mirror(tmp_path: Path, data: Path, demo_pictures: Path) -> None:
    env = {"EDGE_AGENT_MODEL_MIRROR": str(data / "models")}
    out = run(tmp_path, "models", "pull", "yolox-nano", env=env)
    assert out.returncode == 0, out.stderr
    out = run(tmp_path, "detect", "detector", str(demo_pictures / "astronaut.png"))
    assert out.returncode == 0 and "person 0.9" in out.stdout


def test_check_says_what_will_happen(tmp_path: Path) -> None:
    model = tiny_detector(tmp_path / "model")
    config = tmp_path / "agent.toml"
    config.write_text(
        '[mqtt]\nurl = "mqtt://broker"\n'
        f'[[pipeline]]\nname = "porch"\nsource = "camera:0"\ntasks = ["detect:{model}"]\n'
        '[[pipeline]]\nname = "heard"\nsource = "mqtt:house/+/said"\n'
    )
    out = run(tmp_path, "check", "-c", str(config))
    assert out.returncode == 0, out.stderr
    assert "porch: camera:0 -> detect:" in out.stdout and "mqtt: broker:1883 as edge/v1/" in out.stdout
    assert not (tmp_path / "store").exists()


def test_listen_prints_what_devices_report(tmp_path: Path) -> None:
    (tmp_path / "said.txt").write_text("hello\n")
    with broker(tmp_path) as server:
        config = tmp_path / "agent.toml"
        config.write_text(
            f'[device]\nid = "d1"\n[mqtt]\nurl = "{server.url}"\n[store]\npath = "store"\n'
            '[[pipeline]]\nname = "words"\nsource = "lines:said.txt?follow=false"\n'
        )
        command = [sys.executable, "-m", "edge_agent", "listen", "--url", server.url]
        human = subprocess.Popen([*command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        machine = subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for listener in (human, machine):
            assert listener.stderr is not None and "connected" in listener.stderr.readline()
        assert run(tmp_path, "run", "-c", str(config)).returncode == 0
        assert human.stdout is not None and machine.stdout is not None
        assert any("hello" in line for line in human.stdout)
        assert any(json.loads(line).get("text") == "hello" for line in machine.stdout)
        for listener in (human, machine):
            listener.terminate()
            assert listener.wait(120) == 0


def test_doctor_finds_what_is_needed(tmp_path: Path) -> None:
    rows = {row["what"]: row for row in json.loads(run(tmp_path, "doctor", "--json").stdout)}
    assert rows["ONNX"]["ok"] and rows["TFLite"]["ok"] and rows["machine"]["ok"]


@pytest.mark.parametrize(
    "args",
    [
        "models list --json",
        pytest.param("doctor", marks=pytest.mark.slow),
        "--version",
        "detect --help",
        "detect {model} {picture}",
    ],
)
def test_a_full_disk_behind_stdout_is_one_line_and_a_reader_that_left_none(
    tmp_path: Path, demo_pictures: Path, args: str
) -> None:
    args = args.format(model=tiny_detector(tmp_path / "model"), picture=demo_pictures / "coffee.png")
    environment = {**os.environ, "EDGE_AGENT_HOME": str(tmp_path / "home")}
    environment.pop("PYTHONUNBUFFERED", None)
    command = f"{sys.executable} -m edge_agent {args}"
    full = subprocess.run(f"{command} > /dev/full", shell=True, capture_output=True, text=True, env=environment)
    assert full.returncode == 1 and len(lines_of(full.stderr)) == 1
    assert "cannot be written out: No space left on device" in full.stderr
    left = f"({command}; echo $? >&2) | true"
    gone = subprocess.run(["bash", "-c", left], capture_output=True, text=True, env=environment)
    assert gone.stderr.strip() == "0"


@pytest.mark.skipif(os.getuid() != 0, reason="needs somebody else's files")
@pytest.mark.parametrize("args", ["models list", "models gc", "models remove y", "detect y {picture}"])
def test_a_registry_of_somebody_else_is_one_line(tmp_path: Path, demo_pictures: Path, args: str) -> None:
    assert run(tmp_path, "models", "add", str(tiny_detector(tmp_path / "model")), "--name", "y").returncode == 0
    for path in (*tmp_path.parents, tmp_path):
        if path.is_relative_to("/tmp"):  # pytest keeps its folders to itself
            path.chmod(0o755)
    (tmp_path / "home" / "models").chmod(0o700)
    words = args.format(picture=demo_pictures / "coffee.png").split()
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable]
    if subprocess.run([*nobody, "-c", "import edge_agent.cli, numpy"], capture_output=True).returncode:
        pytest.skip("this Python is root's alone")
    environment = {**os.environ, "EDGE_AGENT_HOME": str(tmp_path / "home")}
    done = subprocess.run([*nobody, "-m", "edge_agent", *words], capture_output=True, text=True, env=environment)
    assert done.returncode == 1 and len(lines_of(done.stderr)) == 1, done.stderr
    assert "Permission denied; check its owner and mode" in done.stderr


def test_names_that_are_not_utf8(tmp_path: Path, demo_pictures: Path) -> None:
    model, odd = tiny_detector(tmp_path / "model"), os.fsdecode(b"bad\xffname.png")
    (tmp_path / odd).write_bytes((demo_pictures / "coffee.png").read_bytes())
    out = run(tmp_path, "detect", str(model), str(tmp_path / odd), "--json")
    assert out.returncode == 0 and json.loads(out.stdout)["image"].endswith("bad?name.png")
    out = run(tmp_path, "detect", str(model), str(tmp_path / odd), env={"PYTHONIOENCODING": "ascii"})
    assert out.returncode == 0 and "bad\\udcffname.png 600x400: person" in out.stdout
    assert run(tmp_path, "models", "inspect", str(tmp_path / os.fsdecode(b"y\xff.onnx"))).returncode == 1


def test_what_has_no_end_is_not_read_to_it(tmp_path: Path) -> None:
    out = run(tmp_path, "detect", str(tiny_detector(tmp_path / "model")), "/dev/zero")
    assert out.returncode == 1 and "/dev/zero: is larger than 512 MiB" in out.stderr


def test_listen_survives_what_anybody_may_publish(tmp_path: Path) -> None:
    model = {"name": "x", "version": "1", "sha256": ""}
    hostile: list[bytes] = [
        json.dumps({"kind": "detections", "detections": [], "model": model, "age_ms": "y", "pipeline": "p"}).encode(),
        json.dumps({"kind": "scores", "text": "", "name": 3, "label": "a", "score": "b", "pipeline": "p"}).encode(),
        json.dumps({"kind": "anomaly", "error": "b", "unusual": None, "pipeline": "p"}).encode(),
        b'{"a":' * 5000 + b"1" + b"}" * 5000,
        b'{"device": {}, "epoch": "x"}',
        b"{not json",
        b'{"a":\n 1}',
        b'{"status":"\x1b[2J\\u001b[2J"}',
        b"\xff\xfe",
    ]
    with broker(tmp_path) as server:
        command = [sys.executable, "-m", "edge_agent", "listen", "--url", server.url]
        pipe = subprocess.PIPE
        human, machine = (
            subprocess.Popen([*command, *more], stdout=pipe, stderr=pipe, text=True)
            for more in (["--audit", "--ack"], ["--json", "--audit", "--ack"])
        )
        for listener in (human, machine):
            assert listener.stderr is not None and "connected" in listener.stderr.readline()
        client = Client(CallbackAPIVersion.VERSION2)
        client.connect("127.0.0.1", server.port)
        client.loop_start()
        for payload in (*hostile, b'{"status": "the last"}'):
            client.publish("edge/v1/z/p/events", payload, qos=1).wait_for_publish(120)
        assert human.stdout is not None and machine.stdout is not None
        for line in iter(human.stdout.readline, ""):
            assert "\x1b" not in line
            if "the last" in line:
                break
        shown = []
        for line in iter(machine.stdout.readline, ""):
            shown.append(json.loads(line))
            if shown[-1].get("status") == "the last":
                break
        client.loop_stop()
        assert len(shown) == len(hostile) + 1
        for listener in (human, machine):
            listener.terminate()
            _, said = listener.communicate(timeout=120)
            assert listener.returncode == 0 and "Traceback" not in said and "was lost" not in said


def test_listen_that_never_connects_says_no(tmp_path: Path) -> None:
    out = run(tmp_path, "listen", "--url", "mqtt://127.0.0.1:1", "--seconds", "0.5", "--audit")
    assert out.returncode == 1 and "it was never connected" in out.stderr.splitlines()[-1]


def test_check_finds_what_run_would(tmp_path: Path) -> None:
    config, words = tmp_path / "agent.toml", '[[pipeline]]\nname = "w"\nsource = "lines:x?follow=false"\n'
    (tmp_path / "x").write_text("x\n")
    for given, code, says in (
        ('[mqtt]\nurl = "mqtts://x"\nca = "nosuch"\n', 2, "mqtt.ca: "),
        ('[store]\npath = "x"\n', 2, "is no folder, so no store can stand there"),
        ('[store]\npath = "x/deeper"\n', 2, "is no folder, so no store can stand there"),
        ('[store]\npath = "new/store"\n', 0, ""),
    ):
        config.write_text(given + words)
        out = run(tmp_path, "check", "-c", str(config))
        assert (out.returncode, says in out.stderr) == (code, True), out.stderr


def test_the_reader_may_leave(tmp_path: Path) -> None:
    model = tiny_detector(tmp_path / "model")
    cv2.imwrite(str(tmp_path / "a.png"), np.full((8, 8, 3), 99, np.uint8))
    pictures = " ".join([str(tmp_path / "a.png")] * 200)
    command = f"{sys.executable} -m edge_agent detect {model} {pictures} --json | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert len(done.stdout.splitlines()) == 1 and done.stderr == ""


def test_understand_takes_texts_anywhere(tmp_path: Path) -> None:
    (tmp_path / "two.toml").write_text(
        '[labels]\nlight = ["turn the lamp on", "lights off please", "dim the lamp"]\n'
        'music = ["play a song", "stop the music", "put on some jazz"]\n'
    )
    texts = ["switch on the lamps", "play music"]
    out = run(tmp_path, "understand", "edge-bert", texts[0], "--labels", str(tmp_path / "two.toml"), "--json", texts[1])
    assert out.returncode == 0, out.stderr
    rows = [json.loads(line) for line in out.stdout.splitlines()]
    assert [row["text"] for row in rows] == texts
    for row in rows:
        assert row["label"] == max(row["scores"], key=row["scores"].get) and abs(sum(row["scores"].values()) - 1) < 1e-3
    out = run(tmp_path, "understand", "edge-bert", "--labels", str(tmp_path / "two.toml"), "-", stdin="one\n\ntwo\n")
    assert [line.split()[-1] for line in out.stdout.splitlines()] == ["one", "two"]
    out = run(tmp_path, "understand", "edge-bert", "--labels", str(tmp_path / "two.toml"), "")
    assert out.returncode == 1 and "empty" in out.stderr


def test_verbose_stands_on_either_side_of_the_verb(tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_text(
        '[store]\npath = "s"\n[[pipeline]]\nname = "a"\nsource = "lines:x?follow=false"\n'
    )
    (tmp_path / "x").write_text("one\n")
    for words in (
        ["-v", "models", "list"],
        ["models", "-v", "list"],
        ["models", "list", "-v"],
        ["doctor", "--verbose"],
    ):
        assert run(tmp_path, *words).returncode in (0, 1), words
    for words in (["-v", "run"], ["run", "-v"]):
        assert " DEBUG " in run(tmp_path, *words, "-c", str(tmp_path / "agent.toml")).stderr, words
    assert " DEBUG " not in run(tmp_path, "run", "-c", str(tmp_path / "agent.toml")).stderr


def test_models_stand_in_columns_whatever_they_are_called(tmp_path: Path) -> None:
    for name, licence in (("a" * 60, "Apache-2.0"), ("b", "\u7121\u511f"), ("c", "of a very long name indeed")):
        folder = tiny_detector(tmp_path / "home" / "models" / name)
        text = (folder / "manifest.toml").read_text()
        rest = [line for line in text.splitlines() if not line.startswith(("licence", 'name = "tiny'))]
        made = [f'name = "{name}"', f'licence = "{licence}"', *rest]
        (folder / "manifest.toml").write_text("\n".join(made), "utf-8")
    out = run(tmp_path, "models", "list", env={"PYTHONIOENCODING": "utf-8"})
    assert out.returncode == 0, out.stderr
    head, *rows = [line for line in out.stdout.splitlines() if not line.startswith("  ")]
    places = [width(head[: head.index(word)]) for word in ("task", "family", "state", "licence", "trained by")]
    assert len(rows) >= 7
    for row in rows:
        columns, column = [""], 0
        for character in row:
            if column in places:
                columns.append("")
            columns[-1] += character
            column += width(character)
        assert len(columns) == 6 and all(one.endswith("  ") or one == columns[-1] for one in columns), row


def test_the_time_that_is_left_is_that_of_all_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 110.0, 110.0, 0.0])
    monkeypatch.setattr(say, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    tell = say.steps()
    tell("layer a alone", 1, 11)
    tell("layer b alone", 2, 11)
    assert say._Doing.what == "layer b alone 2/11, 45 s left", "each layer has another name"
    tell("writing", 0, 1)
    assert say._Doing.what == "writing 0/1", "another count begins anew"


def test_long_work_is_never_silent(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(say, "EVERY_S", 0.05)
    said = list[str]()

    def says(words: str) -> bool:
        said.append(capsys.readouterr().err)
        return words in "".join(said)

    with say.at_work("quantize"):
        tell = say.steps()
        tell("calibrating", 3, 12)
        until(lambda: says("quantize: calibrating 3/12, "), "where it is")
        fetch = say.progress("yolo")
        fetch(2_000_000, 4_000_000)
        until(lambda: says("quantize: yolo 2.0/4.0 MB ("), "what comes")
    assert not says("\r") and not says("\x1b")
    time.sleep(0.2)
    assert capsys.readouterr().err == ""
