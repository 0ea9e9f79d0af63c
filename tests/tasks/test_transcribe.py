"""Speech to text: the parts against their references, and the whole on carried and real speech."""

from __future__ import annotations

import hashlib
import logging
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from edge_agent.backends import open_net
from edge_agent.errors import ConfigError, FetchError, InputError, LateError, ManifestError, RefusedError
from edge_agent.figures.words import errors, plain
from edge_agent.manifest import Served
from edge_agent.registry import catalogue, files
from edge_agent.samples.carried import SPOKEN, sound
from edge_agent.serving.models import Models
from edge_agent.tasks import make_task
from edge_agent.tasks.transcribe import mel, vocabulary
from edge_agent.tasks.transcribe.compare import compare
from edge_agent.tasks.transcribe.transcribe import ENGINES
from edge_agent.tasks.transcribe.whisper import WHOLE, Whisper
from edge_agent.types import Audio, Floats, Heard, Task, Tensors, Text
from edge_agent.uri import parse_uri
from tests.conftest import ROOT
from tests.speech import samples_of

LIGHT = ROOT / "deploy" / "demo" / "speech" / "light.wav"
BANDS, FRAMES = [0, 13, 40, 79], [0, 1, 60, 120, 207, 208, 999]
REFERENCE = [
    [-0.68799, -0.68799, -0.06002, -0.68799, -0.68799, -0.68799, -0.68799],
    [-0.68799, -0.68799, 0.56063, -0.64011, -0.68799, -0.68799, -0.68799],
    [-0.68799, -0.68799, 0.82927, -0.68799, -0.68799, -0.68799, -0.68799],
    [-0.67474, -0.64806, -0.31993, -0.68799, -0.68799, -0.62686, -0.68799],
]
"""what FeatureExtractor of faster-whisper 1.2.1 gives for light.wav with silence behind it up to 10 s"""


def audio(samples: Floats, ago: float = 0.0) -> Audio:
    return Audio(samples, time.time() - ago, time.monotonic() - ago)


@pytest.fixture(scope="module")
def served(whisper: Path) -> Served:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGE_AGENT_HOME", str(whisper))
        return Models(threads=1).serve("whisper-tiny")


def task_of(model: Served, options: str = "") -> Task:
    return make_task(parse_uri(f"transcribe:whisper-tiny{options}"), lambda name: model, Path())


def words(task: Task, item: Audio) -> list[Text]:
    return [found for found in task(item) if isinstance(found, Text)]


# ── the parts ────────────────────────────────────────────────────────────────────────────────────────────


def test_mel_is_that_of_the_reference() -> None:
    found = mel.log_mel(samples_of(LIGHT), 1000)
    assert found.shape == (80, 1000) and found.dtype == np.float32
    assert np.abs(found[np.ix_(BANDS, FRAMES)] - REFERENCE).max() < 1e-4
    assert mel.bank().sum() == pytest.approx(1.9990242, abs=1e-5)


def test_mel_is_that_of_faster_whisper_where_it_is_installed(data: Path) -> None:
    extractor = pytest.importorskip("faster_whisper.feature_extractor").FeatureExtractor()
    for path in sorted((data / "audio").glob("*.wav")):
        samples = samples_of(path)
        theirs = extractor(samples, padding=3000 * mel.HOP - len(samples))
        assert np.abs(mel.log_mel(samples, 3000) - theirs).max() < 1e-4


def test_sound_longer_than_the_window_is_cut() -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, 48_000).astype(np.float32)
    assert mel.log_mel(samples, 200).shape == (80, 200)


def test_each_byte_has_its_character() -> None:
    assert sorted(vocabulary.BYTES.values()) == list(range(256))
    assert vocabulary.BYTES["Ġ"] == 0x20 and vocabulary.BYTES["Ċ"] == 0x0A and vocabulary.BYTES["é"] == 0xE9


