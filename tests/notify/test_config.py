"""`[[notify]]` in a config: each mistake in one line, by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent.agent.told import about_told, check_told, try_told
from edge_agent.config import load, parse
from edge_agent.device.laid import named
from edge_agent.errors import ConfigError
from edge_agent.notify.send import Address
from tests.notify.hook import hook

PIPES = '[[pipeline]]\nname = "door"\nsource = "lines:-"\n'


def config(tmp_path: Path, more: str, address: str = "https://example.org/t0p?k=1") -> Path:
    (tmp_path / "url").write_text(address)
    (tmp_path / "url").chmod(0o600)
    file = tmp_path / "agent.toml"
    file.write_text(f'{PIPES}[[notify]]\nname = "phone"\nurl_file = "url"\n{more}')
    return file


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("", 'nothing is chosen, as there is no [[rule]]; write one, or e.g. kinds = ["object"]'),
        ('rules = ["a"]', "nothing is chosen, as there is no [[rule]]"),
        ('kinds = ["objekt"]', 'notify[0] (phone): kinds: "objekt" is none; did you mean "object"?'),
        ('kinds = ["gap"]', '"gap" is none'),
        ('kinds = ["object"]\npipelines = ["dor"]', 'pipelines: "dor" is none; did you mean "door"?'),
        ('kinds = ["anomaly"]\nlabels = ["a"]', "labels: no event that is chosen has any"),
        ('kinds = ["object"]\nphases = ["begin"]', 'notify[0].phases[0]: must be "end" or "new" or'),
        ('kinds = ["object"]\nquiet = "22-7"', 'notify[0].quiet: must be two times of a day such as "22:00-07:00"'),
        ('kinds = ["object"]\nquiet = "24:00-07:00"', "two times of a day"),
        ('kinds = ["object"]\nquiet = "22:00-22:00"', "has no length"),
        ('kinds = ["object"]\nmessage = "{wrods}"', 'message: "{wrods}" is none; did you mean "words"?'),
        ('kinds = ["object"]\ntitle = "{}"', 'title: "{}" is none'),
        ('kinds = ["object"]\nlimit = 0', "limit"),
        ('kinds = ["object"]\nsnapshot = true', "snapshot: none is made; write snapshots = true under [samples]"),
        ('kinds = ["object"]\nurl = "https://x"', 'unknown key "notify[0].url"; did you mean "url_file"?'),
        ('kinds = ["object"]\n[[notify]]\nname = "phone"\nurl_file = "b"\nkinds = ["text"]', "stands twice"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, more: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(config(tmp_path, more))
    assert told in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("", "its first line is no address"),
        ("example.org/t0p", "its first line is no address"),
        ("https://", "is no address"),
        ("https://:80/t0p", "the address names no host"),
        ("https://[::1/t0p", "the address names no host"),
        ("https://a/t0p\nt0p", "below the address stand headers only"),
        ("https://a/t0pü", "holds more than ASCII"),
        ("https://a/t0p\nX: ü", "below the address stand headers only"),
        ("https://a/t0p\nX: a\x00t0p", "below the address stand headers only"),
    ],
)
def test_an_address_that_is_none_is_told_of_without_it(tmp_path: Path, address: str, told: str) -> None:
    loaded = load(config(tmp_path, 'kinds = ["text"]', address))
    with pytest.raises(ConfigError) as caught:
        check_told(loaded)
    assert told in str(caught.value) and "notify phone: url_file" in str(caught.value)
    assert "t0p" not in str(caught.value)


def test_a_file_that_is_not_there_and_a_credential_and_an_authority(tmp_path: Path) -> None:
    file = config(tmp_path, 'kinds = ["text"]')
    (tmp_path / "url").unlink()
    with pytest.raises(ConfigError, match=r"notify phone: url_file: .* cannot be read \(No such file"):
        check_told(load(file))
    file.write_text(file.read_text().replace('"url"', '"credential:phone"'))
    with pytest.raises(ConfigError, match="no systemd credentials here"):
        check_told(load(file))
    file = config(tmp_path, 'kinds = ["text"]\nca = "nobody.pem"')
    with pytest.raises(ConfigError, match=r"notify phone: ca: .*nobody.pem cannot be read"):
        check_told(load(file))


def test_what_needs_apprise_says_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError) as caught:
        check_told(load(config(tmp_path, 'kinds = ["text"]', "tgram://t0p/1")))
    assert 'tgram:// needs Apprise, which is not installed; type pip install "edge-agent-runtime[notify]"' in str(
        caught.value
    )
    assert "t0p" not in str(caught.value)
    check_told(load(config(tmp_path, 'kinds = ["text"]')))


def test_what_check_says_and_a_test_message(tmp_path: Path) -> None:
    with hook() as server:
        file = config(tmp_path, 'kinds = ["text"]\nquiet = "22:00-07:00"\nlabels = []', f"{server.url}?key=t0p")
        loaded = load(file)
        assert list(about_told(loaded)) == [
            "notify phone: http://127.0.0.1: text; quiet 22:00-07:00, 30 an hour at most"
        ]
        assert not server.requests
        assert list(try_told(loaded, "")) == [(True, "notify phone: took a test message")]
        server.answers = [404]
        assert list(try_told(loaded, "phone")) == [(False, "notify phone: HTTP 404")]
        with pytest.raises(ConfigError, match='--notify: "phon" is none; did you mean "phone"'):
            list(try_told(loaded, "phon"))
    with pytest.raises(ConfigError, match=r"there is no \[\[notify\]\] to try"):
        list(try_told(parse(PIPES), ""))


def test_of_telemetry_nobody_is_told(tmp_path: Path) -> None:
    file = config(tmp_path, 'kinds = ["text"]')
    both = file.read_text().replace(
        "[[notify]]", 'class = "telemetry"\n[[pipeline]]\nname = "b"\nsource = "lines:a"\n[[notify]]'
    )
    load(file)
    file.write_text(both)
    load(file)
    file.write_text(both.replace("[[notify]]", 'class = {text = "telemetry"}\n[[notify]]'))
    with pytest.raises(ConfigError, match='kinds: "text" of door and b is telemetry, and this is for alerts'):
        load(file)
    file.write_text(both + '\npipelines = ["door"]')
    with pytest.raises(ConfigError, match='kinds: "text" of door is telemetry'):
        load(file)


def test_its_files_belong_to_the_config(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = config(tmp_path, 'kinds = ["text"]')
    (tmp_path / "url").chmod(0o644)
    assert tmp_path / "url" in set(named(load(file)))
    assert "notify phone: url_file can be read by others; chmod g-w,o-rwx" in caplog.text


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:t0p@example.org:8443/t0p?t0p", "https://example.org"),
        ("tgram://t0p/t0p", "tgram"),
        ("mailtos://a:t0p@example.org", "mailtos"),
    ],
)
def test_what_is_shown_of_an_address(url: str, shown: str) -> None:
    assert Address(url, {}).shown == shown
