"""Options of verbs whose own module is loaded only when they run."""

from __future__ import annotations

import argparse

from edge_agent.cli import arguments


def bench_options(timed: argparse.ArgumentParser) -> None:
    """Of `bench`."""
    timed.add_argument("model", help="name, folder, .onnx or .tflite")
    timed.add_argument("--seconds", type=arguments.seconds, default=10.0, help="to race for (default: 10)")
    timed.add_argument("--threads", type=arguments.count, default=0, help="for one run; 0: all cores (default)")
    timed.add_argument("--json", action="store_true", help="print one JSON object, and nothing else")


def demo_options(demo: argparse.ArgumentParser) -> None:
    """Of `demo`."""
    demo.add_argument("--seconds", type=arguments.seconds, help="end by itself (default: run until Ctrl-C)")
    demo.add_argument("--source", metavar="ADDRESS", help="a camera or film, as camera:0, rtsp://… or film.mp4")
    demo.add_argument("--microphone", action="store_true", help="hear what is said here, not the carried sentences")