def test_tokens_are_text_as_the_tokenizers_package_has_it(whisper: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    monkeypatch.setenv("EDGE_AGENT_HOME", str(whisper))
    path = files.parts_of(catalogue.locate("whisper-tiny"))["vocab"]
    mine = vocabulary.read(path)
    assert mine.end == 50256 and len(mine.languages) == 99 and mine.languages[0] == "en"
    theirs = tokenizers.decoders.ByteLevel()
    assert all(mine.text([at]) == theirs.decode([mine.tokens[at]]) for at in range(mine.end))
    pick = np.random.default_rng(0)
    for _ in range(500):
        ids = pick.integers(0, mine.end, 20).tolist()
        assert mine.text(ids) == theirs.decode([mine.tokens[at] for at in ids])
    assert mine.text([mine.end, mine.ids[vocabulary.START]]) == ""


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"a\nb\n", r"no <\|startoftranscript\|> among its tokens"),
        (
            "日\n<|endoftext|>\n<|startoftranscript|>\n<|notimestamps|>\n".encode(),
            "'日' among its tokens is no byte pair",
        ),
        (b"\xff\xfe\n", "cannot be read"),
    ],
)
def test_what_is_no_vocabulary_is_refused(content: bytes, problem: str, tmp_path: Path) -> None:
    (tmp_path / "vocabulary.txt").write_bytes(content)
    with pytest.raises(ManifestError, match=problem):
        vocabulary.read(tmp_path / "vocabulary.txt")


# ── the whole ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", SPOKEN)
def test_a_carried_sentence_is_heard(name: str, served: Served) -> None:
    (text,) = words(task_of(served), sound(name))
    assert plain(text.text) == plain(SPOKEN[name])
    assert isinstance(text.got, Heard) and text.got.engine == "whisper-tiny 1.0.0" and text.got.language == "en"
    assert 0.3 < text.got.score <= 1 and text.got.seconds == pytest.approx(len(sound(name).samples) / 16000, abs=1e-3)


def test_human_speech_is_heard(served: Served, data: Path) -> None:
    told = "he was not an ill disposed young man"
    (text,) = words(task_of(served), audio(samples_of(next((data / "audio").glob("*0880.wav")))))
    assert errors(plain(told), plain(text.text)) <= 3
    (text,) = words(task_of(served), audio(samples_of(data / "audio" / "goforward.raw")))
    assert text.text.casefold().startswith("go forward")


def quiet_sounds() -> dict[str, Floats]:
    pick, seconds = np.random.default_rng(3), np.arange(48_000) / 16_000
    return {
        "nothing": np.zeros(0, np.float32),
        "silence": np.zeros(48_000, np.float32),
        "hiss": pick.normal(0, 0.002, 48_000).astype(np.float32),
        "noise": pick.normal(0, 0.05, 48_000).astype(np.float32),
        "hum": (0.1 * np.sign(np.sin(2 * np.pi * 50 * seconds))).astype(np.float32),
        "tones": (0.2 * np.sin(2 * np.pi * 220 * 2 ** (np.floor(seconds * 4) / 12) * seconds)).astype(np.float32),
    }


@pytest.mark.parametrize("name", quiet_sounds())
def test_what_is_no_speech_gives_nothing(name: str, served: Served) -> None:
    assert words(task_of(served), audio(quiet_sounds()[name])) == []


def test_what_repeats_in_a_short_window_is_heard_in_the_whole_one(served: Served, data: Path) -> None:
    # "yes" of one second is said over and over in a window of two
    samples = samples_of(data / "audio" / "yes_1000ms.wav")
    engine = task_of(served).engine  # type: ignore[attr-defined]
    assert isinstance(engine, Whisper)
    assert not engine._say(samples, WHOLE).repeats
    assert plain(words(task_of(served), audio(samples))[0].text) == ["yes"]


def test_the_most_tokens_are_as_many_as_are_asked_for(served: Served) -> None:
    run, prompt = served.net.run, np.array([50_257, 50_362], np.int32)
    encoded = run({"features": mel.log_mel(sound("rain.wav").samples, 1000)[None]})["encoded"]
    for longest in (4, 7):
        asked = {"encoded": encoded, "prompt": prompt, "beam": np.array([1]), "longest": np.array([longest])}
        assert len(run(asked)["tokens"]) == longest


def test_who_says_a_thing_twice_is_heard_twice(served: Served, data: Path) -> None:
    folder = data / "audio"
    parts = [samples_of(path) for path in [*sorted(folder.glob("sense*.wav")), folder / "goforward.raw"]] * 2
    (text,) = words(task_of(served), audio(np.concatenate(parts)[: 30 * 16_000]))
    assert plain(text.text).count("dashwood") == 2


