"""``/metrics`` for Prometheus: the figures of `health` and of each pipeline's state, by the names that are usual there.

Each time is in seconds, each size in bytes. Counters go on where they were before a restart (ui/lasting.py); how times
are spread begins anew with each start, as is usual.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, get_args

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from starlette.responses import Response

from edge_agent.accuracy.contract import Standing
from edge_agent.types import StreamCondition
from edge_agent.ui.calls import Ask, Call
from edge_agent.ui.lasting import Lasting
from edge_agent.walk.spread import BOUNDS, Spread

if TYPE_CHECKING:
    from edge_agent.ui.device import Agent, Guard, Line
    from edge_agent.ui.server import Page

LOOK_S = 60.0
"""seconds between two looks at the counters, beside each scrape: what a kill may cost"""

HEALTH_GAUGES = {
    "uptime_s": ("uptime_seconds", "Since the agent was opened"),
    "rss_bytes": ("resident_memory_bytes", "Memory of the agent's process"),
    "store_bytes": ("store_bytes", "What the store takes on the disk"),
    "waiting": ("events_waiting", "Events on the disk that are not acknowledged"),
}
HEALTH_COUNTERS = {
    "events": ("events", "Events that were kept"),
    "acknowledged": ("events_acknowledged", "Events that have arrived"),
    "lost": ("events_lost", "Events that were dropped, and declared"),
    "passed_over": ("messages_passed_over", "Messages that came in and were too large"),
}
NOT_PARTS = ("v", "at", "version", "mqtt", "started", "governor", "accuracy", "refused")
"""fields of health that are neither a number nor a part of the agent, which says "ok", "off" or what is wrong"""
STATE_COUNTERS = {
    "samples": ("samples", "Frames, texts and pieces of sound that the source gave"),
    "dropped": ("dropped", "Samples that a newer one took the place of"),
    "answered": ("answered", "Samples that were answered"),
    "bad": ("bad", "Samples that could not be answered"),
    "missed": ("missed", "Samples that were given up, as their turn came too late"),
    "late": ("late", "Samples that were answered after their deadline"),
    "events": ("events", "Events of this pipeline"),
}
STATE_WORDS = {"trouble": "samples", "refused": "model"}
"""field that is empty while all is well -> what it is about"""
_PREFIX = "edge_agent_"


class Collector:
    """The families of one scrape, made of what the agent says at that moment."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._lock = threading.Lock()
        self.lasting = Lasting(page.place / "counters.json")
        self._labels: dict[tuple[str, ...], None] = {}
        """what was counted before: what is gone becomes 0, and does not vanish"""

    def collect(self) -> Iterable[Metric]:
        """All families; those of the agent while there is one."""
        agent = self._page.agent
        if agent is None:
            return list(self._requests())
        with self._lock:
            health, lines = agent.state.seen()
            held = {line.config.name: line for line in agent.lines}
            states = {name: state for name, (state, _) in lines.items() if name in held}
            counts = {name: counted for name, (_, counted) in lines.items() if name in held}
            found = [*self._device(agent, health), *self._pipelines(states, held), *self._things(counts, held)]
            return [*found, *_accuracy(agent.state.accuracy), *_refused(agent), *self._requests()]

    # ── the device ───────────────────────────────────────────────────────────────────────────────────────

    def _device(self, agent: Agent, health: Mapping[str, Any]) -> Iterator[Metric]:
        about = {"version": health["version"], "device": agent.config.device.id, "mqtt": health["mqtt"] or "none"}
        yield InfoMetricFamily(f"{_PREFIX}build", "Which version runs on which device, and of MQTT", value=about)
        for key, (name, words) in HEALTH_GAUGES.items():
            yield GaugeMetricFamily(_PREFIX + name, words, value=health[key])
        began = _seconds(health["started"])
        yield GaugeMetricFamily(f"{_PREFIX}start_time_seconds", "When the agent was opened, since 1970", value=began)
        for key, (name, words) in HEALTH_COUNTERS.items():
            value = self.lasting.value(name, health[key], agent)
            yield CounterMetricFamily(_PREFIX + name, words, value=value)
        connected = agent.link is not None and agent.link.connected
        yield GaugeMetricFamily(f"{_PREFIX}mqtt_connected", "1 while the broker is there", value=connected)
        fine = GaugeMetricFamily(f"{_PREFIX}ok", "1 while all is well with a part", labels=["part"])
        for key in health.keys() - {*NOT_PARTS, *HEALTH_GAUGES, *HEALTH_COUNTERS}:
            fine.add_metric([key], health[key] in ("ok", "off"))
        yield fine
        yield from _governor(health.get("governor"), agent)

    # ── the pipelines ────────────────────────────────────────────────────────────────────────────────────

    def _pipelines(self, states: Mapping[str, Mapping[str, Any]], held: Mapping[str, Line]) -> Iterator[Metric]:
        for key, (name, words) in STATE_COUNTERS.items():
            family = CounterMetricFamily(f"{_PREFIX}pipeline_{name}", words, labels=["pipeline"])
            for pipeline, state in states.items():
                value = self.lasting.value(f"pipeline_{name}/{pipeline}", state[key], held[pipeline].stats)
                family.add_metric([pipeline], value)
            yield family
        yield from _streams(states)
        fine = GaugeMetricFamily(f"{_PREFIX}pipeline_ok", "1 while all is well with it", labels=["pipeline", "part"])
        models = InfoMetricFamily(f"{_PREFIX}pipeline_model", "A model that serves there", labels=["pipeline"])
        limits = GaugeMetricFamily(
            f"{_PREFIX}pipeline_threshold", "Score from which on it counts", labels=["pipeline", "task"]
        )
        for pipeline, state in states.items():
            for key, part in STATE_WORDS.items():
                fine.add_metric([pipeline, part], not state[key])
            for model in state["models"]:
                models.add_metric([pipeline], {"model": model.partition(":")[0]})
            for task, threshold in state["thresholds"].items():
                limits.add_metric([pipeline, task], threshold)
        yield from (fine, models, limits)
        yield from _times(held)

    def _things(self, counts: Mapping[str, Mapping[str, Any]], held: Mapping[str, Line]) -> Iterator[Metric]:
        """What pipelines that track have in view, and what went over their lines."""
        words = "Things in view"
        objects = GaugeMetricFamily(f"{_PREFIX}objects", words, labels=["pipeline", "label"])
        zones = GaugeMetricFamily(f"{_PREFIX}zone_objects", f"{words} in a zone", labels=["pipeline", "zone", "label"])
        ways = ["pipeline", "line", "direction", "label"]
        lines = CounterMetricFamily(f"{_PREFIX}line_crossings", "Things that went over a line", labels=ways)
        for pipeline, counted in counts.items():
            if not counted:
                continue
            self._count(objects, (pipeline,), counted["all"])
            for zone, labels in counted["zones"].items():
                self._count(zones, (pipeline, zone), labels)
            for line, directions in counted["lines"].items():
                for direction, labels in directions.items():
                    key = f"crossings/{pipeline}/{line}/{direction}/"
                    for label in dict.fromkeys([*labels, *self.lasting.names(key)]):
                        value = self.lasting.value(key + label, labels.get(label, 0), held[pipeline].stats)
                        lines.add_metric([pipeline, line, direction, label], value)
        yield from (objects, zones, lines)

    def _count(self, family: GaugeMetricFamily, of: tuple[str, ...], labels: Mapping[str, int]) -> None:
        self._labels |= dict.fromkeys((family.name, *of, label) for label in labels)
        for name, *rest in self._labels:
            if (name, *rest[:-1]) == (family.name, *of):
                family.add_metric(rest, labels.get(rest[-1], 0))

    def _requests(self) -> Iterator[Metric]:
        """What models were asked for over HTTP."""
        server = self._page.inference
        if server is None:
            return
        words = "Requests to a model over HTTP"
        many = CounterMetricFamily(f"{_PREFIX}inference_requests", words, labels=["model", "outcome"])
        words = "Time of a request from when it has come to its answer"
        took = HistogramMetricFamily(f"{_PREFIX}inference_seconds", words, labels=["model"])
        for model, account in dict(server.accounts).items():
            many.add_metric([model, "answered"], account.answered)
            many.add_metric([model, "refused"], account.refused)
            took.add_metric([model], *_buckets(account.took))
        yield from (many, took)
        words = "Seconds of a core that their runs held"
        yield CounterMetricFamily(f"{_PREFIX}inference_core_seconds", words, value=server.client.used)


