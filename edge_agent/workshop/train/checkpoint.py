"""Long trainings: checkpoints that are never half written, and the loss curve."""

from __future__ import annotations

import csv
import math
import os
import pickle
from pathlib import Path
from typing import Any

import torch

from edge_agent.errors import EdgeAgentError, UsageError
from edge_agent.workshop.train.finish import read_curve as read_curve


def device_of(asked: str | None) -> str:
    """cpu, or cuda where there is one, unless another one is asked for. UsageError for what is not here."""
    cuda = torch.cuda.is_available()
    device = asked or ("cuda" if cuda else "cpu")
    if device.split(":")[0] not in ("cpu", "cuda") or (device != "cpu" and not cuda):
        raise UsageError(f"--device {device}: not here; leave it out, or give cpu")
    return device


def save(path: Path, value: Any) -> None:
    """Write `value` (tensors, numbers, dicts, lists) to `path` by a rename: a reader sees all or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.with_name(f".{path.name}.part")
    with hidden.open("wb") as file:
        torch.save(value, file)
        file.flush()
        os.fsync(file.fileno())
    hidden.replace(path)


def load(path: Path) -> Any:
    """What `save` wrote, on the CPU. Raises EdgeAgentError where it is missing, cut short or of another kind."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise EdgeAgentError(f"no checkpoint {path}; start without --resume") from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise EdgeAgentError(f"checkpoint {path} cannot be read ({reason}); start without --resume") from error


class Curve:
    """A CSV that grows by a row at a time; after a resume it goes on after the rows before that step."""

    def __init__(self, path: Path, columns: tuple[str, ...], from_step: int = 0) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [row for row in read_curve(path) if row.get("step", math.inf) <= from_step] if from_step else []
        self.path, self.columns = path, columns
        with path.open("w", newline="") as file:
            csv.writer(file).writerow(columns)
        for row in kept:
            self.add(*[row.get(column, math.nan) for column in columns])

    def add(self, *values: float) -> None:
        with self.path.open("a", newline="") as file:
            csv.writer(file).writerow([f"{value:.6g}" for value in values])
