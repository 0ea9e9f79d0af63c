"""Files that a rotation compressed, read as if they were not: gzip, bzip2, xz, and zstd where a decoder is here."""

from __future__ import annotations

import io
import os
import subprocess
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

from edge_agent.errors import SourceError
from edge_agent.files import open_regular
from edge_agent.programs import which

MAGIC = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"\x1f\x9d": "compress",
    b"PK\x03\x04": "zip",
    b"7z\xbc\xaf": "7-Zip",
    b"LZIP": "lzip",
    b"\x89LZO": "lzop",
}
ENDINGS = (".gz", ".bz2", ".xz", ".zst", ".lz4", ".Z", ".zip", ".7z", ".lz", ".lzo")


def packed_as(begin: bytes) -> str:
    """What a file that begins so is compressed with; "" for plain bytes."""
    return next((name for magic, name in MAGIC.items() if begin.startswith(magic)), "")


class Packed:
    """The bytes in a compressed file, by their offset as it was written; cheap while the offsets grow."""

    def __init__(self, path: Path) -> None:
        """OSError where it cannot be opened; SourceError where nothing here reads its format."""
        self._file: BinaryIO = os.fdopen(open_regular(path), "rb")
        name = packed_as(self._file.read(8))
        self._file.seek(0)
        try:
            self._stream = _unpacked(self._file, name)
        except BaseException:
            self._file.close()
            raise

    def pread(self, count: int, at: int) -> bytes:
        """As os.pread. OSError also for a file that is cut off or damaged."""
        try:
            self._stream.seek(at)
            found: bytes = self._stream.read(count)
        except _damages() as error:
            raise OSError(str(error)) from None
        return found

    def close(self) -> None:
        """Let go of it."""
        self._stream.close()
        self._file.close()


def _damages() -> tuple[type[Exception], ...]:
    """What the formats' modules raise, each a megabyte that most starts do without."""
    import lzma
    import zlib

    return EOFError, zlib.error, lzma.LZMAError


def _unpacked(file: BinaryIO, name: str) -> Any:
    import bz2
    import gzip
    import lzma

    if name == "gzip":
        return gzip.GzipFile(fileobj=file)
    if name == "bzip2":
        return bz2.BZ2File(file)
    if name == "xz":
        return lzma.LZMAFile(file)
    if name == "zstd":
        for module in ("compression.zstd", "backports.zstd"):
            try:
                return import_module(module).ZstdFile(file)
            except ImportError:
                continue
        if program := which("zstd"):
            return io.BufferedReader(_Piped(program, file))
    mend = "apt install zstd" if name == "zstd" else "have logs compressed with gzip, xz or zstd"
    raise SourceError(f"is compressed with {name}, which is not read here; {mend}")


class _Piped(io.RawIOBase):
    """What a program writes that a file is piped through; it starts anew to go back."""

    def __init__(self, program: str, file: BinaryIO) -> None:
        self._command, self._from, self._at = [program, "-dcq"], file, 0
        self._start()

    def _start(self) -> None:
        self._from.seek(0)
        os.lseek(self._from.fileno(), 0, os.SEEK_SET)
        self._child = subprocess.Popen(
            self._command, stdin=self._from, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        assert self._child.stdout is not None
        data = self._child.stdout.read(len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        if not data and self._child.wait() != 0:
            raise OSError("is damaged")
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        assert self._child.stdout is not None and whence == os.SEEK_SET
        if offset < self._at:
            self._end()
            self._start()
        while self._at < offset and (data := self._child.stdout.read(min(1 << 16, offset - self._at))):
            self._at += len(data)
        return self._at

    def tell(self) -> int:
        return self._at

    def _end(self) -> None:
        self._child.kill()
        self._child.communicate()

    def close(self) -> None:
        if not self.closed:
            self._end()
        super().close()
