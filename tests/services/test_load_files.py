"""`deploy/load`: the requests that locust and k6 would send, without locust and k6, which are no dependencies."""

import json
import runpy
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from services.core.contracts import ScoreRequest

ROOT = Path(__file__).parents[2]
LOAD = ROOT / "deploy" / "load"


class _HttpUser:
    """As locust's: `client` is set by the test."""

    client: Any


def _locust() -> types.ModuleType:
    fake = types.ModuleType("locust")
    vars(fake).update(HttpUser=_HttpUser, task=lambda function: function, constant=lambda seconds: seconds)
    return fake


@pytest.fixture
def locustfile(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setitem(sys.modules, "locust", _locust())
    return runpy.run_path(str(LOAD / "locustfile.py"))


def test_the_locustfile_makes_valid_requests_that_never_repeat(locustfile: dict[str, Any]) -> None:
    bodies = [json.dumps(locustfile["body"](number)) for number in range(200)]
    requests = [ScoreRequest.model_validate_json(body) for body in bodies]
    assert {len(request.solutions) for request in requests} == {8}
    assert len({request.problem for request in requests}) == 200


def test_the_locustfile_posts_them_with_the_key_and_calls_429_a_failure(
    locustfile: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("E2H_API_KEY", "k")
    posted: list[tuple[str, dict[str, Any]]] = []
    failures: list[str] = []

    class Answer:
        status_code = 429

        def __enter__(self) -> "Answer":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def failure(self, why: str) -> None:
            failures.append(why)

    def post(path: str, **options: Any) -> Answer:
        posted.append((path, options))
        return Answer()

    caller = locustfile["Caller"]()
    caller.client = types.SimpleNamespace(post=post)
    caller.score()
    ((path, options),) = posted
    assert path == "/v1/score"
    assert options["headers"] == {"authorization": "Bearer k"}
    ScoreRequest.model_validate_json(json.dumps(options["json"]))
    assert failures == ["429: full"]


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node, which reads k6's language")
def test_the_k6_script_sends_valid_requests(tmp_path: Path) -> None:
    """Run by node with stand-ins for k6's modules."""
    script = (LOAD / "verifier.js").read_text()
    lines = [line for line in script.splitlines() if not line.startswith("import ")]
    text = "\n".join(lines).replace("export default function", "function iterate").replace("export ", "")
    stub = f"""
const fs = require('fs');
const __ENV = {{ E2H_API_KEY: 'k', URL: 'http://h:1' }};
const open = (path) => fs.readFileSync(require('path').resolve({json.dumps(str(LOAD))}, path), 'utf8');
const sent = [];
const http = {{ post: (url, body, options) => {{
  sent.push({{ url, body, headers: options.headers }});
  return {{ status: 200, timings: {{ duration: 5 }}, headers: {{ 'X-Queue-Ms': '1.5' }} }};
}} }};
let number = 0;
const exec = {{ scenario: {{ get iterationInTest() {{ return number++; }} }} }};
const seen = {{}};
class Rate {{ constructor(name) {{ this.name = name; }} add(value) {{ (seen[this.name] ??= []).push(value); }} }}
const Trend = Rate;
const check = (answer, checks) => {{
  for (const one of Object.values(checks)) if (!one(answer)) throw new Error('check');
}};
"""
    end = "const data = setup(); iterate(data); iterate(data); console.log(JSON.stringify({ sent, seen, options }));"
    (tmp_path / "k6.cjs").write_text(stub + text + "\n" + end)
    done = subprocess.run(["node", str(tmp_path / "k6.cjs")], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    problems = {ScoreRequest.model_validate_json(one["body"]).problem for one in told["sent"]}
    assert len(problems) == 2
    assert {one["url"] for one in told["sent"]} == {"http://h:1/v1/score"}
    assert {one["headers"]["authorization"] for one in told["sent"]} == {"Bearer k"}
    assert told["seen"] == {"good": [True, True], "queue": [1.5, 1.5]}
    assert told["options"]["scenarios"]["open"]["executor"] == "constant-arrival-rate"
