from __future__ import annotations

from collections.abc import Iterator

import pytest

from edge_agent.manifest import Served
from edge_agent.serving.models import Models


@pytest.fixture(scope="session")
def edge_bert(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The carried encoder with its heads, as the agent serves it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGE_AGENT_HOME", str(tmp_path_factory.mktemp("home")))
        yield Models(threads=1, once=True).serve("edge-bert")
