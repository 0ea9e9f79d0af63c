"""``python -m tests.accuracy.broken run …``: edge-agent whose int8 kernels answer wrongly while $BROKEN_INT8 is a file.

A kernel that is right when the gate looks and wrong later cannot be caused otherwise.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import msgspec

from edge_agent.agent.guarding import Guarding
from edge_agent.backends import onnx
from edge_agent.cli import main
from edge_agent.types import Net

SWITCH = Path(os.environ["BROKEN_INT8"])


def breaking(load: Any) -> Any:
    def loaded(path: Path, threads: int, source: Path) -> Net:
        net: Net = load(path, threads, source)
        if not any(name in source.read_bytes() for name in (b"QLinear", b"DequantizeLinear")):
            return net

        def run(tensors: Any) -> Any:
            found = net.run(tensors)
            return {name: array * 0.2 for name, array in found.items()} if SWITCH.exists() else found

        return msgspec.structs.replace(net, run=run)

    return loaded


if __name__ == "__main__":
    onnx.load, onnx.load_optimised = breaking(onnx.load), breaking(onnx.load_optimised)
    Guarding._idle = lambda self: True  # type: ignore[method-assign]
    sys.exit(main(sys.argv[1:]))
