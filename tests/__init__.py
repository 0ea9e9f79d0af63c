"""The tests, and what is measured (tests/bench)."""

import edge_agent  # noqa: F401
