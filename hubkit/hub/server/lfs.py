"""Uploads of large files by the LFS protocol: whole, or in parts when a file is longer than PART.

Clients send no token with the contents themselves (on the real Hub they go to another service), so the
addresses they are given carry a signature that is good for one content and a day.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import shutil
import time
from math import ceil
from pathlib import Path
from typing import Any, Final

from hubkit.hub.server.store import Store, StoreError, Upload

__all__ = [
    "LARGEST_FILE",
    "PART",
    "batch",
    "check_signature",
    "complete",
    "items",
    "parse_json",
    "part_path",
    "sign",
]

PART: Final = 16 << 20
LARGEST_FILE: Final = 1 << 40
_MOST_PARTS: Final = 100_000
_DAY: Final = 86_400


def _key(store: Store) -> bytes:
    return store.meta("signing_key", lambda: secrets.token_hex(32)).encode()


def sign(store: Store, what: str, lifetime: int = _DAY) -> tuple[str, int]:
    """A signature of what it allows and until when: `{time}-{mac}`."""
    until = int(time.time()) + lifetime
    mac = hmac.new(_key(store), f"{what}|{until}".encode(), hashlib.sha256).hexdigest()
    return f"{until}-{mac}", until


def check_signature(store: Store, what: str, signature: str) -> None:
    until, _, mac = signature.partition("-")
    expected = hmac.new(_key(store), f"{what}|{until}".encode(), hashlib.sha256).hexdigest()
    good = hmac.compare_digest(expected.encode(), mac.encode("utf-8", "surrogateescape"))
    if not good or int(until) < time.time():
        raise StoreError(403, "the address of this upload is not valid (any more)")


def part_path(store: Store, upload: str, number: int) -> Path:
    """Where a part waits for the others."""
    if not re.fullmatch(r"[0-9a-f]{32}", upload) or not 1 <= number <= _MOST_PARTS:
        raise StoreError(400, "not a part of an upload")
    return store.folder / "tmp" / f"parts-{upload}" / str(number)


def batch(store: Store, endpoint: str, body: dict[str, Any]) -> dict[str, Any]:
    """Which contents to send where. One without `actions` is here already."""
    if body.get("operation") != "upload":
        raise StoreError(501, "LFS download by git is not implemented; use the resolve addresses")
    answers: list[dict[str, Any]] = []
    transfers = body.get("transfers") or ["basic"]
    for item in items(body, "objects"):
        oid, size = item.get("oid"), item.get("size")
        if not isinstance(oid, str) or not re.fullmatch(r"[0-9a-f]{64}", oid) or not isinstance(size, int):
            raise StoreError(400, "malformed LFS object")
        answer: dict[str, Any] = {"oid": oid, "size": size}
        if not 0 <= size <= LARGEST_FILE:
            answer["error"] = {"code": 422, "message": "size out of range"}
        elif not store.has_object(oid):
            in_parts = size > PART and "multipart" in transfers
            answer["actions"] = {"upload": _address(store, endpoint, oid, size, in_parts)}
        answers.append(answer)
    return {"transfer": "basic", "objects": answers}


def _address(store: Store, endpoint: str, oid: str, size: int, in_parts: bool) -> dict[str, Any]:
    if not in_parts:
        signature, _ = sign(store, f"put|{oid}|{size}")
        return {"href": f"{endpoint}/lfs/object/{oid}/{size}/{signature}"}
    upload = secrets.token_hex(16)
    header = {"chunk_size": str(PART)}
    for number in range(1, ceil(size / PART) + 1):
        signature, _ = sign(store, f"part|{upload}|{number}")
        header[f"{number:05}"] = f"{endpoint}/lfs/part/{upload}/{number}/{signature}"
    signature, _ = sign(store, f"complete|{upload}|{oid}|{size}")
    return {"href": f"{endpoint}/lfs/complete/{upload}/{oid}/{size}/{signature}", "header": header}


def complete(store: Store, upload: str, oid: str, size: int, body: dict[str, Any]) -> None:
    """Join the parts and keep the whole if it is what was announced."""
    if store.has_object(oid):  # the answer of an earlier try was lost
        return
    count = ceil(size / PART)
    if body.get("oid") != oid or len(body.get("parts") or []) != count:
        raise StoreError(400, "parts are missing")
    with Upload(store, size) as whole:
        for number in range(1, count + 1):
            try:
                with part_path(store, upload, number).open("rb") as part:
                    while data := part.read(1 << 20):
                        whole.write(data)
            except FileNotFoundError:
                raise StoreError(400, f"part {number} was not uploaded") from None
        whole.keep_object(oid, size)
    shutil.rmtree(part_path(store, upload, 1).parent, ignore_errors=True)


def items(body: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """A list of JSON objects out of a request's body; none when it is not there."""
    found = body.get(key) or []
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise StoreError(400, f"{key} must be a list of objects")
    return found


def parse_json(data: bytes) -> dict[str, Any]:
    try:
        body = json.loads(data or b"{}")
    except (ValueError, RecursionError):
        raise StoreError(400, "the body is not JSON") from None
    if not isinstance(body, dict):
        raise StoreError(400, "the body is not a JSON object")
    return body
