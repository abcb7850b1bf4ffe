"""Class and time budget of a request, from header to header."""

import asyncio
from collections.abc import Mapping

import pytest

from services.core.errors import DeadlineExceeded, InvalidRequest
from services.runtime import context
from services.runtime.budget import MAX_TIMEOUT_MS, budget_headers, read_budget


async def passed_on(**headers: str) -> Mapping[str, str]:
    """The headers of the next hop, in a task of its own."""

    async def hop() -> Mapping[str, str]:
        read_budget((name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items())
        return budget_headers()

    return await asyncio.create_task(hop())


async def test_without_headers_nothing_is_passed_on() -> None:
    assert await passed_on() == {}


async def test_what_is_left_of_the_budget_is_passed_on() -> None:
    left = int((await passed_on(x_request_timeout_ms="5000"))["x-request-timeout-ms"])
    assert 0 < left <= 5000


@pytest.mark.parametrize(
    "value", ["3600001", "1000000000000", "9" * 4000], ids=["just over", "1e12", "thousands of digits"]
)
async def test_a_budget_beyond_the_longest_is_the_longest(value: str) -> None:
    left = int((await passed_on(x_request_timeout_ms=value))["x-request-timeout-ms"])
    assert MAX_TIMEOUT_MS - 60_000 < left <= MAX_TIMEOUT_MS


async def test_the_class_is_passed_on_where_it_is_not_the_default() -> None:
    assert await passed_on(x_priority="batch") == {"x-priority": "batch"}
    assert await passed_on(x_priority="interactive") == {}


async def test_nothing_is_sent_when_nothing_is_left() -> None:
    async def hop() -> None:
        context.set_budget(-0.001)
        with pytest.raises(DeadlineExceeded):
            budget_headers()

    await asyncio.create_task(hop())


BAD = [
    pytest.param("x-request-timeout-ms", value, id=f"budget {value[:9]!r}")
    for value in ("-1", "0", "000", "abc", "", "1.5", "1e3", "\u00b2", "+5")
] + [pytest.param("x-priority", value, id=f"class {value!r}") for value in ("urgent", "", "BATCH")]


@pytest.mark.parametrize(("header", "value"), BAD)
async def test_what_is_no_budget_and_no_class_is_refused(header: str, value: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await passed_on(**{header.replace("-", "_"): value})
    assert refused.value.param == header