def _governor(state: Mapping[str, Any] | None, agent: Agent) -> Iterator[Metric]:
    """What is limited, how it is now, and how far the device has stepped down to keep it."""
    if state is None:
        return
    yield GaugeMetricFamily(f"{_PREFIX}governor_step", "0: nothing is saved to keep [limits]", value=state["rung"])
    yield GaugeMetricFamily(f"{_PREFIX}governor_met", "1 while each of [limits] is kept", value=state["met"])
    words = "What is limited, as it is now and as it may be, by its name under [limits]"
    now = GaugeMetricFamily(f"{_PREFIX}limited", words, labels=["what", "is"])
    for what, value in state["reading"].items():
        now.add_metric([what, "now"], value)
        now.add_metric([what, "limit"], getattr(agent.config.limits, what))
    yield now


def _seconds(at: str) -> float:
    """RFC 3339 as seconds since 1970."""
    return datetime.fromisoformat(at.replace("Z", "+00:00")).timestamp()


def _buckets(spread: Spread) -> tuple[list[tuple[str, float]], float]:
    """Counts up to each bound, and the sum, in seconds."""
    sums, rows = 0, list[tuple[str, float]]()
    for bound, count in zip((*BOUNDS, float("inf")), list(spread.counts), strict=True):
        sums += count
        rows.append(("+Inf" if bound == float("inf") else f"{bound / 1000:g}", sums))
    return rows, spread.total / 1000


