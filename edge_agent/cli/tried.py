"""A config tried for the doctor, in a process of its own: its keys, and the broker with its credentials and topics."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from edge_agent.cli.given import as_service
from edge_agent.errors import EdgeAgentError
from edge_agent.redact import redact


def main() -> None:
    """Print a line of rows [good, told] for the config that the last argument names."""
    place, rows = Path(sys.argv[-1]), list[tuple[bool | None, str]]()
    as_service(place)
    try:
        from edge_agent import config
        from edge_agent.agent.told import check_told

        loaded = config.load(place)
        with config.of(place):
            rows.append((True, f"{place}: {len(loaded.pipeline)} pipelines; `edge-agent check --connect` tries them"))
            check_told(loaded)
            if loaded.mqtt.url is not None:
                from edge_agent.link.rights import tried

                rows += [(row.good, row.told) for row in tried(loaded)]
    except EdgeAgentError as error:
        rows.append((False, " ".join(str(error).split())))
    print("\n#" + json.dumps([(good, redact(told)) for good, told in rows]))
