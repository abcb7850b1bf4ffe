"""`POST /v1/grade` and `e2h grade`: one result a pair, in order, and clear refusals."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest

from services.cli.grade import read_pairs
from services.core.errors import InvalidRequest
from tests.fakes import FakeGenerator, FakeVerifier
from tests.serving import all_in_one_app

PAIRS = [
    {"gold": "\\frac{1}{2}", "pred": "0.5"},
    {"gold": "10\\text{ cm}", "pred": "10"},
    {"gold": "(1,3)", "pred": "\\{1,3\\}"},
    {"gold": "5", "pred": ""},
]


async def post(body: object) -> httpx2.Response:
    transport = httpx2.ASGITransport(all_in_one_app(FakeGenerator(["x"]), FakeVerifier()))
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.post("/v1/grade", json=body)


@pytest.mark.parametrize(
    ("mode", "equal"),
    [
        pytest.param({}, [True, True, False, False], id="a reference by default"),
        pytest.param({"mode": "reference"}, [True, True, False, False], id="reference"),
        pytest.param({"mode": "voting"}, [True, False, False, False], id="voting"),
    ],
)
async def test_pairs_are_graded_in_order(mode: dict[str, str], equal: list[bool]) -> None:
    response = await post({"pairs": PAIRS, **mode})
    assert response.status_code == 200
    results = response.json()["results"]
    assert [result["equal"] for result in results] == equal
    assert all(set(result) == {"equal", "method", "timed_out"} for result in results)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        pytest.param({"pairs": []}, "empty", id="no pairs"),
        pytest.param({"pairs": [PAIRS[0]] * 1025}, "too_many_items", id="too many pairs"),
        pytest.param({"pairs": [{"gold": "1"}]}, "invalid_body", id="half a pair"),
        pytest.param({"pairs": [{"gold": 1, "pred": "1"}]}, "invalid_body", id="a number for a text"),
        pytest.param({"pairs": PAIRS, "mode": "strict"}, "invalid_body", id="an unknown mode"),
        pytest.param({"pairs": PAIRS, "extra": 1}, None, id="an unknown field"),
    ],
)
async def test_a_body_that_is_none_is_refused_without_an_echo(body: dict[str, Any], code: str | None) -> None:
    response = await post(body)
    assert response.status_code == 422
    assert code is None or response.json()["error"]["code"] == code
    assert "frac" not in response.text


async def test_a_thousand_pairs_fit_one_request() -> None:
    response = await post({"pairs": [{"gold": str(n), "pred": f"{n}.0"} for n in range(1024)]})
    assert [result["equal"] for result in response.json()["results"]] == [True] * 1024


async def test_the_route_is_documented_with_an_example_that_works() -> None:
    transport = httpx2.ASGITransport(all_in_one_app(FakeGenerator(["x"]), FakeVerifier()))
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        document = (await client.get("/openapi.json")).json()
    content = document["paths"]["/v1/grade"]["post"]["requestBody"]["content"]["application/json"]
    response = await post(content["example"])
    assert [result["equal"] for result in response.json()["results"]] == [True, True, False]


@pytest.mark.parametrize(
    ("content", "pairs"),
    [
        pytest.param(b'{"gold": "1", "pred": "2"}\n', [("1", "2")], id="a line"),
        pytest.param(b'{"gold": "1", "pred": "2"}', [("1", "2")], id="without its line feed"),
        pytest.param(b'{"gold": "1", "pred": "2", "id": 7}\r\n', [("1", "2")], id="other fields"),
        pytest.param(b'{"gold": "\\ud800", "pred": ""}\n', [("\ud800", "")], id="a lone surrogate"),
        pytest.param(b"", [], id="nothing"),
    ],
)
def test_lines_are_read_as_pairs(content: bytes, pairs: list[tuple[str, str]]) -> None:
    assert read_pairs(content) == pairs


@pytest.mark.parametrize(
    ("content", "line"),
    [
        pytest.param(b'{"gold": "1", "pred": "1"}\nnonsense\n', 2, id="not JSON"),
        pytest.param(b'{"gold": "1", "pred": "1"}\n\n{"gold": "1", "pred": "1"}\n', 2, id="a blank line"),
        pytest.param(b'{"gold": "1"}\n', 1, id="half a pair"),
        pytest.param(b'{"gold": 1, "pred": "1"}\n', 1, id="a number"),
        pytest.param(b'["1", "1"]\n', 1, id="a list"),
        pytest.param(b'{"gold": "\xff", "pred": "1"}\n', 1, id="not UTF-8"),
        pytest.param(b"[" * 100_000, 1, id="nesting"),
    ],
)
def test_a_line_that_is_no_pair_is_named(content: bytes, line: int) -> None:
    with pytest.raises(InvalidRequest, match=f"line {line} "):
        read_pairs(content)


def grade(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "services.cli.main", "grade", *arguments],
        input=stdin,
        capture_output=True,
        check=False,
        timeout=120,
    )


def test_the_command_prints_a_verdict_a_line_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS * 300), encoding="utf-8")
    done = grade(str(file))
    assert (done.returncode, done.stderr) == (0, b"")
    verdicts = [json.loads(line) for line in done.stdout.splitlines()]
    assert [list(verdict) for verdict in verdicts] == [["equal", "method", "timed_out"]] * len(PAIRS) * 300
    assert [verdict["equal"] for verdict in verdicts] == [True, True, False, False] * 300


def test_the_command_reads_standard_input_and_takes_a_mode() -> None:
    done = grade("-", "--mode", "voting", stdin=json.dumps(PAIRS[1]).encode())
    assert json.loads(done.stdout)["equal"] is False


@pytest.mark.parametrize(
    ("arguments", "stdin", "told"),
    [
        pytest.param(("-",), b'{"gold": "1", "pred": "1"}\nnonsense\n', b"line 2", id="a malformed line"),
        pytest.param(("no-such-file.jsonl",), b"", b"cannot read", id="no file"),
    ],
)
def test_a_bad_file_ends_with_two_and_one_clear_line(arguments: tuple[str, ...], stdin: bytes, told: bytes) -> None:
    done = grade(*arguments, stdin=stdin)
    assert (done.returncode, done.stdout) == (2, b"")
    assert told in done.stderr
    assert b"nonsense" not in done.stderr
