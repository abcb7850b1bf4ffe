"""`/v1/jobs` over a real socket and a real redis: what is taken, what is refused, who sees what, what is told."""

import asyncio
import errno
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from services.core.contracts import ENDED, JobRequest
from services.core.errors import Overloaded
from services.orchestrator.api.jobs import jobs_router
from services.orchestrator.evaluation.items import Item
from services.orchestrator.evaluation.samples import ScoredSample
from services.orchestrator.jobs.execution import Executor
from services.orchestrator.jobs.metrics import JobMetrics
from services.orchestrator.jobs.results import JobFiles, Shelf
from services.orchestrator.jobs.service import Jobs
from services.orchestrator.jobs.settings import JobSettings
from services.orchestrator.jobs.worker import JobWorker
from services.runtime.app import Lifecycle, build_app
from services.runtime.keys import change_keys, new_key
from services.runtime.settings import RuntimeSettings
from tests.fakes import FakeGenerator, FakeVerifier, InlineGrader, solution
from tests.serving import served

ITEMS = [{"id": f"p{i}", "problem": f"What is {i} + 1?", "answer": str(i + 1), "level": 1} for i in range(3)]
BODY: dict[str, Any] = {"dataset": {"items": ITEMS}, "n": 4, "chunk": 2}


@dataclass
class Desk:
    """The routes, and what they stand on."""

    client: httpx2.AsyncClient
    settings: JobSettings
    generator: FakeGenerator
    verifier: FakeVerifier

    async def submit(self, body: Any = BODY, **headers: str) -> httpx2.Response:
        return await self.client.post(
            "/v1/jobs", json=body, headers={k.replace("_", "-"): v for k, v in headers.items()}
        )

    async def look(self, job: str) -> Any:
        return (await self.client.get(f"/v1/jobs/{job}")).json()

    @asynccontextmanager
    async def working(self, shelf: Shelf | None = None) -> AsyncIterator[JobMetrics]:
        """A worker, for the length of the block."""
        metrics = JobMetrics(CollectorRegistry())
        shelf = shelf or Shelf(self.settings.results_url or "")
        executor = Executor(self.generator, self.verifier, InlineGrader(), shelf, self.settings)
        worker = JobWorker(self.settings, executor, metrics)
        await worker.start()
        try:
            yield metrics
        finally:
            await worker.stop()

    async def end_of(self, job: str) -> Any:
        return await self.seen(job, lambda found: found["status"] in ENDED)

    async def seen(self, job: str, wanted: Callable[[Any], bool]) -> Any:
        """The job, once it is as it is wanted."""
        async with asyncio.timeout(60):
            while not wanted(found := await self.look(job)):  # noqa: ASYNC110 - it is on the other side of a socket
                await asyncio.sleep(0.05)
            return found


@asynccontextmanager
async def desk_with(settings: JobSettings, keys: Path | None = None) -> AsyncIterator[Desk]:
    generator = FakeGenerator([solution("1"), solution("2"), "no answer"])
    verifier = FakeVerifier()
    jobs = Jobs(settings, generator, verifier)
    runtime = RuntimeSettings(api_keys_file=keys, drain_timeout_s=1.0)
    app = build_app(
        title="jobs",
        routers=[jobs_router(jobs, keep_alive_s=0.2)],
        bodies=[JobRequest],
        lifecycle=Lifecycle(phase="serving", optional=[jobs.ready]),
        registry=CollectorRegistry(),
        settings=runtime,
    )
    async with served(app, runtime) as address, httpx2.AsyncClient(base_url=address.url, timeout=60) as client:
        yield Desk(client, settings, generator, verifier)
        await jobs.close()


@pytest.fixture
async def desk(redis: Redis, settings: JobSettings) -> AsyncIterator[Desk]:
    async with desk_with(settings) as found:
        yield found


def places(settings: JobSettings) -> list[Path]:
    """What is at the place of results."""
    root = Path(settings.results_url or "")
    return list(root.iterdir()) if root.exists() else []


