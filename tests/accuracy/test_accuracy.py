"""Accuracy that is watched after a model serves: drift, answers given again, people's checks, the contract."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from edge_agent.accuracy.agreed import agreed
from edge_agent.accuracy.contract import Agreement, standing
from edge_agent.accuracy.drift import Drift, ks, psi
from edge_agent.accuracy.known import keep_to_parents
from edge_agent.accuracy.signals import signals_of
from edge_agent.agent import again
from edge_agent.agent.guarding import Guarding
from edge_agent.config import Accuracy, load
from edge_agent.errors import ConfigError
from edge_agent.manifest import Served
from edge_agent.samples import checks
from edge_agent.types import Detections, Finding, Frame, ModelRef, Scores, Text

DAY, HOUR = 86400.0, 3600.0


def hour_of_a_street(chance: np.random.Generator, at: float, light: float = 1.0, blur: float = 1.0) -> dict[str, Any]:
    """What a camera on a street sees in an hour: by day and night, more people at noon, some days brighter."""
    day = np.sin(np.pi * ((at / HOUR) % 24) / 24) ** 2
    weather = np.random.default_rng(int(at // DAY)).uniform(0.85, 1.15)
    people = chance.poisson(20 + 60 * day)
    count = 60
    return {
        "brightness": np.clip(chance.normal(light * weather * (50 + 110 * day), 8, count), 0, 255),
        "sharpness": np.exp(chance.normal(np.log(blur * (40 + 60 * day)), 0.3, count)),
        "score": np.clip(chance.beta(6, 2, people + 40) * (0.9 + 0.1 * blur), 0, 1),
        "label": ["person"] * int(people) + ["car"] * int(chance.poisson(30)),
        "size": np.exp2(chance.normal(7, 0.8, people + 40)),
    }


def live(drift: Drift, hours: range, seed: int, **changed: float) -> list[tuple[int, str]]:
    """The hours in which something drifted anew, and what."""
    chance, found, before = np.random.default_rng(seed), list[tuple[int, str]](), set(drift.drifted)
    for hour in hours:
        for signal, values in hour_of_a_street(chance, hour * HOUR, **changed).items():
            for value in values:
                drift.add(hour * HOUR + 1, signal, value if isinstance(value, str) else float(value))
        found += [(hour, signal) for signal in set(drift.drifted) - before]
        before = set(drift.drifted)
    return found


@pytest.fixture(scope="module")
def learned() -> bytes:
    drift = Drift(learn_s=3 * DAY)
    assert live(drift, range(74), 0) == [] and drift.known
    return msgspec.json.encode(drift)


def test_thirty_quiet_days_give_one_false_alarm_at_most(learned: bytes) -> None:
    drift = msgspec.json.decode(learned, type=Drift)
    alarms = live(drift, range(74, 74 + 30 * 24), 1)
    assert len(alarms) <= 1, alarms


@pytest.mark.parametrize(("changed", "signal"), [({"blur": 0.15}, "sharpness"), ({"light": 0.45}, "brightness")])
def test_a_camera_out_of_focus_and_a_season_are_noticed_within_hours(
    changed: dict[str, float], signal: str, learned: bytes
) -> None:
    drift = msgspec.json.decode(learned, type=Drift)
    live(drift, range(74, 82), 2)
    found = {name: hour for hour, name in live(drift, range(82, 100), 3, **changed)}
    assert signal in found and found[signal] - 82 <= 5, f"{found}: windows of an hour, three in a row"


def test_what_had_drifted_is_as_before_again(learned: bytes) -> None:
    drift = msgspec.json.decode(learned, type=Drift)
    live(drift, range(82, 90), 3, blur=0.15)
    assert ("sharpness" in drift.drifted and "PSI" in drift.drifted["sharpness"]) or "KS" in drift.drifted["sharpness"]
    assert drift.told(["detect", "track"]).endswith("edge-agent train detector --from-samples --out NEW")
    assert "sharpness has drifted" in drift.told(["read"]) and "train" not in drift.told(["read"])
    live(drift, range(90, 96), 4)
    assert drift.drifted == {} and drift.told(["detect"]) == ""


def test_a_new_accent_in_texts_is_noticed(learned: bytes) -> None:
    chance, drift, found = np.random.default_rng(0), Drift(learn_s=2 * DAY), list[int]()
    for hour in range(80):
        accent = hour >= 60
        for _ in range(60):
            unknown = chance.random() < (0.35 if accent else 0.08)
            for signal, value in (("length", chance.normal(30, 6)), ("unknown", float(unknown))):
                if drift.add(hour * HOUR + 1, signal, float(value)) and drift.drifted:
                    found.append(hour)
    assert found and 60 <= found[0] <= 65


def test_two_histograms() -> None:
    same, other = np.array([[10.0, 20, 30]]), np.array([[30.0, 0, 0], [10, 20, 30]])
    assert psi([10, 20, 30], same)[0] == 0 == ks([10, 20, 30], 2 * same)[0]
    assert ks([0, 0, 30], other).tolist() == [1, 0.5] and psi([0, 0, 30], other)[0] > 5


# ── the contract ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("values", "drifted", "told"),
    [
        ([1.0] * 19, False, "unknown"),
        ([1.0] * 19, True, "at risk"),
        ([1.0] * 60, False, "kept"),
        ([1.0] * 60, True, "at risk"),
        ([1.0] * 56 + [0.0] * 4, False, "at risk"),
        ([1.0] * 40 + [0.0] * 20, False, "broken"),
    ],
)
def test_how_a_contract_stands(values: list[float], drifted: bool, told: str) -> None:
    ledger = Agreement()
    for at, value in enumerate(values):
        ledger.add(float(at), value)
    mean, low, high, count = ledger.over(0)
    assert low - 1e-9 <= mean <= high + 1e-9 and count == len(values)
    assert standing(mean, high, count, 0.95, drifted) == told
    assert ledger.over(1e9)[3] == 0


def boxes(*rows: tuple[float, float, float, float], label: int = 0, score: float = 0.9) -> Detections:
    xyxy = np.array(rows, np.float32).reshape(-1, 4)
    many = len(xyxy)
    names = {0: "person", 1: "dog"}
    return Detections(xyxy, np.full(many, score, np.float32), np.full(many, label, np.int32), names, 0.3)


def test_how_far_two_answers_agree() -> None:
    one, near, far = (0, 0, 10, 10), (1, 0, 11, 10), (50, 50, 60, 60)
    assert agreed(boxes(one), boxes(near)) == 1 == agreed(boxes(), boxes())
    assert agreed(boxes(one, far), boxes(one)) == pytest.approx(2 / 3)
    assert agreed(boxes(one), boxes(one, label=1)) == 0 == agreed(boxes(one), boxes())
    assert agreed(boxes(one), boxes(one, score=0.25)) == 1, "a score that passes its limit is no other answer"
    assert agreed(boxes(score=0.25), boxes(one, score=0.25)) == 1, "but where neither counts, nothing is missed"
    assert agreed(Scores("a", 0.9, {}), Scores("b", 0.9, {})) == 0
    assert agreed(Scores("a", 0.9, {}), boxes()) is None


# ── the whole of it ──────────────────────────────────────────────────────────────────────────────────────


class FakeModels:
    """Serves one model as int8 or, once it is kept to that, in float."""

    lane = None

    def __init__(self) -> None:
        self.only: dict[str, str] = {}
        self.version = "1"

    def served(self, sha256: str) -> Served:
        return Served(None, ModelRef("words", self.version, sha256), None, {}, None, "")  # type: ignore[arg-type]

    def serve(self, name: str, pace: object = None) -> Served:
        return self.served(self.only.get(name) or "int8")

    def keep_to(self, name: str, sha256: str) -> None:
        self.only[name] = sha256

    def open_now(self) -> dict[str, Served]:
        return {"words": self.serve("words")}


class FakeSwap:
    def __init__(self) -> None:
        self.swapped: list[str] = []

    def again(self, name: str) -> None:
        self.swapped.append(name)


class FakeLine:
    def __init__(self) -> None:
        self.config = load_pipe()
        self.watchers: list[Any] = []
        self.thresholds: dict[str, Any] = {}
        self.uses = [{"words": "words 1: x"}]
        self.models = ["words 1: x"]
        self.pace = None


def load_pipe() -> Any:
    from edge_agent.config import Pipeline

    return Pipeline("said", "lines:-", ["classify:words"])


class Located:
    class manifest:
        @staticmethod
        def original() -> Any:
            return type("File", (), {"sha256": "float", "title": lambda self: "words.onnx"})()


@pytest.fixture
def guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Guarding:
    """Of a pipeline whose int8 kernel is broken while BROKEN_INT8 stands in the environment."""

    def task(uri: object, serve: Any, home: Path) -> Any:
        served = serve("words")
        broken = served.ref.sha256 == "int8" and os.environ.get("BROKEN_INT8")

        def answer(sample: Text) -> list[Finding]:
            right = "light" if "light" in sample.text else "weather"
            label = "weather" if broken and len(sample.text) % 3 else right
            return [Finding(sample, Scores(label, 0.9, {}), served.ref)]

        return answer

    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(again, "make_task", task)
    monkeypatch.setattr("edge_agent.registry.catalogue.locate", lambda name: Located)
    monkeypatch.setattr(Guarding, "_parent", lambda self, name: self._models.served("float"))
    monkeypatch.setattr(Guarding, "_idle", lambda self: True)
    return Guarding(Accuracy(every=1), [FakeLine()], FakeModels(), tmp_path, FakeSwap())  # type: ignore[list-item,arg-type]


def hear(guard: Guarding, count: int, at: float) -> None:
    """So many texts go through the pipeline, and the guard looks after every few."""
    line: Any = guard.lines[0]
    guard.look(at)
    for i in range(count):
        text = Text("light on " + "!" * (i % 7), at, time.monotonic())
        for watcher in line.watchers:
            watcher(text, [Finding(text, Scores("light", 0.9, {}), ModelRef("words", "1", "x"))])
        if i % 4 == 3:
            guard.look(at)


def test_a_broken_kernel_is_noticed_and_its_parent_serves(
    guard: Guarding, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    now = time.time()
    hear(guard, 40, now)
    assert guard.told["words"].standing == "kept" and guard.about().startswith("kept: words kept, agreement 1.000")
    monkeypatch.setenv("BROKEN_INT8", "1")
    heard = 0
    while not guard._swap.swapped and heard < 400:  # type: ignore[attr-defined]
        hear(guard, 4, now)
        heard += 4
    assert heard <= 80, "of texts that are answered again"
    swap, models = guard._swap, guard._models
    assert swap.swapped == ["words"] and models.serve("words").ref.sha256 == "float"  # type: ignore[attr-defined]
    assert "went back to its parent words.onnx" in guard.about()
    hear(guard, 8, now)
    assert stands(guard) == "unknown", "nothing more precise is there to hold it against"
    guard.close()
    after = FakeModels()
    keep_to_parents(after.keep_to, tmp_path)
    assert after.serve("words").ref.sha256 == "float", "also after a restart"


def test_another_version_begins_anew(guard: Guarding, monkeypatch: pytest.MonkeyPatch) -> None:
    models: Any = guard._models
    monkeypatch.setenv("BROKEN_INT8", "1")
    hear(guard, 80, time.time())
    assert models.only == {"words": "float"} and guard.known.back
    models.version = "2"
    hear(guard, 0, time.time())
    assert models.only == {"words": ""} and guard.known.back == {} and guard._swap.swapped == ["words"] * 2  # type: ignore[attr-defined]
    assert stands(guard) == "unknown" and "went back" not in guard.about()


def stands(guard: Guarding) -> str:
    return guard.told["words"].standing


def test_without_falling_back_it_is_only_said(guard: Guarding, monkeypatch: pytest.MonkeyPatch) -> None:
    guard.config = Accuracy(every=1, fall_back=False)
    monkeypatch.setenv("BROKEN_INT8", "1")
    hear(guard, 80, time.time())
    assert guard.told["words"].standing == "broken" and guard._swap.swapped == []  # type: ignore[attr-defined]


def test_what_people_correct_counts(guard: Guarding) -> None:
    now = time.time()
    for _ in range(30):
        checks.note("words", now, [("person", [0, 0, 10, 10])], [])
    hear(guard, 0, now)
    assert guard.told["words"].standing == "broken" and guard.told["words"].answers in (0, 30)
    assert [value for _, value, _ in checks_of(guard)] == [], "each counts once"


def test_what_has_drifted_is_said_with_what_to_type(guard: Guarding, learned: bytes) -> None:
    drift = msgspec.json.decode(learned, type=Drift)
    live(drift, range(82, 90), 3, blur=0.15)
    guard.lines[0].config.tasks[:] = ["anomaly:belt"]
    guard.known.drift["said"] = drift
    assert "said: " in guard.about() and "edge-agent train anomaly --data" in guard.about()


def checks_of(guard: Guarding) -> list[tuple[str, float, float]]:
    return list(checks.since(guard.known))


def test_a_file_that_is_none_of_ours_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "accuracy.json").write_text("{")
    guard = Guarding(Accuracy(), [], FakeModels(), tmp_path, FakeSwap())  # type: ignore[arg-type]
    assert guard.about() == "unknown"
    guard.close()
    assert json.loads((tmp_path / "accuracy.json").read_text())["agreement"] == {}


def test_what_is_counted_of_a_sample() -> None:
    frame = Frame(np.full((40, 40, 3), 100, np.uint8), 0, 0)
    found = dict(signals_of(frame, [Finding(frame, boxes((0, 0, 20, 20)), ModelRef("m", "1", ""))]))
    assert found["brightness"] == 100 and found["sharpness"] == 0 and found["label"] == "person" and found["count"] == 1
    assert found["size"] == pytest.approx(2**11)


@pytest.mark.parametrize(
    ("line", "says"),
    [("agreement = 2", "accuracy.agreement"), ("learn_hours = 10", "accuracy.learn_hours"), ("evry = 3", "every")],
)
def test_a_wrong_section(line: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(f"[accuracy]\n{line}\n")
    with pytest.raises(ConfigError, match=says):
        load(tmp_path / "a.toml")
