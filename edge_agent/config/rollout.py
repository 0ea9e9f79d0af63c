"""``[rollout]``: who may have this device updated, and by which way that is heard."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import msgspec

from edge_agent.errors import ConfigError

_Text = Annotated[str, msgspec.Meta(min_length=1)]
_Url = Annotated[str, msgspec.Meta(pattern=r"^https?://\S+\Z", examples=["https://hawkbit.local/DEFAULT"])]
_JOBS = "topic levels without + and #, such as $aws/things/porch/jobs"


class RolloutBy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[rollout]``: without it no job and no desired state is heard. What is taken is signed all the same."""

    jobs: Annotated[str, msgspec.Meta(pattern=r"^[^+#\0 /][^+#\0]{0,200}[^+#\0 /]\Z", description=_JOBS)] | None = None
    """topics of the jobs, with AWS IoT Jobs' names and states; when absent, PREFIX/DEVICE/jobs"""
    desired: bool = True
    """false: the retained desired documents of the device and its group count for nothing"""
    hawkbit: _Url | None = None
    """address of a hawkBit server, with the tenant: its DDI API is asked for deployments"""
    token_file: _Text | None = None
    """path, or credential:NAME, of this device's token for it"""

    @property
    def is_aws(self) -> bool:
        """Whether AWS's own service is at the other end."""
        return (self.jobs or "").startswith("$aws/")


def checked_rollout(given: RolloutBy | None, url: object, path_of: Callable[[str, str], str]) -> RolloutBy | None:
    """The section with its path made absolute; `url`: of the broker. ConfigError for one that hears nobody."""
    if given is None:
        return None
    if url is None and given.hawkbit is None:
        raise ConfigError("rollout: jobs come over MQTT; write mqtt.url, or hawkbit")
    file = given.token_file
    if file is None:
        return given
    if given.hawkbit is None:
        raise ConfigError("rollout.token_file: is for hawkbit; write that, or delete it")
    if given.hawkbit.startswith("http://") and not _is_local(given.hawkbit):
        raise ConfigError("rollout.hawkbit: a token goes over https:// only; write that")
    if file.startswith("credential:"):
        return given
    return msgspec.structs.replace(given, token_file=path_of("rollout.token_file", file))


def _is_local(url: str) -> bool:
    host = url.partition("://")[2].partition("/")[0].rpartition(":")[0]
    return host in ("127.0.0.1", "localhost", "[::1]")
