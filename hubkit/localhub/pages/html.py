"""Pages as HTML: templates, the headers that all pages have, and the pages that belong to no repo."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from hubkit.localhub.api.request import ApiRequest
from hubkit.localhub.storage.errors import ApiError

__all__ = ["error_page", "format_size", "html_page", "login", "repo_link", "style"]

_TEMPLATES: Final = Path(__file__).with_name("templates")
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


@lru_cache(maxsize=1)
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
    )


def html_page(request: ApiRequest, template: str, shown: str, **values: Any) -> Response:
    values |= {"user": request.who.user, "shown": shown}
    text = _environment().get_template(template).render({"search": ""} | values)
    return HTMLResponse(text, headers=_HEADERS)


def style(_: ApiRequest) -> Response:
    text = (_TEMPLATES / "style.css").read_text("utf-8")
    return PlainTextResponse(text, headers=_HEADERS, media_type="text/css")


def login(request: ApiRequest) -> Response:
    """Ask the browser for a token (as the password); it then sends it with every page."""
    if not request.who.user:
        headers = {"WWW-Authenticate": 'Basic realm="the password is a token of this Hub", charset="UTF-8"'}
        return PlainTextResponse("a token is needed\n", 401, headers)
    return RedirectResponse("/", 303)


def error_page(error: ApiError) -> Response:
    template = _environment().get_template("error.html")
    values = {"status": error.status, "message": error.message, "user": "", "shown": "", "search": ""}
    return HTMLResponse(template.render(values), error.status, _HEADERS)


def format_size(number: int) -> str:
    if number < 1000:
        return f"{number} B"
    value = float(number)
    for unit in ("kB", "MB", "GB", "TB"):
        value /= 1000
        if value < 1000 or unit == "TB":
            break
    return f"{value:.1f} {unit}"


def repo_link(kind: str, name: str) -> str:
    return f"/{name}" if kind == "model" else f"/{kind}s/{name}"