def test_what_repeats_in_the_whole_window_too_is_counted_as_not_made_out(served: Served) -> None:
    said = {"score": np.array([-0.1], np.float32), "silence": np.array([0.1], np.float32)}
    token = vocabulary.read(served.parts["vocab"]).tokens.index("Ġyes")

    def run(tensors: Tensors) -> dict[str, Any]:
        return served.net.run(tensors) if "features" in tensors else {**said, "tokens": np.full(70, token, np.int32)}

    lost = msgspec.structs.replace(served, net=msgspec.structs.replace(served.net, run=run))
    with pytest.raises(InputError, match=r"says the same over and over of 2\.1 s of sound, so nothing is told of it"):
        list(task_of(lost)(sound("light.wav")))


def test_a_run_takes_two_turns(served: Served) -> None:
    # between them others may have the processor
    fed = []
    net = served.net

    def run(tensors: object) -> object:
        fed.append(sorted(tensors))  # type: ignore[call-overload]
        return net.run(tensors)  # type: ignore[arg-type]

    spied = msgspec.structs.replace(served, net=msgspec.structs.replace(net, run=run))
    assert words(task_of(spied), sound("light.wav"))
    assert fed == [["features"], ["beam", "encoded", "longest", "prompt"]]


def test_words_have_their_times(served: Served, data: Path) -> None:
    samples = samples_of(data / "audio" / "goforward.raw")
    (text,) = words(task_of(served, "?words=yes"), audio(samples))
    assert isinstance(text.got, Heard) and text.got.words is not msgspec.UNSET
    assert len(text.got.words) == len(text.text.split())
    times = [at for word in text.got.words for at in word]
    assert times == sorted(times) and times[0] >= 0 and times[-1] <= len(samples) / 16_000
    # another recogniser, pocketsphinx, has "forward" at 0.63 to 1.21 s
    assert abs(sum(text.got.words[text.text.split().index("forward")]) / 2 - 0.92) < 0.3
    (text,) = words(task_of(served), audio(samples))
    assert isinstance(text.got, Heard) and text.got.words is msgspec.UNSET


def test_a_model_agrees_with_itself(served: Served) -> None:
    assert compare(served, served) == (1.0, 2, "agreement of the words")


def test_more_than_30_seconds_and_other_rates_are_refused(served: Served) -> None:
    with pytest.raises(InputError, match=r"whisper-tiny: 31\.0 s of sound; it takes up to 30 s at once"):
        list(task_of(served)(audio(np.full(31 * 16_000, 0.1, np.float32))))
    with pytest.raises(InputError, match="sound of 8000 samples a second; it takes 16000"):
        list(task_of(served)(Audio(np.zeros(80, np.float32), 0.0, 0.0, 8000)))


def test_what_is_too_old_is_given_up_and_said_once(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    task, old = task_of(served, "?deadline=5"), audio(sound("light.wav").samples, ago=20.0)
    with caplog.at_level(logging.WARNING, "edge_agent"):
        for _ in range(3):
            with pytest.raises(LateError, match=r"speech waited longer than its deadline of 5 s: given up"):
                list(task(old))
    assert [record.getMessage() for record in caplog.records] == [
        "whisper-tiny: speech waited longer than its deadline of 5 s: given up; so is what follows, until it catches up"
    ]
    assert words(task, sound("light.wav"))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ("?language=de", "whisper-tiny was trained on English alone; leave language out"),
        ("?language=klingon", "language=klingon: give en"),
        ("?beam=0", "beam=0: give a number from 1 to 16"),
        ("?deadline=-1", "deadline=-1: give a number from 0.1"),
        ("?beem=1", 'unknown option "beem"; did you mean "beam"'),
    ],
)
def test_wrong_options_are_said_in_one_line(options: str, problem: str, served: Served) -> None:
    with pytest.raises(ConfigError, match=problem):
        task_of(served, options)


def test_a_model_that_is_not_here_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path))
    with pytest.raises(FetchError, match=r"is not here yet; run `edge-agent models pull whisper-tiny`"):
        Models().serve("whisper-tiny")


@pytest.mark.parametrize("how", ["cut", "emptied", "without its vocabulary"])
def test_a_broken_model_is_refused_in_one_line(
    how: str, whisper: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(whisper))
    located = catalogue.locate("whisper-tiny")
    content = {row.name: files.file_path(located, row).read_bytes() for row in located.manifest.file}
    weights = content["model.bin"]
    broken = {"cut": weights[:1_000_000], "emptied": weights[:2000] + bytes(len(weights) - 2000)}
    content["model.bin"] = broken.get(how, weights)
    if how == "without its vocabulary":
        content["vocabulary.txt"] = b"a\nb\n"
    manifest = (ROOT / "models" / "whisper-tiny" / "manifest.toml").read_text()
    for row in located.manifest.file:
        data = content[row.name]
        (tmp_path / row.name).write_bytes(data)
        manifest = manifest.replace(row.sha256, hashlib.sha256(data).hexdigest())
        manifest = manifest.replace(f"bytes = {row.bytes}", f"bytes = {len(data)}")
    (tmp_path / "manifest.toml").write_text(manifest)
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    with pytest.raises(RefusedError, match=r"whisper-tiny: model\.bin is refused: ") as refused:
        Models().serve(str(tmp_path))
    assert "\n" not in str(refused.value)


