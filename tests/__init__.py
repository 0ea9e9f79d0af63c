"""The tests, and what is measured (tests/bench)."""

# before any of them loads ONNX Runtime: the package tells it to report nothing
import edge_agent  # noqa: F401