def _streams(states: Mapping[str, Mapping[str, Any]]) -> Iterator[Metric]:
    words = "1 for the condition that its source is in"
    streams = GaugeMetricFamily(f"{_PREFIX}pipeline_stream", words, labels=["pipeline", "condition"])
    since = GaugeMetricFamily(
        f"{_PREFIX}pipeline_stream_since_timestamp_seconds", "When that began, since 1970", labels=["pipeline"]
    )
    for pipeline, state in states.items():
        for condition in get_args(StreamCondition):
            streams.add_metric([pipeline, condition], state["stream"] == condition)
        since.add_metric([pipeline], _seconds(state["since"]))
    yield from (streams, since)


def _accuracy(guard: Guard | None) -> Iterator[Metric]:
    """How the contracts of models stand."""
    if guard is None:
        return
    words = "1 for how the contract of a model stands"
    stands = GaugeMetricFamily(f"{_PREFIX}accuracy_standing", words, labels=["model", "standing"])
    words = "Mean agreement with its parent and with people, of those hours that count"
    agreed = GaugeMetricFamily(f"{_PREFIX}accuracy_agreement", words, labels=["model"])
    for model, told in dict(guard.told).items():
        for one in get_args(Standing):
            stands.add_metric([model, one], told.standing == one)
        if told.answers:
            agreed.add_metric([model], told.mean)
    words = "1 for what of a pipeline has drifted from its first days"
    drifted = GaugeMetricFamily(f"{_PREFIX}accuracy_drifted", words, labels=["pipeline", "signal"])
    for name, drift in dict(guard.known.drift).items():
        for signal in {**drift.drifted, **(drift.now.counts if drift.now is not None else {})}:
            drifted.add_metric([name, signal], signal in drift.drifted)
    yield from (stands, agreed, drifted)


def _refused(agent: Agent) -> Iterator[Metric]:
    """Bundles and jobs that were refused, over restarts."""
    update: Any = getattr(agent, "update", None)
    rollouts: Any = getattr(agent, "rollouts", None)
    if update is not None:
        words = "Bundles that were refused, or given up, by what was wrong"
        family = CounterMetricFamily(f"{_PREFIX}bundles_refused", words, labels=["wrong"])
        for wrong, count in dict(update.served.kept.refused).items():
            family.add_metric([wrong], count)
        yield family
    if rollouts is not None:
        jobs = rollouts.jobs.refused + rollouts.desired.refused
        yield CounterMetricFamily(f"{_PREFIX}jobs_refused", "Jobs and desired documents that were refused", value=jobs)


def _times(held: Mapping[str, Line]) -> Iterator[Metric]:
    """How the times of each stage are spread, and how old a sample is when it is answered."""
    words = "Time that a sample spends in a stage"
    stages = HistogramMetricFamily(f"{_PREFIX}pipeline_stage_seconds", words, labels=["pipeline", "stage"])
    ages = HistogramMetricFamily(
        f"{_PREFIX}pipeline_age_seconds", "Age of a sample when it is answered", labels=["pipeline"]
    )
    for pipeline, line in held.items():
        for stage, spread in dict(line.stats.spread).items():
            family, labels = (ages, [pipeline]) if stage == "age" else (stages, [pipeline, stage])
            family.add_metric(labels, *_buckets(spread))
    yield from (stages, ages)


def calls(page: Page) -> list[Call]:
    """The one."""
    collector = Collector(page)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    ProcessCollector(registry=registry)

    def metrics(ask: Ask) -> Response:
        encode, media = choose_encoder(ask.request.headers.get("accept", ""))
        return Response(encode(registry), media_type=media, headers={"Cache-Control": "no-store"})

    def look(_: Agent) -> None:
        """Once there is an agent: see its counters now and then, so that the next process goes on from there."""
        if not keeper.is_alive():
            keeper.start()

    def keep() -> None:
        while not page.stopping.wait(LOOK_S):
            list(collector.collect())
            collector.lasting.keep()
        list(collector.collect())
        collector.lasting.keep()

    keeper = threading.Thread(target=keep, name="metrics", daemon=True)
    page.shown.append(look)
    return [Call("GET", "/metrics", "viewer", "Figures for Prometheus.", metrics, media="text/plain")]