def test_what_is_missing_is_said_with_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    for row in ENGINES.values():
        assert f'\n{row.extra} = ["{row.needs}>=' in (ROOT / "pyproject.toml").read_text()
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    monkeypatch.delitem(sys.modules, "edge_agent.tasks.transcribe.sphinx", raising=False)
    with pytest.raises(
        ConfigError, match=r'pocketsphinx is missing \(.*\); pip install "edge-agent-runtime\[sphinx\]"'
    ):
        make_task(parse_uri("transcribe:pocketsphinx"), lambda name: pytest.fail(name), Path())
    monkeypatch.setitem(sys.modules, "ctranslate2", None)
    with pytest.raises(
        RefusedError, match=r'CTranslate2 is missing \(.*\); pip install "edge-agent-runtime\[speech\]"'
    ):
        open_net(LIGHT, "ctranslate2")


# ── pocketsphinx ─────────────────────────────────────────────────────────────────────────────────────────

GRAMMAR = """#JSGF V1.0; // what a robot does
grammar move;
public <move> = (go | /2.5/ move) <way> [ten] meters {tag one} | stop;
<way> = forward | back; /* two ways */
"""


def sphinx(options: str) -> Task:
    pytest.importorskip("pocketsphinx", reason="pocketsphinx is not installed: extra [sphinx]")

    def serve(name: str) -> Served:
        raise AssertionError("it brings its own model")

    return make_task(parse_uri(f"transcribe:pocketsphinx{options}"), serve, Path())


def test_a_grammar_is_heard_and_nothing_else(tmp_path: Path, data: Path) -> None:
    (tmp_path / "move.jsgf").write_text(GRAMMAR)
    task = sphinx(f"?grammar={tmp_path / 'move.jsgf'}")
    (text,) = words(task, audio(samples_of(data / "audio" / "goforward.raw")))
    assert text.text == "go forward ten meters"
    assert isinstance(text.got, Heard) and text.got.engine == "pocketsphinx" and 0 < text.got.score <= 1
    assert words(task, audio(np.zeros(16_000, np.float32))) == []
    assert words(task, audio(samples_of(data / "audio" / "noise_1000ms.wav"))) == []


def test_keywords_are_spotted_in_their_order(tmp_path: Path, data: Path) -> None:
    (tmp_path / "keys.list").write_text("ten meters /1e-20/\nforward /1e-20/\n")
    task = sphinx(f"?keywords={tmp_path / 'keys.list'}")
    assert [t.text for t in words(task, audio(samples_of(data / "audio" / "goforward.raw")))] == ["forward ten meters"]
    assert words(task, audio(samples_of(data / "audio" / "yes_1000ms.wav"))) == []


@pytest.mark.parametrize(
    ("option", "content", "problem"),
    [
        ("grammar", GRAMMAR.replace("stop", "blorb | Halt"), r"dictionary \(English, lower case\) has no blorb, Halt;"),
        ("grammar", "#JSGF V1.0;\ngrammar a;\npublic <a> = go (back | ;\n", "is no JSGF grammar with a public rule"),
        ("grammar", "go forward\n", "is no JSGF grammar; its first line is #JSGF V1.0;"),
        ("grammar", "", "is no JSGF grammar"),
        ("keywords", "blorb /1e-20/\n", "has no blorb"),
        ("keywords", "\n\n", "holds no words"),
    ],
)
def test_a_wrong_grammar_is_said_in_one_line(option: str, content: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text(content)
    with pytest.raises(ConfigError, match=problem):
        sphinx(f"?{option}={tmp_path / 'file'}")


def test_a_missing_grammar_and_two_searches_are_refused() -> None:
    with pytest.raises(ConfigError, match="gone cannot be read"):
        sphinx("?grammar=/gone")
    with pytest.raises(ConfigError, match="a grammar and keywords; give one of them"):
        sphinx("?grammar=a&keywords=b")
