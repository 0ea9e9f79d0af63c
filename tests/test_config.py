"""The config: what is accepted, and what each mistake is answered with."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from edge_agent import config
from edge_agent.errors import ConfigError
from edge_agent.sources import SCHEMES
from edge_agent.tasks import TASKS
from edge_agent.uri import Uri, parse_uri
from tests.conftest import ROOT

PIPE = '[[pipeline]]\nname = "a"\nsource = "camera:0"\ntasks = ["detect:detector"]\n'


def test_defaults_and_names() -> None:
    loaded = config.parse(f'[device]\nid = "porch"\n{PIPE}class = "telemetry"\nreport = "summary:2.5s"\n')
    (pipe,) = loaded.pipeline
    assert (loaded.device.id, pipe.cls, pipe.report, loaded.mqtt.prefix) == (
        "porch",
        "telemetry",
        "summary:2.5s",
        "edge/v1",
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no [[pipeline]]"),
        ("x =", "not TOML"),
        (f'[mqtt]\nulr = "x"\n{PIPE}', 'unknown key "mqtt.ulr"; did you mean "url"?'),
        (f'{PIPE}clas = "alert"', 'unknown key "pipeline[0].clas"; did you mean "class"?'),
        (f'[devic]\nid = "x"\n{PIPE}', 'unknown key "devic"; did you mean "device"?'),
        ('[[pipeline]]\nname = "a"', 'pipeline[0]: "source" is missing'),
        (
            '[[pipeline]]\nname = 3\nsource = "camera:0"',
            "pipeline[0].name: must be 1 to 64 letters, digits or _ . - ",
        ),
        ('[[pipeline]]\nname = "a/b"\nsource = "camera:0"', "pipeline[0].name: must be 1 to 64 letters"),
        (f'[device]\nid = "edge\\n"\n{PIPE}', "device.id: must be 1 to 64 letters"),
        (f'[mqtt]\nprefix = "a/b\\n"\n{PIPE}', "mqtt.prefix: must be 1 to 3 topic levels"),
        (f'{PIPE}report = "changes\\n"', 'must be "changes", "every" or "summary:10s"'),
        (f"{PIPE}{PIPE}", "stands twice"),
        (PIPE.replace('"a"', '"status"'), "is a topic of the device itself"),
        (PIPE.replace("camera:0", "camera"), "has no scheme"),
        (f'{PIPE}class = "alarm"', 'pipeline[0].class: "alarm" is none; did you mean "alert"?'),
        (f'{PIPE}class = {{txt = "alert"}}', 'pipeline[0].class: "txt" is none; did you mean "text"?'),
        (f'{PIPE}class = {{text = "telem"}}', 'pipeline[0].class: "telem" is none; did you mean "telemetry"?'),
        (f"{PIPE}class = 3", "pipeline[0].class"),
        (f"[store]\nmax_events = 5\n{PIPE}", "store.max_events"),
        (f'{PIPE}report = "sometimes"', 'must be "changes", "every" or "summary:10s"'),
        (f'[mqtt]\nurl = "http://x"\n{PIPE}', "is not mqtt://host"),
        (f'[mqtt]\nurl = "mqtt://u:secret@x"\n{PIPE}', "no user or password in the address"),
        (f'[mqtt]\nprefix = "a/#"\n{PIPE}', "mqtt.prefix: must be 1 to 3 topic levels"),
        (f'[mqtt]\ncert = "c.pem"\n{PIPE}', "cert and key come together"),
        (f'[mqtt]\npassword_file = "p"\n{PIPE}', "needs mqtt.username"),
        (f"[store]\nmax_bytes = 5\n{PIPE}", "store.max_bytes"),
        (f'[mqtt]\nurl = "mqtt://x"\nca = "ca.pem"\n{PIPE}', "mqtt.ca: mqtt:// is not encrypted"),
        (f'[mqtt]\nurl = "mqtt://x:0"\n{PIPE}', "is not mqtt://host"),
        (f'[mqtt]\nurl = "mqtt://x?clean=1"\n{PIPE}', "is not mqtt://host"),
        (f'[store]\npath = "a\\u0000b"\n{PIPE}', "store.path"),
        (PIPE.replace("camera:0", "files:~nobodyhere/x"), "source"),
        (
            PIPE.replace("[[pipeline]]", "[pipeline]"),
            "pipeline: must be a list, not a table; write [[pipeline]]",
        ),
        (
            f'[[mqtt]]\nurl = "mqtt://x"\n{PIPE}',
            "mqtt: must be a table, not a list; write [mqtt], with one bracket",
        ),
        (f'mqtt = "mqtt://x"\n{PIPE}', "mqtt: must be a table, not text; write [mqtt], and its keys below it"),
        ("pipeline = [1]", "pipeline[0]: must be a table, not 1"),
        (
            f"[mqtt]\nurl = 1883\n{PIPE}",
            'mqtt.url: must be text in quotes or a list, not 1883; write e.g. url = "mqtt://b',
        ),
        (f"[mqtt]\nurl = [1]\n{PIPE}", "mqtt.url[0]: must be text in quotes, not 1"),
        (f"[mqtt]\nack = 1\n{PIPE}", "mqtt.ack: must be true or false, not 1; write e.g. ack = false"),
        (f'[mqtt]\nkeepalive = "15"\n{PIPE}', "not text; write it without quotes: keepalive = 15"),
        (f"[mqtt]\nkeepalive = nan\n{PIPE}", "mqtt.keepalive: must be a whole number from 2 to 3_600, not nan"),
        (f"[mqtt]\nkeepalive = 15.5\n{PIPE}", "mqtt.keepalive: must be a whole number from 2 to 3_600, not 15.5"),
        (f"[mqtt]\nkeepalive = 2024-01-01\n{PIPE}", "not a date or time; write e.g. keepalive = 15"),
        (f"[mqtt]\nusername = 123456\n{PIPE}", "mqtt.username: must be text in quotes"),
        (f"[store]\nmax_bytes = {10**23}\n{PIPE}", "not 1e+23; write e.g. max_bytes = 256_000_000"),
        (f"[store]\nmax_bytes = 1e23\n{PIPE}", "not 1e+23; write e.g. max_bytes = 256_000_000"),
        (f'[store]\nmax_bytes = "256MB"\n{PIPE}', "not text; write e.g. max_bytes = 256_000_000"),
        (f"[store]\nexpire_hours = inf\n{PIPE}", "store.expire_hours: must be a number above 0 to 1e+06, not inf"),
        (f"[device]\nthreads = -3\n{PIPE}", "device.threads: must be a whole number from 0 to 256, not -3"),
        (f"{PIPE}workers = true", "pipeline[0].workers: must be a whole number from 0 to 64, not true"),
        (f"{PIPE}class = {{text = 3}}", "pipeline[0].class[...]: must be text in quotes"),
        (
            PIPE.replace('["detect:detector"]', '"detect:detector"'),
            "tasks: must be a list, not text; write e.g. tasks",
        ),
        (PIPE.replace('["detect:detector"]', "[1]"), "pipeline[0].tasks[0]: must be text in quotes, not 1"),
        (PIPE.replace('["detect:detector"]', '["detect detector"]'), "pipeline[0] (a): tasks: "),
        (f'[mqtt]\nhost = "x"\n{PIPE}', 'unknown key "mqtt.host"; did you mean "url"?'),
        (f'[mqtt]\n"a\\u001b[31mb" = "x"\n{PIPE}', 'unknown key "mqtt.a\\u001b[31mb"; known are url, prefix'),
        (f'id = "x"\n{PIPE}', 'unknown key "id"; did you mean "device"?'),
        (f'[broker]\nurl = "x"\n{PIPE}', 'unknown key "broker"; did you mean "mqtt"?'),
        (f'{PIPE}model = "x"', 'unknown key "pipeline[0].model"; did you mean "tasks"?'),
        (f'[device]\nid = "k\u00fcche"\n{PIPE}', 'not "k\u00fcche"; write e.g. id = "door"'),
        (f'[device]\nid = "{"x" * 300}"\n{PIPE}', f'not "{"x" * 40}…"; write'),
        (f'[device]\nid = "\\u001b[31m"\n{PIPE}', 'not "\\u001b[31m"; write'),
        (f'[mqtt]\nurl = "mqtt://u:secret@x:99999"\n{PIPE}', "mqtt.url: the address: "),
        (f'[mqtt]\nurl = "tls://x"\n{PIPE}', "write mqtts:// for TLS"),
        (f"{PIPE}report = 'summary:0s'", 'must be "changes", "every" or "summary:10s", not "summary:0s"'),
        (f"{PIPE}report = 'summary:{'9' * 20}s'", "must be "),
        (f'[store]\npath = ""\n{PIPE}', 'store.path: must be text in quotes that is not empty, not ""'),
        (f'[mqtt]\nca = ""\n{PIPE}', 'mqtt.ca: must be text in quotes that is not empty, not ""'),
        (f'[device]\nname = "x"\n{PIPE}', 'unknown key "device.name"; did you mean "id"?'),
        ("pipeline = [[]]", "pipeline[0]: must be a table, not a list; write [[pipeline]]"),
        (PIPE.replace('"detect:detector"', '""'), 'pipeline[0] (a): tasks: "" names none; write e.g. "detect'),
        ("name = door", 'not TOML: line 1, name: no value of TOML; write text in quotes, name = "…"'),
        ("a = 1\nname =", "not TOML: line 2, name: no value; write one behind the ="),
        ('name = "door\nsource = 1', "not TOML: line 1, name: a quote is not closed"),
        ("name = \u201cdoor\u201d", "not TOML: line 1, name: typographic quotes"),
        ('url = "x"\nurl = "y"', "not TOML: line 2, url: stands twice; delete one"),
        ("[a]\n[a]", "not TOML: line 2: stands twice; delete one"),
        ('{"mqtt": {"url": "mqtt://x"}}', "this looks like JSON; write TOML"),
        ("mqtt:\n  url: mqtt://x", "this looks like YAML; write TOML"),
        ("[mqtt\nurl = 1", "not TOML: line 1: "),
        ("a", "a key without a value"),
        ("a = 2024-02-31", "not TOML: line 1, a: "),
        ("a = 1\nb = 2\0", "line 2: holds a NUL"),
        ("a = " + "[" * 5000, "brackets nested too deep"),
        ("a = " + "{a = " * 3000, "brackets nested too deep"),
        ("a = " + "9" * 5000, "a number has thousands of digits"),
        ("[mqtt]\nkeepalive = " + "9" * 400, "mqtt.keepalive: must be "),
        (".".join("a" * 20_000) + " = 1", "a key of more than 32 parts"),
        ("[" + ".".join(['"a"'] * 20_000) + "]", "a key of more than 32 parts"),
        ("password = rtsp://u:secret@x", "not TOML: line 1, password: no value of TOML"),
    ],
)
def test_each_mistake_is_one_line_that_names_the_place(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as error:
        config.parse(text)
    assert says in str(error.value) and "\n" not in str(error.value)
    assert "secret" not in str(error.value)


def test_paths_start_at_the_config_or_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    more = '[store]\npath = "~/st"\n[mqtt]\nusername = "u"\npassword_file = "pw"\n'
    folder = tmp_path / "sp [é]*"
    for source, found in (
        ("files:photos", f"files:{folder}/photos"),
        ("files:photos/*.png", f"files:{tmp_path}/sp [[]é][*]/photos/*.png"),
        ("files:~/x?fps=2", "files:/home/ada/x?fps=2"),
    ):
        loaded = config.parse(more + PIPE.replace("camera:0", source), folder)
        assert loaded.pipeline[0].source == found
        assert (loaded.store.path, loaded.mqtt.password_file) == ("/home/ada/st", f"{folder}/pw")
    with pytest.raises(ConfigError, match="the folder's name reads as options; rename it"):
        config.parse(PIPE.replace("camera:0", "files:photos"), tmp_path / "a ?x=1")


def test_models_given_as_paths_start_at_the_config(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").touch()
    (tmp_path / "i.toml").touch()
    for task, found in (
        ("detect:./m.onnx", f"detect:{tmp_path}/m.onnx"),
        ("detect:m.onnx?score=0.5", f"detect:{tmp_path}/m.onnx?score=0.5"),
        ("detect:models/yolo", f"detect:{tmp_path}/models/yolo"),
        ("detect:/a/b.onnx", "detect:/a/b.onnx"),
        ("classify:./m?labels=i.toml", f"classify:{tmp_path}/m?labels={tmp_path}/i.toml"),
        ("classify:encoder?labels=i.toml", f"classify:encoder?labels={tmp_path}/i.toml"),
        ("detect:other.onnx", "detect:other.onnx"),
        ("detect", "detect"),
        ("their.task:it:./x", "their.task:it:./x"),
    ):
        assert config.parse(PIPE.replace("detect:detector", task), tmp_path).pipeline[0].tasks == [found]
    with pytest.raises(ConfigError, match="the folder's name reads as options; rename it"):
        config.parse(PIPE.replace("detector", "./m"), tmp_path / "a ?x=1")


def test_class_by_kind() -> None:
    pipe = config.parse(f'{PIPE}class = {{detections = "telemetry"}}').pipeline[0]
    assert [pipe.class_of(kind) for kind in ("detections", "text")] == ["telemetry", "alert"]
    assert config.parse(f'{PIPE}class = "telemetry"').pipeline[0].class_of("text") == "telemetry"


def test_file_is_named_and_its_folder_is_the_base(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text(
        '[store]\npath = "here"\n[mqtt]\nusername = "u"\npassword_file = "pw"\n'
        '[[pipeline]]\nname = "a"\nsource = "files:photos?fps=2"\n'
    )
    loaded = config.load(file)
    assert loaded.store.path == str(tmp_path / "here")
    assert loaded.mqtt.password_file == str(tmp_path / "pw")
    assert loaded.pipeline[0].source == f"files:{tmp_path}/photos?fps=2"
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read"):
        config.load(tmp_path / "none.toml")


def test_a_file_in_another_encoding_is_served_or_named(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_bytes(b"\xef\xbb\xbf" + PIPE.encode())
    assert config.load(file).pipeline[0].name == "a"
    for raw, says in (
        (PIPE.encode("utf-16"), "is UTF-16, not UTF-8; save it as UTF-8"),
        (PIPE.encode("utf-16-le"), "is UTF-16, not UTF-8; save it as UTF-8"),
        (b"a = 1\n# k\xfcche\n", "line 2: not UTF-8"),
    ):
        file.write_bytes(raw)
        with pytest.raises(ConfigError) as error:
            config.load(file)
        assert str(error.value).startswith(f"{file}: ") and says in str(error.value)


def test_what_is_no_small_file_is_not_read(tmp_path: Path) -> None:
    sparse, pipe = tmp_path / "sparse", tmp_path / "pipe"
    with sparse.open("wb") as file:
        file.truncate(3_000_000_000)
    os.mkfifo(pipe)
    for path, says in (
        (sparse, "larger than 1000 kB"),
        (pipe, "no regular file"),
        (Path("/dev/zero"), "no regular file"),
        (tmp_path, "is a folder"),
    ):
        with pytest.raises(ConfigError) as error:
            config.load(path)
        assert str(error.value).startswith(f"{path}: ") and says in str(error.value)
        with pytest.raises(ConfigError, match=r"mqtt\.password_file: .*(larger than|no regular|is a folder)"):
            config.secret(str(path), "mqtt.password_file")


def test_what_may_be_meant_otherwise_is_said() -> None:
    for source, says in (
        ("rtsp://h/s?fps=5", ["fps stands behind ?, so it is for the camera"]),
        ("http://h/s?dark=on&stall=5&user=x", ["dark, stall stands behind ?"]),
        ("rtsp://h/s?fps=5#fps=5", []),
        ("rtsp://h/s?channel=1#fps=5", []),
        ("lines:/no/such/log", ["/no/such/log is not there yet; it is waited for"]),
        ("lines:-", []),
        ("camera:0?fps=5", []),
    ):
        (pipe,) = config.parse(PIPE.replace("camera:0", source)).pipeline
        told = config.warnings(pipe)
        assert [word in line for line, word in zip(told, says, strict=True)] == [True] * len(says)


def test_a_name_that_stands_in_no_section_keeps_the_rest_of_it() -> None:
    assert config.parse(f"[device]\nthreads = 3\n{PIPE}").device.threads == 3


@pytest.mark.parametrize(
    ("text", "uri"),
    [
        ("camera:0", Uri("camera", "0")),
        ("/dev/video2", Uri("camera", "/dev/video2")),
        ("files:a?b.jpg", Uri("files", "a?b.jpg")),
        ("files:/x/y?fps=2&loop=true", Uri("files", "/x/y", {"fps": "2", "loop": "true"})),
        ("rtsp://cam/s?channel=1", Uri("rtsp", "//cam/s?channel=1")),
        ("rtsp://cam/s?channel=1#stall=3", Uri("rtsp", "//cam/s?channel=1", {"stall": "3"})),
        ("theirs.module:attr:rest?a=b", Uri("theirs.module:attr", "rest", {"a": "b"})),
        ("lines:-", Uri("lines", "-")),
    ],
)
def test_addresses(text: str, uri: Uri) -> None:
    assert parse_uri(text) == uri


def test_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mqtt").write_text("s3cret\n")
    assert config.secret(str(tmp_path / "mqtt"), "k") == "s3cret"
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert config.secret("credential:mqtt", "k") == "s3cret"
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    with pytest.raises(ConfigError, match="no systemd credentials"):
        config.secret("credential:mqtt", "k")


@pytest.mark.parametrize("name", ["porch", "folder", "log", "yard"])
def test_examples_load(tmp_path: Path, name: str) -> None:
    # a copy: of a checkout the modes are its owner's, and what others may write is refused
    loaded = config.load(Path(shutil.copyfile(ROOT / "deploy" / "examples" / f"{name}.toml", tmp_path / "agent.toml")))
    assert loaded.pipeline and loaded.mqtt.url
    for pipe in loaded.pipeline:
        uri = parse_uri(pipe.source)
        assert uri.scheme in SCHEMES
        assert all(parse_uri(task if ":" in task else f"{task}:").scheme in TASKS for task in pipe.tasks)
