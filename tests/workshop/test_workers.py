"""``--workers``: several processes, or a Ray cluster, find what one process finds."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from edge_agent import cli
from edge_agent.errors import RefusedError, UsageError
from edge_agent.workshop import arguments, making, workers
from edge_agent.workshop.quantize import auto
from edge_agent.workshop.tune import verb as tune
from tests.conftest import lines_of
from tests.workshop.quantizable import detector, pictures


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    for module in (making, auto, tune):
        monkeypatch.setattr(module, "SECONDS", 0.1)


def without_times(value: Any) -> Any:
    """A report as it is on any day: nothing that a clock measured."""
    if isinstance(value, dict):
        clocks = ("median_ms", "parent_ms", "ms_per_image", "ms_per_sample", "seconds", "spent", "plots", "made")
        return {key: without_times(one) for key, one in value.items() if key not in clocks}
    return [without_times(one) for one in value] if isinstance(value, list) else value


def lines_alike(first: Path, other: Path) -> bool:
    return bool(without_times(json.loads(first.read_text())) == without_times(json.loads(other.read_text())))


def both(tmp_path: Path, verb: str, *words: object, workers: str = "2") -> None:
    """Run a verb alone and with workers; the reports differ in what a clock measured at most."""
    for place, count in (("alone", "1"), ("together", workers)):
        told = [verb, *words, "--out", tmp_path / place, "--workers", count, "--threads", "1"]
        assert cli.main([str(one) for one in told]) == 0
    assert lines_alike(tmp_path / "alone" / "report.json", tmp_path / "together" / "report.json")
    for place in ("alone", "together"):
        assert not (tmp_path / place / ".work").exists()


@pytest.mark.slow
def test_a_search_of_processes_finds_what_one_finds(tmp_path: Path) -> None:
    model, data = detector(tmp_path / "blobs", blocked=True), pictures(tmp_path / "data", 12)
    both(tmp_path, "quantize", model, "--data", data, "--auto")


@pytest.mark.slow
def test_settings_and_figures_of_processes_are_those_of_one(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    searched = list[dict[str, float]]()
    for count in ("1", "2"):
        words: list[object] = ["tune", "edge-yolo", "--data", data / "coco_calib96", "--most", "12", "--max-ms", "9000"]
        words += ["--out", tmp_path / count, "--workers", count, "--threads", "1"]
        assert cli.main([str(one) for one in words]) == 0
        (plot,) = json.loads((tmp_path / count / "report.json").read_text())["plots"]
        searched.append({name.removeprefix("chosen: "): accuracy for _, accuracy, name in plot["named"]})
    assert searched[0] == searched[1] and len(searched[0]) > 5, "which of equals is the fastest is the clock's"
    found = []
    for count in ("1", "2"):
        told = ["edge-yolo", str(data / "coco_val94"), "--limit", "20", "--json", "--threads", "1", "--workers", count]
        capsys.readouterr()
        assert cli.main(["evaluate", *told]) == 0
        found.append(without_times(json.loads(capsys.readouterr().out)))
    assert found[0] == found[1] and found[0]["images"] == 20


@pytest.mark.slow
def test_a_ray_cluster_finds_what_one_process_finds(tmp_path: Path) -> None:
    ray = pytest.importorskip("ray", reason="the extra [ray] is not installed")
    from ray.util.client.server import server  # what `ray start --head` runs for ray://

    from tests.broker import free_port

    model, shown, port = detector(tmp_path / "blobs", blocked=True), pictures(tmp_path / "data", 12), free_port()
    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR")
    try:
        serving = server.serve("127.0.0.1", port)
        both(tmp_path, "quantize", model, "--data", shown, "--auto", workers=f"ray://127.0.0.1:{port}")
        serving.stop(0)
    finally:
        ray.shutdown()


def fails(given: str) -> Any:
    """In a worker."""
    if given == "dies":
        import os

        os._exit(9)
    raise RefusedError(given)


def test_what_goes_wrong_in_a_worker_is_one_line() -> None:
    with pytest.raises(RefusedError, match="a worker ended before it answered"), workers.crew("2") as crew:
        assert crew is not None
        with pytest.raises(RefusedError, match=r"^no$"):
            workers.ask(crew, fails, "no", None).result()
        workers.ask(crew, fails, "dies", None).result()


@pytest.mark.parametrize("text", ["0", "x", "-1", "1000", "ray://", "ray://u:p@host:1", "http://x:1"])
def test_what_are_no_workers_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is no number from 1 to 999"):
        arguments.workers(text)


def test_where_ray_is_missing_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install \"edge-agent-runtime\[ray\]\""), workers.crew("ray://x:1"):
        pass


def test_what_measures_no_parts_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rows.tsv").write_text("text\tlabel\n")
    assert cli.main(["evaluate", "edge-tagger", str(tmp_path / "rows.tsv"), "--workers", "2"]) == 2
    assert "--workers: not for edge-tagger, whose task is tag" in lines_of(capsys.readouterr().err)[-1]
