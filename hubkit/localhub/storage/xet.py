"""The storage service that xet clients upload to.

A client cuts files into chunks, sends the chunks it knows no copy of in bundles (xorbs), then a list of which
chunks make up which file (a shard). Here each file of a shard is put together at once, checked against the
sha256 the shard gives for it, and kept as an object like any other: a commit and a download know nothing of
xet. Clients download over plain HTTP.

Xorbs are kept, because a client remembers for weeks what it has sent and refers to it in later shards.

Formats: https://huggingface.co/docs/xet. The newer grant and v2 shard calls are answered 404, upon which
clients use the calls below; this is their own way of talking to older servers.
"""

from __future__ import annotations

import re
import secrets
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from hubkit.localhub.storage.errors import ApiError
from hubkit.localhub.storage.objects import Upload
from hubkit.localhub.storage.store import Store

__all__ = [
    "LARGEST_SHARD",
    "LARGEST_XORB",
    "add_shard",
    "address",
    "check_xorb",
    "forget_address",
    "read_shard",
    "xorb_path",
]

LARGEST_XORB: Final = 80 << 20
"""Clients fill a xorb to 64 MiB; incompressible chunks add headers."""
LARGEST_SHARD: Final = 64 << 20
"""It is held in memory; a file of 5 GB takes 4 MB of it."""
_LARGEST_CHUNK: Final = 1 << 20
"""Clients cut at 128 KiB at the latest; a forged length must not make the server allocate gigabytes."""
_LARGEST_FILE: Final = 1 << 40

_MAGIC: Final = b"HFRepoMetaData\0"
_HAS_VERIFICATION: Final = 1 << 31
_HAS_METADATA: Final = 1 << 30
_END: Final = b"\xff" * 32


class Segment(NamedTuple):
    """Chunks first…last-1 of a xorb."""

    xorb: str
    size: int
    first: int
    last: int


class File(NamedTuple):
    sha256: str | None
    segments: list[Segment]

    @property
    def size(self) -> int:
        return sum(segment.size for segment in self.segments)


class _Chunk(NamedTuple):
    offset: int
    stored: int
    scheme: int
    size: int


def _hex(raw: bytes) -> str:
    """Returns a hash as xet writes it: four little-endian numbers in hexadecimal."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", raw))


def address(store: Store) -> str:
    """The last part of this storage's address. It changes when gc has thrown the xorbs away: clients go by
    the address when they remember what they have sent."""
    return store.meta("xet_address", lambda: secrets.token_hex(8))


def forget_address(store: Store) -> None:
    with store.change() as db:
        db.execute("DELETE FROM meta WHERE key = 'xet_address'")


def xorb_path(store: Store, name: str) -> Path:
    if not re.fullmatch(r"[0-9a-f]{64}", name):
        raise ApiError(400, "not the name of a xorb")
    return store.folder / "xorbs" / name[:2] / name


def _chunks(file: BinaryIO) -> Iterator[_Chunk]:
    """Yields a xorb's chunks from their headers: version, stored size (3 bytes), compression, size (3 bytes)."""
    end = file.seek(0, 2)
    offset = 0
    while offset + 8 <= end:
        file.seek(offset)
        header = file.read(8)
        if header.startswith(b"XETBLOB"):  # an optional footer
            return
        version, scheme = header[0], header[4]
        stored, size = int.from_bytes(header[1:4], "little"), int.from_bytes(header[5:8], "little")
        if version != 0 or scheme > 2 or size > _LARGEST_CHUNK or offset + 8 + stored > end:
            raise ApiError(400, "malformed xorb")
        yield _Chunk(offset + 8, stored, scheme, size)
        offset += 8 + stored
    if offset != end:
        raise ApiError(400, "malformed xorb")


def check_xorb(path: Path) -> None:
    """Raise ApiError if an upload was cut short or is not a xorb. (Contents are checked by the files' sha256.)"""
    with path.open("rb") as file:
        if not list(_chunks(file)):
            raise ApiError(400, "empty xorb")


def _unpack(data: bytes, chunk: _Chunk) -> bytes:
    if chunk.scheme == 0:
        plain = data
    else:
        import pyarrow as pa

        try:
            plain = pa.decompress(data, decompressed_size=chunk.size, codec="lz4", asbytes=True)
        except (OSError, ValueError) as error:
            raise ApiError(400, "malformed chunk") from error
        if chunk.scheme == 2:
            plain = _ungroup(plain)
    if len(plain) != chunk.size:
        raise ApiError(400, "malformed chunk")
    return plain


def _ungroup(data: bytes) -> bytes:
    """Undo the grouping of every fourth byte, which makes floats compress better."""
    out = bytearray(len(data))
    start = 0
    for lane in range(4):
        length = (len(data) - lane + 3) // 4
        out[lane::4] = data[start : start + length]
        start += length
    return bytes(out)


def read_shard(data: bytes) -> list[File]:
    """Returns the files that a shard lists, from its section of 48-byte records."""
    if len(data) < 48 or not data.startswith(_MAGIC):
        raise ApiError(400, "malformed shard")
    files: list[File] = []
    offset = 48

    def record() -> tuple[bytes, tuple[int, int, int, int]]:
        nonlocal offset
        if offset + 48 > len(data):
            raise ApiError(400, "malformed shard")
        raw = data[offset : offset + 48]
        offset += 48
        return raw[:32], struct.unpack("<4I", raw[32:])

    while True:
        name, (flags, count, _, _) = record()
        if name == _END:
            return files
        segments = []
        for _ in range(count):
            xorb, (_, size, first, last) = record()
            segments.append(Segment(_hex(xorb), size, first, last))
        if flags & _HAS_VERIFICATION:
            for _ in range(count):
                record()
        sha256 = _hex(record()[0]) if flags & _HAS_METADATA else None
        files.append(File(sha256, segments))


def _read(store: Store, segment: Segment, known: dict[str, list[_Chunk]]) -> Iterator[bytes]:
    try:
        with xorb_path(store, segment.xorb).open("rb") as file:
            if segment.xorb not in known:
                known[segment.xorb] = list(_chunks(file))
            chunks = known[segment.xorb][segment.first : segment.last]
            if segment.first >= segment.last or len(chunks) != segment.last - segment.first:
                raise ApiError(400, f"xorb {segment.xorb} has fewer chunks")
            for chunk in chunks:
                file.seek(chunk.offset)
                yield _unpack(file.read(chunk.stored), chunk)
    except FileNotFoundError:
        raise ApiError(400, f"xorb {segment.xorb} was not uploaded") from None


def add_shard(store: Store, data: bytes) -> None:
    """Assemble all files of a shard and store them as objects."""
    for file in read_shard(data):
        if file.sha256 is not None and store.objects.has(file.sha256):
            continue
        if file.size > _LARGEST_FILE:
            raise ApiError(413, "file too large")
        known: dict[str, list[_Chunk]] = {}
        with Upload(store.objects, file.size) as upload:
            for segment in file.segments:
                for part in _read(store, segment, known):
                    upload.write(part)
            upload.keep_object(file.sha256 or upload.sha256, file.size)
