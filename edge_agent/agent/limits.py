"""[limits] that cannot be met are refused before anything runs: held against this board and what is asked of it."""

from __future__ import annotations

from collections.abc import Sequence

from edge_agent.agent.need import Load
from edge_agent.config import Limits
from edge_agent.device import board
from edge_agent.device.health import rss_bytes
from edge_agent.errors import ConfigError
from edge_agent.governor.steps import PLANS, SMALLEST

OF_OURS = 3.0
"""percent of a core that the agent takes beside its models, at least"""


def check_limits(limits: Limits, loads: Sequence[Load]) -> str:
    """What they come to, one line; empty where there are none. ConfigError for one that cannot be met here.

    `loads`: of the pipelines, whose models are open in this process.
    """
    told = []
    if limits.memory_mb is not None:
        told.append(_memory(limits.memory_mb))
    if limits.cpu_percent is not None:
        told.append(_processor(limits.cpu_percent, loads))
    if limits.celsius is not None:
        told.append(_heat(limits.celsius))
    if limits.watts is not None:
        told.append(_power(limits.watts))
    return f"limits: {'; '.join(told)}" if told else ""


def _memory(limit: int) -> str:
    now = rss_bytes() >> 20
    if now > limit:
        raise ConfigError(
            f"limits.memory_mb: {limit} cannot be met: with the models of its pipelines open the agent takes {now} MB "
            "before anything runs; write more, or take smaller models"
        )
    return f"{now} of {limit} MB are taken by what is open now"


def _processor(limit: int, loads: Sequence[Load]) -> str:
    whole, least = (OF_OURS + 100 * share * sum(load.cores for load in loads) for share in (1.0, PLANS[-1].cost))
    if least > limit:
        raise ConfigError(
            f"limits.cpu_percent: {limit} cannot be met: {least:.0f} % of a core are taken even where only every "
            f"{1 / SMALLEST:.0f}th frame is looked at; write more, let fewer come (fps=) or take a smaller model"
        )
    return f"{whole:.0f} % of a core are wanted, {limit} allowed" + (", so less will be done" if whole > limit else "")


def _heat(limit: float) -> str:
    said = [value for value in board.temperatures() if value]
    if not said:
        raise ConfigError("limits.celsius: this board has no sensor of heat, so nobody can keep that; drop it")
    if max(said) >= limit:
        raise ConfigError(
            f"limits.celsius: {limit:g} cannot be met: it is {max(said):.0f} °C here before anything runs; write more"
        )
    return f"it is {max(said):.0f} °C, {limit:g} are allowed"


def _power(limit: float) -> str:
    now = board.watts()
    if now is None:
        raise ConfigError("limits.watts: no sensor here says how many watts the board draws; drop it")
    if now >= limit:
        raise ConfigError(
            f"limits.watts: {limit:g} cannot be met: it draws {now:.1f} W before anything runs; write more"
        )
    return f"it draws {now:.1f} W, {limit:g} are allowed"
