"""How ONNX Runtime multiplies int8 here, asked by the doctor in a process of its own."""

from __future__ import annotations


def main() -> None:
    """Print whether products of U8 and S8 saturate."""
    from edge_agent.backends.onnx import saturates

    print(saturates())
