"""The entities of a device: identity -> what Home Assistant's MQTT integration is told of it.

Keys and values are those of its discovery (home-assistant.io/integrations/mqtt), read in the source of the releases
2026.2 and 2026.11. Templates are Jinja's; what stands in them of a label or a name is quoted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from edge_agent.homeassistant.facts import Device, Pipe, Topics
from edge_agent.homeassistant.names import ascii_of, identity, quoted, shown, slug
from edge_agent.homeassistant.said import LONGEST_STATE
from edge_agent.types import StreamCondition

Entity = tuple[str, dict[str, Any]]
"""its identity within the device, and what is said of it"""

CONDITIONS = list(get_args(StreamCondition))
FLOWS = "{{ 'online' if value_json.stream == 'ok' else 'offline' }}"
"""a pipeline that gets nothing to look at says nothing about the world"""
ID = '"id": "{{ now().timestamp() }}"'
"""of a command: each is run once"""
PROBLEMS = {"disk": "disk", "config": "new config refused", "limits": "limits near"}
"""field of the health -> what it is about; "ok" where all is well"""


def entities(device: Device, topics: Topics) -> dict[str, dict[str, Any]]:
    """All of them."""
    made = [*_device(device, topics)]
    for pipe in device.pipes:
        made += [*_counted(device, pipe, topics), *_said(device, pipe, topics), *_tended(device, pipe, topics)]
    return dict(made)


def _entity(device: Device, platform: str, parts: tuple[str, ...], name: str, **more: Any) -> Entity:
    """One entity, `parts` of whose identity are ASCII; what is None is left out."""
    cid = identity(*parts)
    said = {
        "platform": platform,
        "unique_id": f"{device.node}:{cid}",
        "default_entity_id": f"{platform}.{slug(device.id, name)}",
        "name": name,
        **more,
    }
    return cid, {key: value for key, value in said.items() if value is not None}


def _on(condition: str) -> str:
    """A template of a binary sensor or switch."""
    return "{{ 'ON' if " + condition + " else 'OFF' }}"


# ── the device ───────────────────────────────────────────────────────────────────────────────────────────


def _device(device: Device, topics: Topics) -> Iterator[Entity]:
    """Its rules, profile, health and models."""
    for rule in device.rules:
        yield _entity(
            device,
            "binary_sensor",
            ("", "rule", rule),
            shown(rule),
            state_topic=topics.rules,
            value_template=_on(f"value_json.rules[{quoted(rule)}].on"),
            icon="mdi:shield-alert-outline",
        )
    if device.profiles and device.commands:
        yield _entity(
            device,
            "select",
            ("", "profile"),
            "profile",
            state_topic=topics.profile,
            value_template="{{ value_json.profile }}",
            command_topic=topics.command("profile"),
            command_template="{" + ID + ', "profile": {{ value | tojson }}}',
            options=list(device.profiles),
        )
    elif device.profiles:
        yield _entity(
            device,
            "sensor",
            ("", "profile", "shown"),
            "profile",
            state_topic=topics.profile,
            value_template="{{ value_json.profile }}",
            device_class="enum",
            options=list(device.profiles),
        )
    yield from _health(device, topics)
    serving = {model: topics.state(pipe.name) for pipe in reversed(device.pipes) for model in pipe.models}
    for model, state in serving.items():
        yield _model(device, model, state)


def _model(device: Device, model: str, state: str) -> Entity:
    """Which version of a model serves, by the `state` of a pipeline that runs it, and which is the newest one here."""
    one = f"value_json.versions[{quoted(model)}]"
    said = f"'installed_version': {one}.serves, 'latest_version': {one}.newest"
    return _entity(
        device,
        "update",
        ("", "model", model),
        shown(model),
        state_topic=state,
        value_template="{{ {" + said + f", 'release_summary': value_json.refused[:{LONGEST_STATE}]}} | tojson }}}}",
        title=model,
        entity_category="diagnostic",
    )


def _health(device: Device, topics: Topics) -> Iterator[Entity]:
    """Diagnostics of the device."""
    numbers: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
        ("memory", "memory", "(value_json.rss_bytes / 1048576) | round", _size("MiB")),
        ("store", "store", "(value_json.store_bytes / 1048576) | round(1)", _size("MiB")),
        ("waiting", "events waiting", "value_json.waiting", {"state_class": "measurement"}),
        ("lost", "events lost", "value_json.lost", {"state_class": "total_increasing"}),
        ("started", "started", "value_json.started", {"device_class": "timestamp"}),
    )
    for key, name, value, more in numbers:
        template = "{{ " + value + " }}"
        of = {"state_topic": topics.health, "value_template": template, "entity_category": "diagnostic", **more}
        yield _entity(device, "sensor", ("", "health", key), name, **of)
    for key, name in PROBLEMS.items():
        yield _entity(
            device,
            "binary_sensor",
            ("", "health", key),
            name,
            device_class="problem",
            entity_category="diagnostic",
            state_topic=topics.health,
            value_template=_on(f"value_json.{key} != 'ok'"),
            json_attributes_topic=topics.health,
            json_attributes_template="{{ {'why': value_json." + key + "} | tojson }}",
        )


def _size(unit: str) -> dict[str, str]:
    return {"device_class": "data_size", "unit_of_measurement": unit, "state_class": "measurement"}


# ── what a pipeline sees, hears and reads ────────────────────────────────────────────────────────────────


def _flowing(pipe: Pipe, topics: Topics) -> dict[str, Any]:
    """Availability of what a pipeline says of the world."""
    state = {"topic": topics.state(pipe.name), "value_template": FLOWS}
    return {"availability": [{"topic": topics.status}, state], "availability_mode": "all"}


def _counted(device: Device, pipe: Pipe, topics: Topics) -> Iterator[Entity]:
    """Occupancy and count in each place, in all and by label; what went over each line."""
    of = {"state_topic": topics.counts(pipe.name), **_flowing(pipe, topics)}
    for place, labels in pipe.places.items():
        where = "value_json.all" if not place else f"value_json.zones[{quoted(place)}]"
        for label in labels:
            count = f"{where}.get({quoted(label)}, 0)" if label else f"{where}.values() | sum"
            key, what = (pipe.name, "in", place, ascii_of(label)), shown(pipe.name, place, label)
            yield _entity(
                device,
                "binary_sensor",
                (*key, "here"),
                shown(what, "" if label else "occupied"),
                device_class="occupancy",
                value_template=_on(f"({count}) > 0"),
                **of,
            )
            yield _entity(
                device,
                "sensor",
                (*key, "count"),
                shown(what, "count"),
                state_class="measurement",
                value_template="{{ " + count + " }}",
                **of,
            )
    for line in pipe.lines:
        for way in ("in", "out"):
            yield _entity(
                device,
                "sensor",
                (pipe.name, "over", line, way),
                shown(pipe.name, line, way),
                state_class="total_increasing",
                value_template="{{ value_json.lines[" + quoted(line) + f"]['{way}'].values() | sum }}}}",
                **of,
            )


def _said(device: Device, pipe: Pipe, topics: Topics) -> Iterator[Entity]:
    """The last text and label, whether it is unusual, and the last picture."""
    of = {"state_topic": topics.last(pipe.name), **_flowing(pipe, topics)}
    for key in ("text", "label"):
        if getattr(pipe, key):
            more = ["at", "score"] if key == "label" else ["at"]
            about = "{{ {" + ", ".join(f"'{one}': value_json.{key}.{one}" for one in more) + "} | tojson }}"
            yield _entity(
                device,
                "sensor",
                (pipe.name, "last", key),
                shown(pipe.name, key),
                value_template="{{ value_json." + key + ".value if value_json." + key + " else none }}",
                json_attributes_topic=of["state_topic"],
                json_attributes_template="{% if value_json." + key + " %}" + about + "{% else %}{}{% endif %}",
                **of,
            )
    if pipe.unusual:
        yield _entity(
            device,
            "binary_sensor",
            (pipe.name, "last", "unusual"),
            shown(pipe.name, "unusual"),
            device_class="problem",
            value_template="{{ none if not value_json.unusual else 'ON' if value_json.unusual.value else 'OFF' }}",
            **of,
        )
    if pipe.snapshot:
        yield _entity(
            device,
            "image",
            (pipe.name, "snapshot"),
            shown(pipe.name, "snapshot"),
            image_topic=topics.snapshot(pipe.name),
            content_type="image/jpeg",
        )


# ── how a pipeline is, and what is done with it ──────────────────────────────────────────────────────────


def _tended(device: Device, pipe: Pipe, topics: Topics) -> Iterator[Entity]:
    """Its stream, and its pause and thresholds where commands are taken."""
    state = topics.state(pipe.name)
    yield _entity(
        device,
        "sensor",
        (pipe.name, "stream"),
        shown(pipe.name, "stream"),
        state_topic=state,
        value_template="{{ value_json.stream }}",
        device_class="enum",
        options=CONDITIONS,
        entity_category="diagnostic",
        json_attributes_topic=state,
        json_attributes_template="{{ {'why': value_json.why, 'since': value_json.since, "
        "'trouble': value_json.trouble, 'by_command': value_json.by_command} | tojson }}",
    )
    if device.commands:
        yield from _controls(device, pipe, topics, state)


def _controls(device: Device, pipe: Pipe, topics: Topics, state: str) -> Iterator[Entity]:
    """Its pause and its thresholds."""
    name = f'"pipeline": {quoted(pipe.name)}'
    yield _entity(
        device,
        "switch",
        (pipe.name, "pause"),
        shown(pipe.name, "pause"),
        state_topic=state,
        value_template=_on("value_json.stream == 'paused'"),
        command_topic=topics.command("pause"),
        command_template="{" + f"{ID}, {name}" + ", \"paused\": {{ 'true' if value == 'ON' else 'false' }}}",
        icon="mdi:pause-circle-outline",
    )
    for key, option in pipe.thresholds.items():
        # of an error nobody knows how large it may be
        most, step = (1, 0.01) if option == "score" else (1_000_000, 0.001)
        yield _entity(
            device,
            "number",
            (pipe.name, "threshold", key),
            shown(pipe.name, key, option),
            state_topic=state,
            value_template="{{ value_json.thresholds[" + quoted(key) + "] }}",
            command_topic=topics.command("threshold"),
            command_template="{" + f'{ID}, {name}, "name": {quoted(key)}' + ', "value": {{ value }}}',
            min=0,
            max=most,
            step=step,
            mode="slider" if option == "score" else "box",
            entity_category="config",
        )
