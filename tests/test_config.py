"""The config: what is accepted, and what each mistake is answered with."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent import config
from edge_agent.errors import ConfigError
from edge_agent.sources import SCHEMES
from edge_agent.tasks import TASKS
from edge_agent.types import Uri
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
        ('[[pipeline]]\nname = 3\nsource = "camera:0"', "pipeline[0].name: expected str, got int"),
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
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        config.load(file)


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
    assert config.parse_uri(text) == uri


def test_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mqtt").write_text("s3cret\n")
    assert config.secret(str(tmp_path / "mqtt")) == "s3cret"
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert config.secret("credential:mqtt") == "s3cret"
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    with pytest.raises(ConfigError, match="no systemd credentials"):
        config.secret("credential:mqtt")


@pytest.mark.parametrize("name", ["porch", "folder", "log"])
def test_examples_load(name: str) -> None:
    loaded = config.load(ROOT / "deploy" / "examples" / f"{name}.toml")
    assert loaded.pipeline and loaded.mqtt.url
    for pipe in loaded.pipeline:
        uri = config.parse_uri(pipe.source)
        assert uri.scheme in SCHEMES
        assert all(config.parse_uri(task).scheme in TASKS for task in pipe.tasks)
