"""The verb `serve`: models over HTTP, without a config and without pipelines."""

from __future__ import annotations

import argparse
from pathlib import Path

from edge_agent.cli.say import note, progress
from edge_agent.cli.signals import stop_on_signals
from edge_agent.errors import ConfigError, UsageError


def options(serve: argparse.ArgumentParser) -> None:
    """Its options."""
    serve.add_argument("model", nargs="+", help="name, folder, .onnx or .tflite")
    serve.add_argument("--listen", default="127.0.0.1:8484", metavar="HOST:PORT", help="(default: 127.0.0.1:8484)")
    serve.add_argument(
        "--password-file", metavar="FILE", help="of the admin, who gives tokens to programs (docs/page.md)"
    )
    serve.add_argument(
        "--token-file", metavar="FILE", help="the token of all programs; either is a must for other hosts"
    )
    serve.add_argument("--cert", metavar="PEM", help="serve over https, with this certificate")
    serve.add_argument("--key", metavar="PEM", help="and its private key")
    serve.add_argument("--names", nargs="+", metavar="HOST", help="other names that it is reached by, as a balancer's")
    serve.add_argument("--threads", type=int, default=0, help="cores that the models may use together; 0: all")
    serve.add_argument("--pull", action="store_true", help="fetch the models' files when they are not here")


def serve(args: argparse.Namespace) -> int:
    """Serve until a signal."""
    from edge_agent import toml
    from edge_agent.config.page import Page as Settings
    from edge_agent.config.page import checked_page
    from edge_agent.paths import home
    from edge_agent.serving.models import Models

    stop = stop_on_signals()
    given = {key: getattr(args, key) for key in ("listen", "password_file", "cert", "key", "names")}
    given["password_file"] = given["password_file"] or args.token_file
    settings = checked_page(toml.convert({key: one for key, one in given.items() if one}, Settings), Path.cwd())
    assert settings is not None
    try:
        from edge_agent.ui.server import Page
    except ImportError as error:
        raise UsageError(f'serve needs {error.name}: pip install "edge-agent-runtime[page]"') from None
    models = Models(threads=max(0, args.threads), pull=args.pull, say=progress(", ".join(args.model)))
    for name in args.model:
        served = models.serve(name)
        note(f"{served.ref.name} {served.ref.version}: {served.why}")
    page = Page(settings, home() / "serve", own=models)
    if args.token_file:
        page.access.share(args.token_file, "--token-file")
    page.start()
    if not page.port:
        page.stop()
        raise ConfigError(f"--listen: {args.listen}: another program listens there; name another port")
    note(f"serving at {page.address}v2/models/{served.ref.name}, until Ctrl-C")
    stop.wait()
    page.inference.leave()
    page.stop()
    return 0
