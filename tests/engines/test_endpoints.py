from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

from hypothesis import given
from hypothesis import strategies as st

from hubkit.engines.endpoints import Endpoint, Endpoints, wished_pause

ADDRESS = "http://127.0.0.1:1/v1"


def opened(endpoint: Endpoint, now: float, tokens: int = 10) -> bool:
    at = endpoint.opens_at(now, tokens)
    return at is not None and at <= now


def test_the_window_halves_once_for_all_that_were_under_way_and_opens_with_answers() -> None:
    endpoint = Endpoint(ADDRESS, 16)
    for _ in range(16):
        assert opened(endpoint, 1.0)
        endpoint.begin(10)
    assert endpoint.opens_at(1.0, 10) is None
    for _ in range(16):
        endpoint.end(10)
        endpoint.overloaded(2.0, sent_at=1.0, pause=None)
    for number in range(8):
        assert opened(endpoint, 2.0), number
        endpoint.begin(10)
    assert endpoint.opens_at(2.0, 10) is None
    for _ in range(9):
        endpoint.answered()
    assert opened(endpoint, 3.0), "a window of answers opens it by about one"
    for _ in range(2000):
        endpoint.answered()
    for number in range(8):
        assert opened(endpoint, 3.0), number
        endpoint.begin(10)
    assert endpoint.opens_at(3.0, 10) is None


def test_limits_that_a_server_tells_are_kept_to_beforehand() -> None:
    endpoint = Endpoint(ADDRESS, 16)
    endpoint.heard(5.0, {"x-ratelimit-remaining-requests": "2", "x-ratelimit-reset-requests": "6s"})
    for _ in range(2):
        assert opened(endpoint, 5.0)
        endpoint.begin(10)
    assert endpoint.opens_at(5.0, 10) == 11.0
    assert opened(endpoint, 11.0)
    endpoint.heard(12.0, {"x-ratelimit-remaining-tokens": "15", "x-ratelimit-reset-tokens": "1m0s"})
    assert endpoint.opens_at(12.0, 16) == 72.0 and opened(endpoint, 12.0, 15)
    endpoint.begin(10)
    assert endpoint.opens_at(12.0, 6) == 72.0
    endpoint.heard(12.0, {"x-ratelimit-remaining-tokens": "-1", "x-ratelimit-reset-tokens": "soon"})
    endpoint.heard(12.0, {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "9999h"})
    assert (at := endpoint.opens_at(12.0, 1)) is not None and at <= 72.0


@given(st.text(), st.text(), st.text())
def test_no_header_is_too_strange(remaining: str, reset: str, after: str) -> None:
    endpoint = Endpoint(ADDRESS, 4)
    endpoint.heard(0.0, {"x-ratelimit-remaining-tokens": remaining, "x-ratelimit-reset-tokens": reset})
    at = endpoint.opens_at(0.0, 1)
    assert at is not None and at <= 60
    assert (wished_pause({"Retry-After": after, "Date": remaining}) or 1) > 0


def test_a_date_to_wait_for_is_read_against_the_servers_clock() -> None:
    there = datetime(2001, 1, 1, tzinfo=UTC)
    headers = {
        "Date": format_datetime(there, usegmt=True),
        "Retry-After": format_datetime(there + timedelta(seconds=90), usegmt=True),
    }
    assert wished_pause(headers) == 90
    assert wished_pause({"Retry-After": "7"}) == 7 and wished_pause({"Retry-After": "0"}) is None


def test_load_goes_where_the_fewest_tokens_are_outstanding() -> None:
    async def share() -> list[int]:
        endpoints = Endpoints([ADDRESS, ADDRESS], 100)
        # A long request and ten short ones: those go to the other server until it has as much to do.
        taken = [await endpoints.take(tokens) for tokens in [1000, *[100] * 10]]
        return [endpoints.all.index(endpoint) for endpoint in taken]

    assert asyncio.run(share()) == [0] + [1] * 10


def test_places_are_given_in_turn() -> None:
    async def run() -> list[int]:
        endpoints, order = Endpoints([ADDRESS], 3), []

        async def ask(number: int) -> None:
            endpoint = await endpoints.take(1)
            await asyncio.sleep(0)
            order.append(number)
            endpoints.give_back(endpoint, 1)

        await asyncio.gather(*(ask(number) for number in range(50)))
        return order

    assert asyncio.run(run()) == list(range(50))
