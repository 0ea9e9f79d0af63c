"""Microphones: a real PulseAudio with a null sink is heard through ALSA; it is killed and started again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_agent.errors import ConfigError, SourceError
from edge_agent.sources import microphone, open_source
from edge_agent.sources.microphone import chosen
from edge_agent.types import Audio
from edge_agent.uri import parse_uri
from tests.broker import until
from tests.conftest import ROOT

RATE = 48_000
LISTENER = """
import json, sys, threading
import numpy as np
from edge_agent.sources import open_source
from edge_agent.types import StreamState
from edge_agent.uri import parse_uri
for item in open_source(parse_uri(sys.argv[1])).run(threading.Event()):
    if isinstance(item, StreamState):
        row = [item.condition, item.why]
    elif not len(item.samples):
        row = ["last", item.last]
    else:
        spectrum = np.abs(np.fft.rfft(item.samples * np.hanning(len(item.samples))))
        hertz = float(spectrum.argmax() * 16000 / len(item.samples))
        row = ["sound", float(np.abs(item.samples).max()), hertz, len(item.samples), item.last]
    print(json.dumps(row), flush=True)
"""
ALSA = """
pcm.hall {
    type pulse
    device "hall.monitor"
    hint { show on description "the hall" }
}
"""


class Hall:
    """A sound system of one sink; what is played to it is what the microphone "hall" hears."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "run").mkdir(mode=0o700)
        (folder / "asound.conf").write_text(ALSA)
        own = {"HOME": str(folder), "XDG_RUNTIME_DIR": str(folder / "run"), "PYTHONPATH": str(ROOT)}
        alsa = f"/usr/share/alsa/alsa.conf:{folder / 'asound.conf'}"
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PULSE_", "XDG_"))}
        self.environ = {**kept, **own, "ALSA_CONFIG_PATH": alsa, "DBUS_SESSION_BUS_ADDRESS": "disabled:"}
        tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(20 * RATE) / RATE)
        with wave.open(str(folder / "tone.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(RATE)
            file.writeframes((tone * 32767).astype("<i2").tobytes())
        self.daemon: subprocess.Popen[bytes] | None = None
        self.playing: subprocess.Popen[bytes] | None = None

    def plug_in(self) -> None:
        shutil.rmtree(self.folder / "run" / "pulse", ignore_errors=True)
        modules = ["module-native-protocol-unix", f"module-null-sink sink_name=hall rate={RATE} channels=2"]
        loaded = [word for module in modules for word in ("-L", module)]
        command = ["pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", "--disable-shm=yes", *loaded]
        out = (self.folder / "pulse.log").open("ab")
        self.daemon = subprocess.Popen(command, env=self.environ, stdout=out, stderr=out)
        until(self._answers, "pulseaudio answers")
        self.playing = subprocess.Popen(["paplay", "--device=hall", "tone.wav"], env=self.environ, cwd=self.folder)

    def _answers(self) -> bool:
        asked = ["pactl", "list", "short", "sources"]
        return b"hall.monitor" in subprocess.run(asked, env=self.environ, capture_output=True).stdout

    def unplug(self) -> None:
        for process in (self.daemon, self.playing):
            if process is not None:
                process.kill()
                process.wait()


@pytest.fixture
def hall(tmp_path: Path) -> Iterator[Hall]:
    for program in ("pulseaudio", "pactl", "paplay"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    if not list(Path("/usr/lib").glob("**/alsa-lib/libasound_module_pcm_pulse.so")):
        pytest.skip("ALSA has no way to PulseAudio: libasound2-plugins is not installed")
    try:
        microphone._library()
    except ConfigError as error:
        pytest.skip(str(error))
    made = Hall(tmp_path)
    made.plug_in()
    yield made
    made.unplug()


class Heard:
    """What a listener says, line by line."""

    def __init__(self, hall: Hall, address: str) -> None:
        command = [sys.executable, "-c", LISTENER, address]
        self.process = subprocess.Popen(command, env=hall.environ, stdout=subprocess.PIPE, text=True, cwd=hall.folder)

    def first(self, kind: str, wanted: Any = lambda row: True) -> list[Any]:
        """The next line of this kind that is wanted."""
        assert self.process.stdout is not None
        end = time.monotonic() + 60
        for line in self.process.stdout:
            row: list[Any] = json.loads(line)
            if row[0] == kind and wanted(row):
                return row
            assert time.monotonic() < end, f"no such {kind}"
        raise AssertionError("the listener has ended")

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def is_the_tone(row: list[Any]) -> bool:
    return bool(0.4 < row[1] < 0.6 and abs(row[2] - 1000) < 30)


def test_a_microphone_is_heard_unplugged_and_plugged_in_again(hall: Hall) -> None:
    heard = Heard(hall, "microphone:HAL?pause=1")
    try:
        said = heard.first("ok")
        assert said[1].startswith("hall, ") and said[1].endswith(" Hz, 2 channels")
        assert heard.first("sound", is_the_tone)[3] <= 16_000
        hall.unplug()
        assert heard.first("reconnecting")[1].startswith("hall: is gone: ")
        hall.plug_in()
        heard.first("ok")
        heard.first("sound", is_the_tone)
    finally:
        heard.end()


def test_options_choose_rate_and_channels_and_a_wrong_name_lists_what_is_there(hall: Hall) -> None:
    for address, says in (
        ("microphone:hall?rate=8000&channels=1", ["ok", "hall, 8000 Hz, 1 channel"]),
        ("microphone:hull", ["reconnecting", 'there is no microphone "hull"; did you mean "hall"? Here are']),
    ):
        heard = Heard(hall, address)
        try:
            assert heard.first(says[0])[1].startswith(says[1])
        finally:
            heard.end()


def test_check_says_device_rate_and_level(hall: Hall, tmp_path: Path) -> None:
    own = "name='hall'\nsource='microphone:hall'\ntasks=['tests.agent.test_audio:loud:']"
    (tmp_path / "a.toml").write_text(f"[store]\npath='{tmp_path}/store'\n[[pipeline]]\n{own}\n")
    command = [sys.executable, "-m", "edge_agent", "check", "-c", "a.toml", "--connect"]
    told = {**hall.environ, "EDGE_AGENT_HOME": str(tmp_path / "home")}
    done = subprocess.run(command, env=told, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    # before anything is opened, and after it
    assert "\n  hall: " in done.stdout and " Hz, " in done.stdout
    (line,) = [line for line in done.stdout.splitlines() if "s of sound at -" in line]
    assert line.startswith("ok  hall: 1") and " dB from hall, " in line and " Hz, 2 channels, after " in line


def devices(*names: str) -> list[dict[str, Any]]:
    return [{"name": name, "index": n} for n, name in enumerate(names)]


HERE = devices("USB PnP Sound Device: Audio (hw:1,0)", "USB PnP Sound Device: Audio (hw:2,0)", "ReSpeaker", "default")


def test_a_device_is_meant_by_a_part_of_its_name() -> None:
    assert chosen("respeak", HERE, "")["index"] == 2
    assert chosen("HW:2", HERE, "")["index"] == 1
    assert chosen("", HERE, "ReSpeaker")["index"] == 2
    assert chosen("default", HERE, "ReSpeaker")["index"] == 3
    assert chosen("Default", HERE[:3], "ReSpeaker")["index"] == 2
    # the whole name wins over names that it is part of
    assert chosen("hall", devices("hall 2", "Hall"), "")["index"] == 1


@pytest.mark.parametrize(
    ("name", "here", "says"),
    [
        ("usb", HERE, 'means 2 of the microphones here .*hw:1,0.*hw:2,0.*write more of the name'),
        ("respaeker", HERE, 'no microphone "respaeker"; did you mean "ReSpeaker"'),
        ("kitchen", HERE, 'no microphone "kitchen"; which one\\? Here are "USB PnP'),
        ("x", [], "there is no microphone here; plug one in"),
    ],
)  # fmt: skip
def test_one_that_is_not_meant_clearly_is_refused_with_what_is_there(
    name: str, here: list[dict[str, Any]], says: str
) -> None:
    with pytest.raises(SourceError, match=says):
        chosen(name, here, "")


class Library:
    """PortAudio as it answers where a device is busy, or takes one rate alone."""

    class PortAudioError(Exception):
        pass

    def __init__(self, number: int, good: tuple[int, int] | None = None) -> None:
        self.number, self.good = number, good
        self.asked: list[tuple[int, int]] = []

    def InputStream(self, samplerate: int, channels: int, **more: Any) -> Any:
        self.asked.append((samplerate, channels))
        if self.good != (samplerate, channels):
            raise self.PortAudioError("Error opening InputStream: no", self.number)
        return self

    def start(self) -> None:
        pass


USB = {"name": "USB", "index": 1, "default_samplerate": 44100.0, "max_input_channels": 6}


def test_a_busy_device_is_said_at_once_and_another_rate_is_tried() -> None:
    library = Library(microphone.BUSY)
    with pytest.raises(SourceError, match="USB: cannot be opened: it is busy, another program uses it"):
        microphone._stream(library, USB, 0, 0)
    assert library.asked == [(44100, 2)]
    library = Library(microphone.BAD_RATE, good=(16000, 1))
    assert microphone._stream(library, USB, 0, 0) is library
    assert library.asked == [(44100, 2), (48000, 2), (16000, 2), (44100, 1), (48000, 1), (16000, 1)]
    with pytest.raises(SourceError, match="USB: cannot be opened: no"):
        microphone._stream(Library(microphone.BAD_RATE), USB, 8000, 1)


def test_without_portaudio_one_line_says_what_to_type(tmp_path: Path) -> None:
    code = (
        "import ctypes.util; ctypes.util.find_library = lambda name: None\n"
        "from edge_agent.sources import open_source\nfrom edge_agent.uri import parse_uri\n"
        "from edge_agent.errors import ConfigError\n"
        "try: open_source(parse_uri('microphone:hall'))\nexcept ConfigError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "microphones need the library PortAudio; `apt install libportaudio2`\n"


def test_options_of_a_microphone_have_bounds() -> None:
    try:
        microphone._library()
    except ConfigError as error:
        pytest.skip(str(error))
    assert open_source(parse_uri("microphone:")).yields is Audio
    for option in ("rate=1", "channels=9", "stall=0", "gain=3"):
        with pytest.raises(ConfigError, match=r"give a number|unknown option|give a whole"):
            open_source(parse_uri(f"microphone:hall?{option}"))
