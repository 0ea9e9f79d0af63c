"""Who is told of events beside the broker: their addresses checked, and put to work."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.agent.keep import Keep
from edge_agent.config import Config
from edge_agent.errors import ConfigError, nearest
from edge_agent.notify.notices import Notices, receivers_of

if TYPE_CHECKING:
    from edge_agent.recorder.pictures import Pictures


def told_by(keep: Keep, config: Config, store: Path, pictures: Pictures | None) -> Notices:
    """Those that a config names, told from now on of each event. ConfigError, StoreError."""
    check_told(config)
    picture = (lambda name: None) if pictures is None else pictures.path
    notices = Notices(receivers_of(config, store, picture))
    if notices.receivers:
        keep.before.append(notices.before)
        keep.listeners.append(notices.listen)
    return notices


def check_told(config: Config) -> None:
    """ConfigError for an address that cannot be had, or that nothing here can send to."""
    if config.notify:
        from edge_agent.notify.send import address_of

        for one in config.notify:
            address_of(one)


def about_told(config: Config) -> Iterator[str]:
    """Each receiver and what it is told of, a line each. ConfigError for an address that cannot be one."""
    from edge_agent.notify.send import checked

    for one in config.notify:
        kinds = [kind for kind in one.kinds if kind != "rule" or not one.rules]
        of = [*(f"rule {name}" for name in one.rules), *kinds] or ["every rule"]
        only = [f"{key} {', '.join(given)}" for key in ("pipelines", "labels") if (given := getattr(one, key))]
        when = [f"quiet {one.quiet}"] * bool(one.quiet) + [f"{one.limit} an hour at most"]
        yield f"notify {one.name}: {checked(one)}: {', '.join([*of, *only])}; {', '.join(when)}"


def try_told(config: Config, name: str) -> Iterator[tuple[bool, str]]:
    """Send a test message to the receiver of this name, or to all for ""; whether each was taken, and a line about it.

    ConfigError for a name that is none.
    """
    from edge_agent.notify.send import tried

    names = [one.name for one in config.notify]
    if not names:
        raise ConfigError("there is no [[notify]] to try")
    if name not in ("", *names):
        raise ConfigError(f'--notify: "{name}" is none{nearest(name, names)}')
    for one in config.notify:
        if name in ("", one.name):
            yield tried(one, config.device.id)
