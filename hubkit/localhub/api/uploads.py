"""Contents on their way in: the routes of LFS and of xet's storage service."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from hubkit.localhub.api import lfs
from hubkit.localhub.api.bodies import stream_to
from hubkit.localhub.api.request import ApiRequest, read_body
from hubkit.localhub.storage import xet
from hubkit.localhub.storage.errors import ApiError
from hubkit.localhub.storage.objects import Upload

__all__ = [
    "lfs_batch", "lfs_complete", "lfs_object", "lfs_part", "lfs_verify", "xet_shard", "xet_token", "xet_unknown",
    "xet_xorb",
]  # fmt: skip

_HOUR: Final = 3600


async def _receive(request: ApiRequest, limit: int, done: Callable[[Upload], Any]) -> Any:
    """Stream a body to a file, and return what `done` makes of it."""
    with Upload(request.store.objects, limit) as upload:
        await stream_to(request.http, upload.write)
        return await run_in_threadpool(done, upload)


def _number(request: ApiRequest, key: str) -> int:
    text = request.path[key]
    if not text.isdecimal() or len(text) > 15:
        raise ApiError(400, f"not a {key}: {text}")
    return int(text)


# LFS


def lfs_batch(request: ApiRequest) -> Response:
    repo = request.contributed_repo()
    token_url = f"{request.endpoint}/api/{repo.kind}s/{repo.name}/xet-write-token/main"
    xet_action = {"href": token_url, "header": _xet_connection(request)}
    answer = lfs.batch(request.store, request.endpoint, request.body, xet_action)
    return JSONResponse(answer, media_type="application/vnd.git-lfs+json")


def lfs_verify(request: ApiRequest) -> Response:
    request.contributed_repo()
    size = request.body.get("size")
    request.store.objects.lfs_entry(str(request.body.get("oid")), size if isinstance(size, int) else None)
    return JSONResponse({})


async def lfs_object(request: ApiRequest) -> Response:
    oid, size = request.path["oid"], _number(request, "size")
    lfs.check_signature(request.store, f"put|{oid}|{size}", request.path["signature"])
    await _receive(request, size, lambda upload: upload.keep_object(oid, size))
    return Response(headers={"ETag": f'"{oid}"'})


async def lfs_part(request: ApiRequest) -> Response:
    name, number, size = request.path["upload"], _number(request, "number"), _number(request, "size")
    lfs.check_signature(request.store, f"part|{name}|{number}|{size}", request.path["signature"])
    with lfs.Part(request.store.objects, name, number, size) as part:
        await stream_to(request.http, part.write)
    return Response(headers={"ETag": f'"{name}-{number}"'})


def lfs_complete(request: ApiRequest) -> Response:
    name, oid, size = request.path["upload"], request.path["oid"], _number(request, "size")
    lfs.check_signature(request.store, f"complete|{name}|{oid}|{size}", request.path["signature"])
    lfs.complete(request.store.objects, name, oid, size, request.body)
    return JSONResponse({"success": True})


# xet


def _xet_connection(request: ApiRequest) -> dict[str, str]:
    """The address that xet clients upload to, and the token for it. Uploads become files only by a commit."""
    token, until = lfs.sign(request.store, "xet", _HOUR)
    # Clients remember for weeks, per address, what they have sent: see gc.
    url = f"{request.endpoint}/xet/{xet.address(request.store)}"
    return {"X-Xet-Cas-Url": url, "X-Xet-Access-Token": token, "X-Xet-Token-Expiration": str(until)}


def xet_token(request: ApiRequest) -> Response:
    """Answer with the xet connection, in headers and in JSON: clients read either."""
    request.check_query("create_pr")
    request.contributed_repo()
    headers = _xet_connection(request)
    url, token, until = headers.values()
    return JSONResponse({"casUrl": url, "accessToken": token, "exp": int(until)}, headers=headers)


def _check_xet(request: ApiRequest) -> None:
    if request.path["hub"] != xet.address(request.store):
        raise ApiError(404, "this storage is not here")
    sent = request.http.headers.get("authorization", "").removeprefix("Bearer ")
    lfs.check_signature(request.store, "xet", sent)


async def xet_xorb(request: ApiRequest) -> Response:
    _check_xet(request)
    path = xet.xorb_path(request.store, request.path["hash"])

    def keep(upload: Upload) -> bool:
        if path.exists():
            return False
        upload.keep(path, xet.check_xorb)
        return True

    return JSONResponse({"was_inserted": await _receive(request, xet.LARGEST_XORB, keep)})


async def xet_shard(request: ApiRequest) -> Response:
    _check_xet(request)
    data = await read_body(request.http, xet.LARGEST_SHARD)
    await run_in_threadpool(xet.add_shard, request.store, data)
    return JSONResponse({"result": 1})


async def xet_unknown(request: ApiRequest) -> Response:
    """404, not 501: it makes clients fall back to the calls above. So does "no copy of this chunk is known"."""
    _check_xet(request)
    return JSONResponse({"error": "not implemented by the local Hub"}, 404)
