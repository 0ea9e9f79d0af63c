"""The fastest variant serves, whichever it is, and which one it was is remembered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edge_agent import backends
from edge_agent.backends.onnx import PROVIDERS
from edge_agent.cli import main
from edge_agent.errors import RefusedError
from edge_agent.gate import ask, race
from edge_agent.gate.trial import Race, Variant
from edge_agent.manifest import File, Served, load
from edge_agent.serving.models import Models
from tests.gate.test_agree import row, with_variant
from tests.nets import absolute_tflite, doubling_onnx
from tests.tiny import tiny_detector


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def slow_first(tmp_path: Path) -> Path:
    """The tiny detector, and before it an int8 variant that says the same after a hundred times the work."""
    folder = tiny_detector(tmp_path / "model")
    model = onnx.load(str(folder / "model.onnx"))
    (last,) = (node for node in model.graph.node if node.output[0] == "output0")
    last.output[0] = "answer"
    for name, array in (
        ("rows", np.array([192, 64], np.int64)),
        ("wide", np.full((64, 8192), 1e-3, np.float32)),
        ("back", np.full((8192, 64), 1e-3, np.float32)),
        ("nothing", np.float32(0)),
    ):
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    model.graph.node.extend(
        [
            helper.make_node("Reshape", ["images", "rows"], ["a"]),
            helper.make_node("MatMul", ["a", "wide"], ["b"]),
            helper.make_node("MatMul", ["b", "back"], ["c"]),
            helper.make_node("ReduceMean", ["c"], ["d"], keepdims=0),
            helper.make_node("Mul", ["d", "nothing"], ["e"]),
            helper.make_node("Add", ["answer", "e"], ["output0"]),
        ]
    )
    onnx.save(model, str(folder / "model.int8.onnx"))
    head, _, _ = (folder / "manifest.toml").read_text().partition("[[file]]")
    rows = row(folder / "model.int8.onnx", "int8") + row(folder / "model.onnx", "fp32")
    (folder / "manifest.toml").write_text(head + rows)
    return folder


def test_int8_is_not_assumed_to_be_faster_and_the_winner_is_remembered(
    tmp_path: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = str(slow_first(tmp_path))
    why = Models(threads=1).serve(folder).why
    assert "; model.int8.onnx (int8) on " in why and "raced" not in why, "nobody asked for a race"
    why = Models(threads=1, race=True).serve(folder).why
    fast, slow = (["model.onnx", "model.optimised"], ["model.int8.onnx", "model.int8.optimised"])
    assert any(f"; {name} (fp32) on " in why for name in fast) and "; raced: " in why
    monkeypatch.setattr(ask, "CHILD", ["/nonexistent"])
    for again in (Models(threads=1), Models(threads=1, race=True)):
        # a form that was no faster than its file is gone
        known, raced = again.serve(folder).why.split("; raced: ")
        assert why.startswith(f"{known}; raced: ") and raced.split(", ")[0] in why
    for kept in (own_home / "races").iterdir():  # with the form that is gone, and without it
        rows = json.loads(kept.read_text())["result"]["figures"]["rows"]
        assert {"model.onnx", "model.int8.onnx"} <= {r["file"] for r in rows} <= {*fast, *slow}
        assert [r["file"] in slow for r in rows] == sorted(r["file"] in slow for r in rows), (
            "all the slow ones come last"
        )
        assert all(0 < r["median_ms"] <= r["p95_ms"] and r["runs"] >= 3 for r in rows)


def test_the_one_that_needs_no_comparison_serves_first_where_a_race_is_to_follow(
    tmp_path: Path, own_home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = str(slow_first(tmp_path))
    caplog.set_level("INFO", "edge_agent")
    models = Models(threads=1, soon=True)
    assert "; model.onnx (fp32) on " in models.serve(folder).why
    assert not (own_home / "reports").exists(), "no variant was held against another one"
    assert caplog.messages == ["tiny: model.onnx is tried on carried samples, once"]
    assert models.improve(folder) and "raced: " in models.open(folder).why
    assert "tiny: model.int8.onnx is held against its parent, once" in caplog.messages


def test_one_way_to_run_it_needs_no_race(tmp_path: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # what another provider may run is not optimised for the processor
    monkeypatch.setenv(PROVIDERS, "CPUExecutionProvider")
    folder = tiny_detector(tmp_path / "model")
    assert "raced" not in Models(threads=1, race=True).serve(str(folder)).why
    assert not (own_home / "races").exists()


def test_the_number_of_threads_takes_part_and_is_remembered(tmp_path: Path, own_home: Path) -> None:
    folder = str(tiny_detector(tmp_path / "model"))
    served = Models(threads=2, race=True).serve(folder)
    (kept,) = (own_home / "races").iterdir()
    figures = json.loads(kept.read_text())["result"]["figures"]
    ways = [(one["file"], one["threads"]) for one in figures["rows"]]
    assert sorted(ways) == [(name, count) for name in ("model.onnx", "model.optimised") for count in (1, 2)]
    assert f"threads={ways[0][1]}" in served.net.reasons[-1] and f"; {ways[0][0]} (fp32) on " in served.why
    assert figures["abreast"]["workers"] == 2 and figures["abreast"]["per_second"] > 0
    Models(threads=1, race=True).serve(folder)
    assert len(list((own_home / "races").iterdir())) == 2, "another budget is another race"


@pytest.mark.parametrize("short", ["memory", "threads"])
def test_a_race_stands_where_several_at_once_have_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short: str
) -> None:
    def no_thread(steps: list[object], seconds: float) -> float:
        raise RuntimeError("can't start new thread")

    if short == "memory":
        monkeypatch.setattr(race, "_available", lambda: -1)
    else:
        monkeypatch.setattr(race, "_a_second", no_thread)
    folder = tiny_detector(tmp_path / "model")
    manifest = load(folder / "manifest.toml")
    variants = [Variant(manifest.file[0], str(folder / "model.onnx"))]
    result = race.race(Race(manifest=manifest, variants=variants, threads=2, seconds=0.1))
    assert result.passed and len(result.figures["rows"]) == 2 and result.figures["abreast"] is None
    (note,) = result.notes
    assert note.startswith(
        "not tried 2 at once: it may take " if short == "memory" else "2 at once failed: can't start"
    )


@pytest.mark.parametrize(
    ("int8", "processor", "order"),
    [(0.8, 0.8, "int8 fp32"), (0.97, 0.97, "fp32 int8"), (1.2, 1.2, "fp32 int8"), (0.8, 1.1, "fp32 int8")],
    ids=["faster", "hardly faster", "slower", "faster for more processor time"],
)
def test_int8_goes_before_float_only_where_it_is_clearly_faster(int8: float, processor: float, order: str) -> None:
    def runner(precision: str, wall: float, cpu: float) -> race._Runner:
        file = File(precision, "onnx", "0" * 64, 1, precision=precision)
        return race._Runner(Variant(file, ""), 1, cast(Served, None), lambda: None, {}, [wall] * 3, [cpu] * 3)

    runners = [runner("fp32", 1.0, 1.0), runner("int8", int8, processor)]
    ranked = race._ranked(runners)
    assert " ".join(one.variant.file.name for one in ranked) == order
    said = race._overtaken(ranked)
    assert said == (["int8 is not clearly faster than fp32, which is more precise and goes before it"]
                    if order == "fp32 int8" and int8 < 1 else [])  # fmt: skip
    assert race._ranked(runners[1:]) == runners[1:], "alone it serves"


def test_bench_shows_what_each_costs_and_whom_it_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(with_variant(tmp_path, (0, 0, 20, 20)))
    assert main(["bench", folder, "--json", "--seconds", "1", "--threads", "1"]) == 0
    found = json.loads(capsys.readouterr().out)
    variant = found["variants"][0]
    assert {one["file"] for one in found["variants"]} == {"model.onnx", "model.optimised"}
    assert all(one["peak_rss"] > 10**7 and one["cpu_ms"] > 0 for one in found["variants"])
    assert "mAP50 0.000" in found["refused"][0]
    assert found["path_over_bare"] == pytest.approx(variant["cpu_ms"] / found["bare"]["cpu_ms"])
    assert "built without it" in found["providers"]["HailoExecutionProvider"]
    assert main(["bench", str(slow_first(tmp_path / "two")), "--seconds", "1", "--threads", "1"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].split()[0] == "variant" and {line.split()[0] for line in out[1:3]} == {
        "model.onnx",
        "model.optimised",
    }
    assert all(line.startswith("model.int8") and " 1.000 " in line for line in out[3:5])
    assert out[5].startswith("bare model.onnx") and any(line.startswith("the whole path of model.o") for line in out)
    assert main(["models", "inspect", folder]) == 0
    assert "because  model.int8.onnx: it does not agree with its parent: mAP50 0.000 against" in capsys.readouterr().out
    assert main(["bench", "nosuch"]) == 1


def test_a_bare_run_gives_what_the_file_says(tmp_path: Path) -> None:
    x = np.array([[1, -2, 3], [4, 5, -6]], np.float32)
    onnx_run = backends.bare(doubling_onnx(tmp_path / "m.onnx"), "onnx")
    lite_run = backends.bare(absolute_tflite(tmp_path / "m.tflite", [2, 3]), "tflite")
    np.testing.assert_array_equal(onnx_run({"x": x})[0], 2 * x)  # type: ignore[index]
    np.testing.assert_array_equal(lite_run({"x": x})[0], abs(x))  # type: ignore[index]
    assert "Coral" in backends.providers(tmp_path / "m.tflite", "tflite")


def test_a_damaged_file_does_not_keep_the_others_from_their_race(tmp_path: Path) -> None:
    folder = slow_first(tmp_path)
    damaged = folder / "model.int8.onnx"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    why = Models(threads=1, race=True).serve(str(folder)).why
    raced = why.partition("; raced: ")[2]
    assert "model.onnx " in raced and "int8" not in raced.partition(";")[0], why


def test_nothing_is_raced_where_nothing_is_here(tmp_path: Path) -> None:
    folder = tiny_detector(tmp_path / "model")
    (folder / "model.onnx").unlink()
    models = Models(threads=2, race=True)
    with pytest.raises(RefusedError, match=r"model\.onnx is missing in"):
        models.serve(str(folder))
    with pytest.raises(RefusedError, match="tiny: no network of it is here"):
        models.improve(str(folder))