def refused(response: httpx2.Response, status: int, code: str) -> str:
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (status, code), response.text
    return str(error["message"])


def events_of(text: str) -> list[tuple[str | None, str, Any]]:
    """Id, name and data of each event."""
    found = []
    for block in text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            found.append((fields.get("id"), fields["event"], json.loads(fields["data"])))
    return found


async def test_a_job_is_taken_run_and_read(desk: Desk) -> None:
    response = await desk.submit()
    assert response.status_code == 202
    job = response.json()
    assert (job["status"], job["items_total"], job["items_done"]) == ("queued", 6, 0)
    refused(await desk.client.get(f"/v1/jobs/{job['id']}/results"), 409, "not_finished")
    async with desk.working():
        ended = await desk.end_of(job["id"])
    assert (ended["status"], ended["items_done"], ended["failed"]) == ("completed", 6, 0)
    results = await desk.client.get(f"/v1/jobs/{job['id']}/results")
    assert results.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in results.text.splitlines()]
    assert [line["id"] for line in lines] == ["p0", "p1", "p2"]
    assert [[sample["answer"] for sample in line["samples"]] for line in lines] == [["1", "2", None, "1"]] * 3
    assert [line["samples"][0]["correct"] for line in lines] == [True, False, False]
    assert [job["id"] for job in (await desk.client.get("/v1/jobs")).json()["data"]] == [job["id"]]


async def test_events_are_told_and_told_again_after_the_last_one_seen(desk: Desk) -> None:
    job = (await desk.submit()).json()["id"]
    url = f"/v1/jobs/{job}/events"
    async with desk.working():
        told = events_of((await desk.client.get(url)).text)
    assert told[-1] == (None, "done", {})
    progress = told[:-1]
    assert {name for _, name, _ in progress} == {"progress"}
    assert [data["items_done"] for _, _, data in progress] == [0, 0, 1, 2, 3, 4, 5, 6, 6]
    assert progress[-1][2]["status"] == "completed"
    for place, (seen, _, _) in enumerate(progress):
        again = events_of((await desk.client.get(url, headers={"last-event-id": seen or ""})).text)
        assert again == told[place + 1 :]


@pytest.mark.parametrize(
    "last", [pytest.param(text, id=f"43 {text}") for text in ("", "x", "1-x", "-1", "1-2-3", "9" * 30, "١-0", "*")]
)
async def test_an_event_id_that_is_none_is_refused(desk: Desk, last: str) -> None:
    job = (await desk.submit()).json()["id"]
    headers = httpx2.Headers([(b"last-event-id", last.encode())])
    refused(await desk.client.get(f"/v1/jobs/{job}/events", headers=headers), 400, "invalid_event_id")


async def test_an_event_id_ahead_of_the_stream_starts_at_its_end(desk: Desk) -> None:
    job = (await desk.submit()).json()["id"]
    await desk.client.delete(f"/v1/jobs/{job}")
    ahead = {"last-event-id": "9999999999999999999-0"}
    assert events_of((await desk.client.get(f"/v1/jobs/{job}/events", headers=ahead)).text) == [(None, "done", {})]


async def test_one_key_and_one_body_are_one_job(desk: Desk, redis: Redis) -> None:
    found = await asyncio.gather(*(desk.submit(idempotency_key="once") for _ in range(20)))
    assert sorted(response.status_code for response in found) == [200] * 19 + [202]
    assert len({response.json()["id"] for response in found}) == 1
    assert len(places(desk.settings)) == 1
    refused(await desk.submit({**BODY, "n": 5}, idempotency_key="once"), 422, "idempotency_mismatch")
    async with desk.working():
        await desk.end_of(found[0].json()["id"])
    late = await desk.submit(idempotency_key="once")
    assert (late.status_code, late.json()["status"]) == (200, "completed")
    assert (await desk.submit(idempotency_key="another")).status_code == 202
    assert (await desk.submit()).status_code == 202


