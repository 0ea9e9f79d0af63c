"""Frames become a film: H.264 by ffmpeg, which browsers play; without it MPEG-4 by OpenCV, which they do not."""

from __future__ import annotations

import bisect
import functools
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from edge_agent.errors import EdgeAgentError
from edge_agent.pictures.read import STREAM, cv2, decode
from edge_agent.programs import environment, which

FASTEST = 30.0
"""frames a second that a film has at most"""
ENCODERS = {
    "libx264": ("-preset", "veryfast", "-crf", "26"),
    "h264_v4l2m2m": ("-b:v", "1500k"),
    "libopenh264": ("-b:v", "1500k"),
}
"""of H.264, in the order in which they are taken, and their options"""
ASK_S, MAKE_S = 20.0, 120.0
"""seconds that ffmpeg has to say what it can do, and to make a film"""

Frames = Sequence[tuple[float, bytes]]
"""when each was taken, seconds, and its JPEG; all of one size"""


def film(frames: Frames) -> bytes:
    """An MP4 that shows each frame at its time. EdgeAgentError, one line, where none can be made."""
    encoder = _encoder()
    return _by_ffmpeg(frames, *encoder) if encoder is not None else _by_cv2(frames)


def said() -> str:
    """How films are made here, for people."""
    encoder = _encoder()
    if encoder is not None:
        return f"H.264 by ffmpeg ({encoder[1]})"
    return "MPEG-4 by OpenCV, which browsers do not play; apt install ffmpeg"


@functools.lru_cache(maxsize=1)
def _encoder() -> tuple[str, str] | None:
    """The program, and the encoder of it that is taken; None where there is none."""
    program = which("ffmpeg")
    if program is None:
        return None
    try:
        asked = [program, "-hide_banner", "-encoders"]
        done = subprocess.run(asked, stdin=subprocess.DEVNULL, capture_output=True, timeout=ASK_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    known = set(done.stdout.decode("utf-8", "replace").split())
    found = next((name for name in ENCODERS if name in known and _is_there(name)), None)
    return (program, found) if found else None


def _is_there(encoder: str) -> bool:
    """Whether this board has what an encoder needs: it is listed anyway."""
    return encoder != "h264_v4l2m2m" or Path("/dev/video11").exists()


def _paced(frames: Frames) -> tuple[float, Iterator[bytes]]:
    """Frames a second, and the frame to be shown at each of these steps."""
    times = [at for at, _ in frames]
    length = times[-1] - times[0]
    rate = min(FASTEST, max(1.0, round((len(frames) - 1) / length))) if length > 0 else 1.0
    steps = max(1, round(length * rate) + 1)
    shown = (max(0, bisect.bisect_right(times, times[0] + (n + 0.5) / rate) - 1) for n in range(steps))
    return rate, (frames[at][1] for at in shown)


def _by_ffmpeg(frames: Frames, program: str, encoder: str) -> bytes:
    """The film is written into memory: nobody else sees it, and no half of it is left anywhere."""
    rate, shown = _paced(frames)
    handle = os.memfd_create("film")
    nice = which("nice")
    command = [
        *([nice, "-n", "10"] if nice else []), program, "-hide_banner", "-nostats", "-v", "error", "-f", "mjpeg",
        "-framerate", f"{rate:g}", "-i", "pipe:0", "-an", "-vf",
        "scale=trunc(iw/2)*2:trunc(ih/2)*2:out_range=tv,format=yuv420p", "-c:v", encoder, *ENCODERS[encoder],
        "-threads", "1", "-movflags", "+faststart", "-f", "mp4", "-y", f"/proc/self/fd/{handle}",
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command,
            input=b"".join(shown),
            capture_output=True,
            timeout=MAKE_S,
            env=environment(),
            pass_fds=[handle],
            start_new_session=True,  # a Ctrl-C is for the agent, which waits for it
        )
        if done.returncode or not (size := os.fstat(handle).st_size):
            why = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or ["it wrote nothing"]
            raise EdgeAgentError(f"ffmpeg: {why[0][:200]}")
        return os.pread(handle, size, 0)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EdgeAgentError(f"ffmpeg: {error}") from None
    finally:
        os.close(handle)


def _by_cv2(frames: Frames) -> bytes:
    rate, shown = _paced(frames)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        writer = None
        for data in shown:
            image = decode(data, STREAM)
            if writer is None:
                code = cv2.VideoWriter.fourcc(*"mp4v")
                writer = cv2.VideoWriter(str(path), code, rate, (image.shape[1], image.shape[0]))
            writer.write(image)
        if writer is not None:
            writer.release()
        try:
            return path.read_bytes()
        except OSError as error:
            raise EdgeAgentError(f"OpenCV writes no film here: {error.strerror}") from None
