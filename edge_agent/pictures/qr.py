"""The text of a QR code in a picture."""

from __future__ import annotations

import cv2

from edge_agent.types import Pixels

MOST = 3000
"""characters; the largest code holds 2953 bytes"""


def text_of(image: Pixels) -> str:
    """What the code in a picture says; "" where none can be read. The text is a stranger's."""
    for reader in (
        cv2.QRCodeDetectorAruco,
        cv2.QRCodeDetector,
    ):  # the second misses one in four of 200 to 700 characters
        try:
            said, _, _ = reader().detectAndDecode(image)
        except (cv2.error, UnicodeDecodeError):
            continue
        if said:
            return str(said)[:MOST]
    return ""
