"""Contents on their way in: the routes of LFS and of xet's storage service."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from hubkit.localhub import lfs, xet
from hubkit.localhub.bodies import stream_to
from hubkit.localhub.objects import Upload
from hubkit.localhub.problems import Problem
from hubkit.localhub.web import Call, read_body

__all__ = [
    "lfs_batch", "lfs_complete", "lfs_object", "lfs_part", "lfs_verify", "xet_shard", "xet_token", "xet_unknown",
    "xet_xorb",
]  # fmt: skip

_HOUR: Final = 3600


async def _receive(call: Call, limit: int, done: Callable[[Upload], Any]) -> Any:
    """Stream a body to disk, and hand it on."""
    with Upload(call.store.objects, limit) as upload:
        await stream_to(call.request, upload.write)
        return await run_in_threadpool(done, upload)


def _number(call: Call, key: str) -> int:
    text = call.path[key]
    if not text.isdecimal() or len(text) > 15:
        raise Problem(400, f"not a {key}: {text}")
    return int(text)


# LFS


def lfs_batch(call: Call) -> Response:
    repo = call.contributed_repo()
    token_url = f"{call.endpoint}/api/{repo.kind}s/{repo.name}/xet-write-token/main"
    xet_action = {"href": token_url, "header": _xet_connection(call)}
    answer = lfs.batch(call.store, call.endpoint, call.body, xet_action)
    return JSONResponse(answer, media_type="application/vnd.git-lfs+json")


def lfs_verify(call: Call) -> Response:
    call.contributed_repo()
    size = call.body.get("size")
    call.store.objects.lfs_entry(str(call.body.get("oid")), size if isinstance(size, int) else None)
    return JSONResponse({})


async def lfs_object(call: Call) -> Response:
    oid, size = call.path["oid"], _number(call, "size")
    lfs.check_signature(call.store, f"put|{oid}|{size}", call.path["signature"])
    await _receive(call, size, lambda upload: upload.keep_object(oid, size))
    return Response(headers={"ETag": f'"{oid}"'})


async def lfs_part(call: Call) -> Response:
    name, number, size = call.path["upload"], _number(call, "number"), _number(call, "size")
    lfs.check_signature(call.store, f"part|{name}|{number}|{size}", call.path["signature"])
    with lfs.Part(call.store.objects, name, number, size) as part:
        await stream_to(call.request, part.write)
    return Response(headers={"ETag": f'"{name}-{number}"'})


def lfs_complete(call: Call) -> Response:
    name, oid, size = call.path["upload"], call.path["oid"], _number(call, "size")
    lfs.check_signature(call.store, f"complete|{name}|{oid}|{size}", call.path["signature"])
    lfs.complete(call.store.objects, name, oid, size, call.body)
    return JSONResponse({"success": True})


# xet


def _xet_connection(call: Call) -> dict[str, str]:
    """Where to send contents, and the token for it. They become files only by a commit."""
    token, until = lfs.sign(call.store, "xet", _HOUR)
    # Clients remember for weeks, per address, what they have sent: see gc.
    url = f"{call.endpoint}/xet/{xet.address(call.store)}"
    return {"X-Xet-Cas-Url": url, "X-Xet-Access-Token": token, "X-Xet-Token-Expiration": str(until)}


def xet_token(call: Call) -> Response:
    """The connection, in the two ways that clients read it."""
    call.check_query("create_pr")
    call.contributed_repo()
    headers = _xet_connection(call)
    url, token, until = headers.values()
    return JSONResponse({"casUrl": url, "accessToken": token, "exp": int(until)}, headers=headers)


def _check_xet(call: Call) -> None:
    if call.path["hub"] != xet.address(call.store):
        raise Problem(404, "this storage is not here")
    sent = call.request.headers.get("authorization", "").removeprefix("Bearer ")
    lfs.check_signature(call.store, "xet", sent)


async def xet_xorb(call: Call) -> Response:
    _check_xet(call)
    path = xet.xorb_path(call.store, call.path["hash"])

    def keep(upload: Upload) -> bool:
        if path.exists():
            return False
        upload.keep(path, xet.check_xorb)
        return True

    return JSONResponse({"was_inserted": await _receive(call, xet.LARGEST_XORB, keep)})


async def xet_shard(call: Call) -> Response:
    _check_xet(call)
    data = await read_body(call.request, xet.LARGEST_SHARD)
    await run_in_threadpool(xet.add_shard, call.store, data)
    return JSONResponse({"result": 1})


async def xet_unknown(call: Call) -> Response:
    """404, not 501: it makes clients fall back to the calls above. So does "no copy of this chunk is known"."""
    _check_xet(call)
    return JSONResponse({"error": "not implemented by the local Hub"}, 404)