@pytest.mark.parametrize("key", [pytest.param("", id="empty"), pytest.param("k" * 256, id="long")])
async def test_a_key_that_is_none_is_refused(desk: Desk, key: str) -> None:
    refused(await desk.submit(idempotency_key=key), 422, "invalid_body")


@pytest.mark.parametrize(
    "job",
    [
        pytest.param("*", id="42 a glob"),
        pytest.param("job-*", id="42 a glob behind the prefix"),
        pytest.param("job-" + "0" * 32, id="42 one that nobody has"),
        pytest.param("' OR 1=1 --", id="42 SQL"),
        pytest.param("..%2f..%2fetc", id="42 a path"),
        pytest.param("j" * 10_240, id="42 ten thousand characters"),
        pytest.param("job-" + "0" * 32 + "%0a", id="42 a line end"),
    ],
)
@pytest.mark.parametrize("below", ["", "/events", "/results"])
async def test_an_id_that_is_none_is_not_found(desk: Desk, job: str, below: str) -> None:
    refused(await desk.client.get(f"/v1/jobs/{job}{below}"), 404, "not_found")


async def test_another_tenants_job_is_no_job(redis: Redis, settings: JobSettings, tmp_path: Path) -> None:
    keys = {name: new_key(name, ["jobs"]) for name in ("mine", "theirs")}
    score_only = new_key("mine", ["score"])
    file = tmp_path / "keys.json"
    change_keys(file, lambda present: (*present, *(record for _, record in keys.values()), score_only[1]))
    async with desk_with(settings, file) as desk:
        mine, theirs = ({"authorization": f"Bearer {keys[name][0]}"} for name in ("mine", "theirs"))
        job = (await desk.client.post("/v1/jobs", json=BODY, headers=mine)).json()["id"]
        none = "job-" + "0" * 32
        for method, below in (("GET", ""), ("DELETE", ""), ("GET", "/events"), ("GET", "/results")):
            other = await desk.client.request(method, f"/v1/jobs/{job}{below}", headers=theirs)
            nobody = await desk.client.request(method, f"/v1/jobs/{none}{below}", headers=theirs)
            assert refused(other, 404, "not_found") == refused(nobody, 404, "not_found")
        assert (await desk.client.get("/v1/jobs", headers=theirs)).json()["data"] == []
        assert (await desk.client.get(f"/v1/jobs/{job}", headers=mine)).json()["status"] == "queued"
        # The same key of another tenant is another key.
        for headers in (mine, theirs):
            again = await desk.client.post("/v1/jobs", json=BODY, headers={**headers, "idempotency-key": "k"})
            assert again.status_code == 202
        refused(
            await desk.client.get("/v1/jobs", headers={"authorization": f"Bearer {score_only[0]}"}), 403, "forbidden"
        )


def body_of(dataset: Any, **fields: Any) -> dict[str, Any]:
    return {**BODY, "dataset": dataset, **fields}


