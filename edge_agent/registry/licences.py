"""Files that are known by their hash to be under terms which nobody may assume to be met, whatever comes with them."""

from __future__ import annotations

from edge_agent.errors import RefusedError

NON_COMMERCIAL = {
    "7333a317a790070a7f3432b81d9439c779481cc4ebd67c73da7174ea3cf48397": "alexa",
    "14bff778604985e1b5c19f0f7bbe477a69cf281d8db34b232b3b972411f710e2": "hey_jarvis",
    "bf9e43136afd3ca323698820a6e32a47f885ef4c30a3b8b577ec71688a9d64d8": "hey_mycroft",
    "01d2526b45068f565aa3849d6ec2b7abae099154fc1b496f9ef20de9ef241fe9": "hey_rhasspy",
    "2982cecde4ee81cc7a2573d2602a7d54f0669425c94a7b64af77e0ff92b03a18": "okay_nabu",
}
"""SHA-256 -> word; of openWakeWord's models, CC BY-NC-SA 4.0 by their makers, also where they lie in a package that
says Apache-2.0, as these do (pyopen-wakeword 1.1.0)"""


def check(name: str, sha256: str) -> None:
    """RefusedError for a file that is one of them."""
    if word := NON_COMMERCIAL.get(sha256):
        raise RefusedError(
            f"{name}: this is the word {word} of openWakeWord, CC BY-NC-SA 4.0: for no commercial use, whatever the "
            "package says that it came in; for wake words there is the task wake"
        )
