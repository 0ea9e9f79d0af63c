"""``/metrics``, held against what the agent says of itself, against promtool and against a real Prometheus."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

pytest.importorskip("uvicorn", reason="the extra [page] is not installed")
pytest.importorskip("prometheus_client", reason="the extra [page] is not installed")

from prometheus_client.parser import text_string_to_metric_families as families

from edge_agent.accuracy.drift import Drift, Window
from edge_agent.accuracy.known import Known
from edge_agent.agent.agent import Agent
from edge_agent.agent.guarding import Told
from edge_agent.config import parse
from edge_agent.ui.inference import Account
from edge_agent.ui.lasting import Lasting
from edge_agent.ui.server import Page
from edge_agent.walk.pipeline import Stats
from edge_agent.walk.spread import BOUNDS, Spread
from tests.broker import free_port, until
from tests.conftest import ROOT
from tests.ui.serving import ask, page

FOLDER = ROOT / "deploy" / "prometheus"
HEALTH = {
    "uptime_s": "edge_agent_uptime_seconds",
    "rss_bytes": "edge_agent_resident_memory_bytes",
    "store_bytes": "edge_agent_store_bytes",
    "waiting": "edge_agent_events_waiting",
    "events": "edge_agent_events_total",
    "acknowledged": "edge_agent_events_acknowledged_total",
    "lost": "edge_agent_events_lost_total",
    "passed_over": "edge_agent_messages_passed_over_total",
    **dict.fromkeys(("disk", "config", "limits", "archive", "notify"), "edge_agent_ok"),
    **dict.fromkeys(("version", "mqtt"), "edge_agent_build_info"),
    "started": "edge_agent_start_time_seconds",
}
"""field of health -> the metric that says the same"""
NO_FIGURE = {"v", "at"}


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (one.name, tuple(sorted(one.labels.items()))): one.value for family in families(text) for one in family.samples
    }


def scraped(served: Page, **headers: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    answer = ask(served, "GET", "/metrics", **headers)
    assert answer.status == 200, answer.body
    return samples(answer.body.decode())


@contextmanager
def running(folder: Path) -> Iterator[tuple[Agent, Page]]:
    """A real agent that reads a file of text, without a broker, and its page."""
    (folder / "words.txt").write_text("".join(f"line {number}\n" for number in range(50)))
    config = parse(
        f'[device]\nid = "porch"\n[store]\npath = "{folder}/store"\n'
        f'[[pipeline]]\nname = "words"\nsource = "lines:{folder}/words.txt"\nclass = "telemetry"\n'
    )
    agent, stop = Agent(config), threading.Event()
    with page(folder) as served:
        served.show(agent)
        thread = threading.Thread(target=agent.run, args=(stop,))
        thread.start()
        try:
            until(lambda: agent.outbox.counts.put >= 50, "all lines are events")
            yield agent, served
        finally:
            stop.set()
            thread.join(120)


class Given:
    """An agent that has everything that can be counted."""

    def __init__(self) -> None:
        self.stats = Stats()
        self.account = Account(answered=2, refused=1)
        for stage, ms in (("decode", 0.7), ("infer", 7.0), ("infer", 70_000.0), ("age", 12.0)):
            self.stats.spent(stage, ms)
        words = ("disk", "config", "limits", "archive", "notify")
        self.health: dict[str, Any] = dict.fromkeys(HEALTH, 1) | dict.fromkeys(words, "ok")
        self.health |= {"version": "1", "mqtt": "5", "started": "2026-01-01T00:00:00.000Z"}
        self.state: dict[str, Any] = {
            **dict.fromkeys(("samples", "dropped", "answered", "bad", "missed", "late", "events"), 7),
            **dict.fromkeys(("trouble", "refused"), ""),
            "stream": "ok",
            "since": "2026-01-01T00:00:00.000Z",
            "models": ["edge-yolo 2: edge-yolo: because"],
            "thresholds": {"detect": 0.3},
        }
        self.counts: dict[str, Any] = {
            "all": {"person": 2},
            "zones": {"yard": {"person": 1}},
            "lines": {"gate": {"in": {"person": 3}, "out": {}}},
        }
        self.accuracy: Any = None

    @property
    def agent(self) -> Any:
        line = SimpleNamespace(config=SimpleNamespace(name="door"), stats=self.stats)
        state = SimpleNamespace(seen=lambda: (self.health, {"door": (self.state, self.counts)}), accuracy=self.accuracy)
        device = SimpleNamespace(device=SimpleNamespace(id="porch"))
        link, keep = SimpleNamespace(connected=True), SimpleNamespace(listeners=[])
        return SimpleNamespace(config=device, state=state, lines=[line], link=link, keep=keep)


@pytest.fixture
def all_of_it(tmp_path: Path) -> Iterator[tuple[Given, Page]]:
    given = Given()
    with page(tmp_path) as served:
        served.show(given.agent)
        served.inference.accounts["edge-yolo"] = given.account
        yield given, served


# ── what it says ─────────────────────────────────────────────────────────────────────────────────────────────


def test_each_figure_of_health_is_there(tmp_path: Path) -> None:
    with running(tmp_path) as (agent, served):
        of = (("pipeline", "words"),)
        counted = [
            HEALTH["waiting"],
            *(f"edge_agent_pipeline_{name}" for name in ("samples_total", "answered_total", "age_seconds_count")),
        ]

        def all_counted() -> bool:
            told = scraped(served)
            return all(told[name, () if name == HEALTH["waiting"] else of] == 50 for name in counted)

        until(all_counted, "all lines are counted, and what waits is on the disk, once")
        found, health = scraped(served), agent.state.health()
        parts = {dict(labels)["part"] for name, labels in found if name == "edge_agent_ok"}
        assert all(isinstance(health[part], str) for part in parts) and parts >= {"disk", "config", "limits"}
        assert set(health) - NO_FIGURE - parts <= set(HEALTH), "a new number of health: give it a metric"
        for key in ("events", "acknowledged", "lost", "passed_over"):
            assert found[HEALTH[key], ()] == health[key], key
        assert {name for name, _ in found} >= set(HEALTH.values())
        assert all(found["edge_agent_ok", (("part", part),)] == 1 for part in parts)
        assert found["edge_agent_mqtt_connected", ()] == 0
        assert found["edge_agent_pipeline_stream", (("condition", "ok"), *of)] == 1
        assert found["edge_agent_pipeline_stream", (("condition", "dark"), *of)] == 0


def test_each_count_of_a_state_is_there(all_of_it: tuple[Given, Page]) -> None:
    found = scraped(all_of_it[1])
    door = ("pipeline", "door")
    for key in ("samples", "dropped", "answered", "bad", "missed", "late", "events"):
        assert found[f"edge_agent_pipeline_{key}_total", (door,)] == 7
    assert found["edge_agent_pipeline_model_info", (("model", "edge-yolo 2"), door)] == 1
    assert found["edge_agent_pipeline_threshold", (door, ("task", "detect"))] == 0.3
    assert found["edge_agent_objects", (("label", "person"), door)] == 2
    assert found["edge_agent_zone_objects", (("label", "person"), door, ("zone", "yard"))] == 1
    gone_in = (("direction", "in"), ("label", "person"), ("line", "gate"), door)
    assert found["edge_agent_line_crossings_total", gone_in] == 3


def test_how_accurate_models_still_are(all_of_it: tuple[Given, Page]) -> None:
    drift = Drift(1.0, now=Window(0.0, {"sharpness": [1], "score": [1]}), drifted={"sharpness": "PSI 1.2"})
    told = {"kept-one": Told("kept", 0.98, 0.96, 0.99, 100), "new": Told("unknown", 0.0, 0.0, 1.0, 0)}
    given, served = all_of_it
    given.accuracy = SimpleNamespace(told=told, known=Known(drift={"door": drift}))
    served.show(given.agent)
    found = scraped(served)
    for standing, at in (("kept", 1), ("at risk", 0), ("broken", 0), ("unknown", 0)):
        assert found["edge_agent_accuracy_standing", (("model", "kept-one"), ("standing", standing))] == at
    assert found["edge_agent_accuracy_agreement", (("model", "kept-one"),)] == 0.98
    assert ("edge_agent_accuracy_agreement", (("model", "new"),)) not in found, "nothing is known of it"
    assert found["edge_agent_accuracy_drifted", (("pipeline", "door"), ("signal", "sharpness"))] == 1
    assert found["edge_agent_accuracy_drifted", (("pipeline", "door"), ("signal", "score"))] == 0


def test_what_is_gone_is_0_and_what_is_wrong_says_so(all_of_it: tuple[Given, Page]) -> None:
    given, served = all_of_it
    scraped(served)
    given.counts = {"all": {}, "zones": {"yard": {}}, "lines": {}}
    given.health["disk"] = "No space left on device"
    given.state["refused"] = "broken"
    found = scraped(served)
    assert found["edge_agent_objects", (("label", "person"), ("pipeline", "door"))] == 0
    assert found["edge_agent_zone_objects", (("label", "person"), ("pipeline", "door"), ("zone", "yard"))] == 0
    assert found["edge_agent_ok", (("part", "disk"),)] == 0
    assert found["edge_agent_pipeline_ok", (("part", "model"), ("pipeline", "door"))] == 0
    assert found["edge_agent_pipeline_ok", (("part", "samples"), ("pipeline", "door"))] == 1


def test_times_are_spread_over_buckets(all_of_it: tuple[Given, Page]) -> None:
    found = scraped(all_of_it[1])
    of = (("pipeline", "door"), ("stage", "infer"))
    buckets = {dict(labels)["le"]: value for (name, labels), value in found.items()
               if name == "edge_agent_pipeline_stage_seconds_bucket" and ("stage", "infer") in labels}  # fmt: skip
    assert len(buckets) == len(BOUNDS) + 1
    assert (buckets["0.005"], buckets["0.01"], buckets["30"], buckets["+Inf"]) == (0, 1, 1, 2)
    assert found["edge_agent_pipeline_stage_seconds_count", of] == 2
    assert found["edge_agent_pipeline_stage_seconds_sum", of] == pytest.approx(70.007)


def test_a_spread_counts_its_bounds_in() -> None:
    spread = Spread()
    for bound in BOUNDS:
        spread.add(bound)
    assert spread.counts == [1] * len(BOUNDS) + [0]


def test_openmetrics_is_given_to_who_asks_for_it(all_of_it: tuple[Given, Page]) -> None:
    answer = ask(all_of_it[1], "GET", "/metrics", accept="application/openmetrics-text; version=1.0.0")
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.body.endswith(b"# EOF\n")


def test_a_hostile_label_stays_a_label(all_of_it: tuple[Given, Page]) -> None:
    given, served = all_of_it
    name = 'x"} 1\nedge_agent_ok{part="\\'
    given.counts["all"] = {name: 1}
    assert scraped(served)["edge_agent_objects", (("label", name), ("pipeline", "door"))] == 1


def test_before_there_is_an_agent_nothing_of_it_is_said(tmp_path: Path) -> None:
    with page(tmp_path) as served:
        there = [name for name, _ in scraped(served) if name.startswith("edge_agent")]
        assert there == ["edge_agent_inference_core_seconds_total"]


def test_who_may_look_may_scrape(tmp_path: Path) -> None:
    (tmp_path / "word").write_text("a long password")
    with page(tmp_path, password_file=str(tmp_path / "word")) as served:
        assert ask(served, "GET", "/metrics").status == 401
        token = served.access.make_token("prometheus", "viewer")
        assert ask(served, "GET", "/metrics", authorization=f"Bearer {token}").status == 200


# ── counters that last ───────────────────────────────────────────────────────────────────────────────────────


def test_counters_go_on_after_a_restart(tmp_path: Path) -> None:
    door = (("pipeline", "door"),)
    for total in (7, 14, 21):
        given = Given()
        with page(tmp_path) as served:
            served.show(given.agent)
            given.counts["lines"]["gate"]["in"] = {} if total == 21 else {"person": 3}
            found = scraped(served)
            assert found["edge_agent_pipeline_answered_total", door] == total
    gone_in = (("direction", "in"), ("label", "person"), ("line", "gate"), *door)
    assert found["edge_agent_line_crossings_total", gone_in] == 6, "also before the first of this run"


def test_counters_go_on_where_another_counts(tmp_path: Path) -> None:
    first, second = object(), object()
    lasting = Lasting(tmp_path / "counters")
    assert [lasting.value("a", now, of) for now, of in ((3, first), (5, first), (5, second), (9, second))] == [
        3,
        5,
        10,
        14,
    ]
    lasting.keep()
    again = Lasting(tmp_path / "counters")
    assert again.value("a", 20, first) == 34
    (tmp_path / "counters").write_text("[" * 9000)
    assert Lasting(tmp_path / "counters").value("a", 1, first) == 1, "a damaged file: they begin anew"


def test_a_disk_that_is_full_stops_nothing(all_of_it: tuple[Given, Page], tmp_path: Path) -> None:
    lasting = Lasting(tmp_path / "none" / "counters")
    assert lasting.value("a", 1, None) == 1
    lasting.keep()


# ── by the tools of Prometheus ───────────────────────────────────────────────────────────────────────────────


def promtool(*arguments: str, given: bytes = b"") -> None:
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("promtool is not installed (apt-get install prometheus)")
    done = subprocess.run([tool, *arguments], input=given, capture_output=True)
    assert done.returncode == 0 and not done.stderr, done.stderr.decode()


def test_promtool_finds_nothing_to_say(all_of_it: tuple[Given, Page]) -> None:
    promtool("check", "metrics", given=ask(all_of_it[1], "GET", "/metrics").body)


def test_promtool_takes_the_alerts() -> None:
    promtool("check", "rules", str(FOLDER / "rules.yml"))


def queries() -> dict[str, str]:
    panels = json.loads((FOLDER / "grafana.json").read_text())["panels"]
    return {f"{panel['title']} {one['refId']}": one["expr"] for panel in panels for one in panel["targets"]}


def test_the_dashboard_and_the_alerts_ask_for_metrics_that_are_there(all_of_it: tuple[Given, Page]) -> None:
    there = {name for name, _ in scraped(all_of_it[1])}
    asked = set(re.findall(r"\b(?:edge_agent|process)_\w+", " ".join(queries().values())))
    asked |= set(re.findall(r"\bedge_agent_\w+", (FOLDER / "rules.yml").read_text()))
    assert len(asked) > 20 and asked <= there, asked - there
    of_ours = {name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count") for name in there
               if name.startswith("edge_agent") and not name.endswith("_created")}  # fmt: skip
    shown = {name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count") for name in asked}
    unused = {"edge_agent_events_total", "edge_agent_events_acknowledged_total", "edge_agent_pipeline_samples_total",
              "edge_agent_messages_passed_over_total", "edge_agent_pipeline_threshold", "edge_agent_start_time_seconds",
              "edge_agent_pipeline_stream_since_timestamp_seconds"}  # fmt: skip
    assert of_ours - shown == unused, "shown nowhere"


@pytest.mark.slow
def test_a_real_prometheus_answers_each_panel(all_of_it: tuple[Given, Page], tmp_path: Path) -> None:
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed (apt-get install prometheus)")
    given, served = all_of_it
    port = free_port()
    (tmp_path / "prometheus.yml").write_text(
        f"global: {{scrape_interval: 1s}}\nrule_files: ['{FOLDER}/rules.yml']\n"
        f"scrape_configs: [{{job_name: edge-agent, static_configs: [{{targets: ['127.0.0.1:{served.port}']}}]}}]\n"
    )
    arguments = [f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/tsdb"]
    server = subprocess.Popen(
        [program, *arguments, f"--web.listen-address=127.0.0.1:{port}"], stderr=subprocess.DEVNULL
    )
    stranger = cast(Any, SimpleNamespace(port=port))
    try:
        until(lambda: answers(stranger, "up == 1"), "it scrapes", 60)
        for _ in range(5):
            given.state = {key: value + 1 if type(value) is int else value for key, value in given.state.items()}
            given.counts["lines"]["gate"]["in"]["person"] += 1
            for stage in ("infer", "age"):
                given.stats.spent(stage, 5.0)
            given.account.took.add(5.0)
            time.sleep(1.1)
        for title, query in queries().items():
            query = query.replace("$__rate_interval", "10s").replace('instance=~"$instance"', 'instance=~".*"')
            until(lambda query=query: answers(stranger, query), title, 20)  # type: ignore[misc]
    finally:
        server.kill()
        server.wait()


def answers(server: Any, query: str) -> Any:
    """What Prometheus says to a query; nothing while it is not there."""
    from urllib.parse import quote

    try:
        found = ask(server, "GET", f"/api/v1/query?query={quote(query)}").json
    except (OSError, ValueError):
        return []
    assert found["status"] == "success", found
    return found["data"]["result"]