@pytest.mark.parametrize(
    ("body", "status", "code", "says"),
    [
        pytest.param(body_of({"items": [*ITEMS, ITEMS[0]]}), 422, "duplicate_id", "item 4", id="40 an id twice"),
        pytest.param(body_of({"items": []}), 422, "empty", "", id="40 no items"),
        pytest.param(body_of({"items": [ITEMS[0], {"id": "x"}]}), 422, "invalid_body", "items.1", id="40 one is none"),
        pytest.param(body_of({"path": "mixed.jsonl"}), 422, "invalid_json", "line 2", id="40 a line that is no JSON"),
        pytest.param(body_of({"path": "twice.jsonl"}), 422, "duplicate_id", "line 2", id="40 a line twice"),
        pytest.param(body_of({"path": "missing.jsonl"}), 422, "path_not_allowed", "", id="no such file"),
        pytest.param(body_of({"path": "/etc/passwd"}), 422, "path_not_allowed", "", id="an absolute path"),
        pytest.param(body_of({"path": "../outside.jsonl"}), 422, "path_not_allowed", "", id="a path that leaves"),
        pytest.param(body_of({"path": "link.jsonl"}), 422, "path_not_allowed", "", id="a link that leaves"),
        pytest.param(body_of({"path": "s3://b/x.jsonl"}), 422, "path_not_allowed", "", id="33 a URL"),
        pytest.param(body_of({"path": "http://169.254.169.254/x.jsonl"}), 422, "path_not_allowed", "", id="33 http"),
        pytest.param(body_of({"name": "someone/something"}), 422, "dataset_not_allowed", "", id="a set of the hub"),
        pytest.param(body_of({"name": "lab", "path": "x"}), 422, "invalid_body", "one of", id="two sources"),
        pytest.param(
            body_of({"items": ITEMS}, webhook_url="http://redis:6379"), 422, "invalid_body", "", id="33 a hook"
        ),
        pytest.param(body_of({"items": ITEMS}, n=0), 422, "invalid_body", "n:", id="26 n of 0"),
        pytest.param(body_of({"items": ITEMS}, n=1025), 422, "invalid_body", "n:", id="26 n of 1025"),
        pytest.param(body_of({"items": ITEMS}, n=1024, chunk=1), 422, "too_many_items", "3072", id="too much work"),
        pytest.param(
            body_of({"items": ITEMS}, sampling={"temperature": 0.0}), 422, "identical_samples", "", id="27 all the same"
        ),
        pytest.param(body_of({"items": ITEMS}, sampling={"seed": 1}), 422, "invalid_body", "one seed", id="two seeds"),
        pytest.param(body_of({"items": ITEMS}, strategies=["x"]), 422, "invalid_body", "", id="28 no such strategy"),
    ],
)
async def test_what_is_no_job_is_refused_whole(
    redis: Redis, settings: JobSettings, tmp_path: Path, body: Any, status: int, code: str, says: str
) -> None:
    directory = tmp_path / "data"
    directory.mkdir()
    (tmp_path / "outside.jsonl").write_text(json.dumps(ITEMS[0]))
    (directory / "link.jsonl").symlink_to(tmp_path / "outside.jsonl")
    (directory / "mixed.jsonl").write_text(json.dumps(ITEMS[0]) + "\n{nonsense\n" + json.dumps(ITEMS[1]))
    (directory / "twice.jsonl").write_text(json.dumps(ITEMS[0]) + "\n" + json.dumps(ITEMS[0]))
    async with desk_with(settings.model_copy(update={"data_dir": directory, "max_items": 100})) as desk:
        message = refused(await desk.submit(body), status, code)
    assert says in message
    assert "passwd" not in message
    assert await redis.keys("*") == []
    assert places(settings) == []


async def test_a_million_items_are_too_large_a_body(desk: Desk) -> None:
    url = desk.client.base_url
    reader, writer = await asyncio.open_connection(url.host, url.port)
    head = "POST /v1/jobs HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ncontent-length: 25000000\r\n\r\n"
    writer.write(head.encode())
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"body_too_large"' in answer


async def test_more_problems_than_a_data_set_may_have_are_refused(desk: Desk) -> None:
    items = [{"id": str(i), "problem": "y"} for i in range(100_001)]
    refused(await desk.submit(body_of({"items": items})), 422, "too_many_items")


async def test_a_file_below_the_directory_of_data_sets_is_read(
    redis: Redis, settings: JobSettings, tmp_path: Path
) -> None:
    (tmp_path / "sums.jsonl").write_text("\n".join(json.dumps(item) for item in ITEMS))
    async with desk_with(settings.model_copy(update={"data_dir": tmp_path})) as desk:
        taken = await desk.submit(body_of({"path": "sums.jsonl", "limit": 2}))
        assert taken.json()["items_total"] == 4
        assert (await desk.submit(body_of({"name": "lab", "limit": 3}))).status_code == 202


