"""Uploads of large files by the LFS protocol: whole, or in parts when a file is longer than PART.

Clients send no token with the contents themselves (on the real Hub they go to another service), so the
addresses they are given carry a signature that is good for one content and a day.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import time
from math import ceil
from pathlib import Path
from typing import Any, BinaryIO, Final

from hubkit.localhub.api.request import items
from hubkit.localhub.storage.errors import ApiError
from hubkit.localhub.storage.objects import Objects, sync_folder
from hubkit.localhub.storage.store import Store

__all__ = ["LARGEST_FILE", "PART", "Part", "batch", "check_signature", "complete", "sign"]

PART: Final = 16 << 20
LARGEST_FILE: Final = 1 << 40
_DAY: Final = 86_400


def _key(store: Store) -> bytes:
    return store.meta("signing_key", lambda: secrets.token_hex(32)).encode()


def sign(store: Store, what: str, lifetime: int = _DAY) -> tuple[str, int]:
    """Returns a signature `{time}-{mac}` of what an upload address allows and until when, and that time."""
    until = int(time.time()) + lifetime
    mac = hmac.new(_key(store), f"{what}|{until}".encode(), hashlib.sha256).hexdigest()
    return f"{until}-{mac}", until


def check_signature(store: Store, what: str, signature: str) -> None:
    until, _, mac = signature.partition("-")
    expected = hmac.new(_key(store), f"{what}|{until}".encode(), hashlib.sha256).hexdigest()
    good = hmac.compare_digest(expected.encode(), mac.encode("utf-8", "surrogateescape"))
    if not good or int(until) < time.time():  # good before int: what is signed here is a number
        raise ApiError(403, "the address of this upload is not valid (any more)")


class Part:
    """Write a part of a large file to its position in the whole. All parts but the last have PART bytes."""

    def __init__(self, objects: Objects, upload: str, number: int, size: int) -> None:
        self._left = size
        self._file: BinaryIO = os.fdopen(
            os.open(_path(objects, upload), os.O_WRONLY | os.O_CREAT, 0o600), "wb"
        )
        self._file.seek((number - 1) * PART)

    def write(self, data: bytes | memoryview) -> None:
        self._left -= len(data)
        if self._left < 0:
            raise ApiError(413, "more bytes than this part has")
        self._file.write(data)

    def __enter__(self) -> Part:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._file.close()
        if kind is None and self._left:
            raise ApiError(400, "fewer bytes than this part has")


def _path(objects: Objects, upload: str) -> Path:
    """The file that collects the parts of an upload."""
    return objects.temporary().with_name(f"parts-{upload}")


def batch(store: Store, endpoint: str, body: dict[str, Any], xet: dict[str, Any]) -> dict[str, Any]:
    """Answer which contents to send where. A content without `actions` is here already.

    xet: the action for clients that ask here whether they may upload by xet, as JavaScript's does.
    """
    if body.get("operation") != "upload":
        raise ApiError(501, "LFS download by git is not implemented; use the resolve addresses")
    answers: list[dict[str, Any]] = []
    transfers = body.get("transfers") or ["basic"]
    by_xet = "xet" in transfers
    for item in items(body, "objects"):
        oid, size = item.get("oid"), item.get("size")
        if not isinstance(oid, str) or not re.fullmatch(r"[0-9a-f]{64}", oid) or not isinstance(size, int):
            raise ApiError(400, "malformed LFS object")
        answer: dict[str, Any] = {"oid": oid, "size": size}
        if not 0 <= size <= LARGEST_FILE:
            answer["error"] = {"code": 422, "message": "size out of range"}
        elif not store.objects.has(oid):
            in_parts = size > PART and "multipart" in transfers
            action = xet if by_xet else _address(store, endpoint, oid, size, in_parts)
            answer["actions"] = {"upload": action}
        answers.append(answer)
    return {"transfer": "xet" if by_xet else "basic", "objects": answers}


def _address(store: Store, endpoint: str, oid: str, size: int, in_parts: bool) -> dict[str, Any]:
    if not in_parts:
        signature, _ = sign(store, f"put|{oid}|{size}")
        return {"href": f"{endpoint}/lfs/object/{oid}/{size}/{signature}"}
    upload = secrets.token_hex(16)
    header = {"chunk_size": str(PART)}
    for number in range(1, ceil(size / PART) + 1):
        length = min(PART, size - (number - 1) * PART)
        signature, _ = sign(store, f"part|{upload}|{number}|{length}")
        header[f"{number:05}"] = f"{endpoint}/lfs/part/{upload}/{number}/{length}/{signature}"
    signature, _ = sign(store, f"complete|{upload}|{oid}|{size}")
    return {"href": f"{endpoint}/lfs/complete/{upload}/{oid}/{size}/{signature}", "header": header}


def complete(objects: Objects, upload: str, oid: str, size: int, body: dict[str, Any]) -> None:
    """Keep the whole file if it is as announced. A missing part is a hole, and does not match."""
    if objects.has(oid):  # the answer of an earlier try was lost
        return
    if body.get("oid") != oid or len(items(body, "parts")) != ceil(size / PART):
        raise ApiError(400, "parts are missing")
    path = _path(objects, upload)
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest != oid or os.fstat(file.fileno()).st_size != size:
                raise ApiError(400, f"the parts do not make up sha256 {oid} and size {size}", "HashMismatch")
            os.fsync(file.fileno())
    except FileNotFoundError:
        raise ApiError(400, "no part was uploaded") from None
    final = objects.path(oid)
    final.parent.mkdir(exist_ok=True)
    path.replace(final)
    sync_folder(final.parent)
    sync_folder(final.parent.parent)
