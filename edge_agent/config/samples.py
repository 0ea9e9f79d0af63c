"""``[samples]``: what is kept of pictures, for people and for the workshop. All of it is off unless asked for."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

import msgspec

from edge_agent.config.times import Duration, seconds
from edge_agent.errors import ConfigError, nearest
from edge_agent.toml import Name

ClipOf = Literal["new", "zone", "loiters", "crossing", "detections", "anomaly", "rule"]
"""an object is new, comes into a zone, stays there for long, goes over a line; something is in view of a pipeline that
does not track; a frame is unusual; a rule comes on"""
LONGEST_S = 120.0
"""seconds of a clip before what it is made for, and behind it"""


class Samples(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[samples]``: pictures of people in view, on this device; snapshots also go to the broker."""

    snapshots: bool = False
    """true: the best picture of each object is kept in the store's folder, named in its events, and the newest of a
    pipeline is sent"""
    whole: bool = False
    """true: a snapshot is the whole frame with the box drawn in; false: what is in the box, with a margin"""
    retain: bool = True
    """false: the broker does not keep the newest snapshot of a pipeline"""
    clips: bool | list[ClipOf] = False
    """a film of the seconds around these alerts is kept, and named in their events; true: of all of them, but of things
    that are `new` only where their pipeline has no zones and lines"""
    before: Duration = "5s"
    """how much a clip shows of what was before the alert"""
    after: Duration = "10s"
    """and after it"""
    max_bytes: Annotated[int, msgspec.Meta(ge=1_000_000, le=10**15)] = 200_000_000
    """bytes of snapshots and clips on disk; the oldest go first, those that unsent events name last"""
    days: Annotated[float, msgspec.Meta(gt=0, le=3650)] = 14.0
    """age at which snapshots, clips and collected pictures are deleted; what unsent events name, at twice that age"""
    collect: list[Literal["uncertain", "rare", "disagreed"]] = []
    """which frames and texts are kept under HOME/samples/collected for a person to look through: those of which a model
    was not sure, those of labels that are seldom seen, those of which a new model ([update]) or [opinion] said
    something else"""
    consent: Annotated[str, msgspec.Meta(min_length=3, max_length=300)] | None = None
    """with collect: by whose leave, in words; it is written beside each of them, and into each export"""
    collect_every: Duration = "10min"
    """time at least between two that are collected of a pipeline"""
    collect_most: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 200
    """pictures; the oldest go first"""

    record: bool | list[Name] = False
    """pipelines (true: all) whose samples are kept as they came, with their times, under HOME/recordings, for
    `edge-agent replay`: pictures of people in view, sound and texts, in files of mode 0600"""
    record_bytes: Annotated[int, msgspec.Meta(ge=10_000_000, le=10**15)] = 1_000_000_000
    """bytes of recordings on disk; the oldest go first"""

    @property
    def pictures(self) -> bool:
        """Whether events name any."""
        return self.snapshots or bool(self.clips)

    def clips_of(self, zones: bool) -> frozenset[str]:
        """The alerts of a pipeline that have clips; `zones`: whether it has zones or lines."""
        if isinstance(self.clips, list):
            return frozenset(self.clips)
        every = set(get_args(ClipOf)) if self.clips else set[str]()
        return frozenset(every - {"new"} if zones else every)


def _check_consent(samples: Samples) -> None:
    """ConfigError where people's pictures and words are kept, and nobody says by whose leave."""
    if samples.collect and samples.consent is None:
        mend = 'e.g. consent = "staff agreed in writing", or "nobody is in view"'
        raise ConfigError(f"samples.collect: keeps what people show and say; write beside it by whose leave, {mend}")


def checked_samples(samples: Samples, written: dict[str, Any], pipelines: list[str]) -> Samples:
    """The section as it is; `written`: the keys that stand there. ConfigError for one that does nothing."""
    for name in samples.record if isinstance(samples.record, list) else ():
        if name not in pipelines:
            raise ConfigError(f'samples.record: "{name}" is no pipeline{nearest(name, pipelines)}')
    needs = {"whole": "snapshots", "retain": "snapshots", "before": "clips", "after": "clips"}
    needs |= {"collect_every": "collect", "collect_most": "collect", "consent": "collect", "record_bytes": "record"}
    _check_consent(samples)
    for key, of in needs.items():
        if key in written and not getattr(samples, of):
            mend = 'collect = ["uncertain"]' if of == "collect" else f"{of} = true"
            raise ConfigError(f"samples.{key}: does nothing without {of}; write {mend}, or delete it")
    for key in ("before", "after"):
        if seconds(getattr(samples, key)) > LONGEST_S:
            raise ConfigError(f"samples.{key}: a clip is for an alert; write {LONGEST_S:.0f}s or less")
    return samples