async def test_without_redis_there_are_no_jobs_and_the_rest_stands(tmp_path: Path) -> None:
    async with desk_with(JobSettings()) as desk:
        assert "E2H_JOBS_REDIS_URL" in refused(await desk.submit(), 503, "not_ready")
        assert (await desk.client.get("/ready")).json() == {"status": "ready", "reason": None, "degraded": []}
    away = JobSettings.model_validate({"redis_url": "redis://127.0.0.1:1/0", "results_url": str(tmp_path)})
    async with desk_with(away) as desk:
        response = await desk.submit()
        refused(response, 503, "upstream_unavailable")
        assert response.headers["retry-after"]
        assert (await desk.client.get("/ready")).json()["degraded"] == ["redis:down"]


async def test_a_place_of_results_that_cannot_be_written_takes_no_job(redis: Redis, settings: JobSettings) -> None:
    async with desk_with(settings.model_copy(update={"results_url": "/dev/full"})) as desk:
        assert (await desk.submit()).status_code == 503
    assert await redis.keys("*") == []


async def test_a_busy_engine_is_asked_again(desk: Desk) -> None:
    job = (await desk.submit()).json()["id"]
    desk.generator.failure = Overloaded("too much", retry_after_s=0.05)
    async with desk.working():
        await desk.seen(job, lambda found: found["retried"] >= 20)
        desk.generator.failure = None
        ended = await desk.end_of(job)
    assert (ended["status"], ended["items_done"], ended["failed"]) == ("completed", 6, 0)


async def test_other_models_than_the_job_was_submitted_for_end_it(desk: Desk) -> None:
    job = (await desk.submit()).json()["id"]
    manifest = Path(desk.settings.results_url or "") / job / "manifest.json"
    manifest.write_text(manifest.read_text().replace("fake-generator", "another"))
    async with desk.working():
        ended = await desk.end_of(job)
    assert (ended["status"], ended["error"]["code"]) == ("failed", "model_mismatch")


async def test_results_that_are_gone_end_the_job(desk: Desk) -> None:
    job = (await desk.submit()).json()["id"]
    (place,) = places(desk.settings)
    place.rename(place.with_name("elsewhere"))
    async with desk.working():
        ended = await desk.end_of(job)
    assert (ended["status"], ended["error"]["code"]) == ("failed", "not_found")


class FullShelf(Shelf):
    """A place of results where no part can be written."""

    def __init__(self, url: str, fault: int) -> None:
        super().__init__(url)
        self._fault = fault

    async def files(self, job: str) -> JobFiles:
        found = await super().files(job)
        return _FullFiles(found.store, found.manifest, found.problems, self._fault)


@dataclass(frozen=True)
class _FullFiles(JobFiles):
    fault: int = 0

    async def write(self, item: Item, samples: Sequence[ScoredSample], token: str) -> None:
        raise OSError(self.fault, "no")


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        pytest.param(errno.ENOSPC, "failed", "storage_full", id="22 a full place ends the job"),
        pytest.param(errno.EIO, "completed_with_errors", "storage", id="a fault that may pass is tried again, thrice"),
    ],
)
async def test_a_place_of_results_that_fails(desk: Desk, fault: int, status: str, code: str) -> None:
    job = (await desk.submit()).json()["id"]
    async with desk.working(FullShelf(desk.settings.results_url or "", fault)):
        ended = await desk.end_of(job)
    assert ended["status"] == status
    told = ended["errors"] or [ended["error"]]
    assert {error["code"] for error in told} == {code}
    again = (await desk.submit()).json()["id"]
    async with desk.working():
        assert (await desk.end_of(again))["status"] == "completed"


async def test_a_job_is_cancelled_once(desk: Desk) -> None:
    job = (await desk.submit()).json()["id"]
    for _ in range(2):
        assert (await desk.client.delete(f"/v1/jobs/{job}")).json()["status"] == "cancelled"
    assert places(desk.settings) == []
    refused(await desk.client.get(f"/v1/jobs/{job}/results"), 409, "not_finished")
