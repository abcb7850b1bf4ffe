"""Taking jobs: read the data set, keep its problems at the results place, then the state in redis.

The problems are written first: a job that redis knows can be run, and one that redis refuses leaves nothing.
"""

import asyncio
import contextlib
import hashlib
import secrets
from collections.abc import AsyncGenerator, Iterator, Sequence
from pathlib import Path

from services.core.contracts import (
    EvaluationProblem,
    Job,
    JobRequest,
    JobResult,
    JobSample,
    Manifest,
    ServedVerifier,
)
from services.core.errors import (
    E2HError,
    IdempotencyMismatch,
    NotFinished,
    NotFound,
    NotReady,
    StorageFull,
    TooManyItems,
    UpstreamUnavailable,
)
from services.core.ports import Generator, Verifier
from services.orchestrator.evaluation.findings import Report
from services.orchestrator.evaluation.items import digest_of, items_a_problem
from services.orchestrator.evaluation.sources import load_problems, shown_name
from services.orchestrator.evaluation.store import ResultsStore, SampledProblem
from services.orchestrator.jobs.checks import allowed, checked_event_id, event_order
from services.orchestrator.jobs.fields import NewJob
from services.orchestrator.jobs.leavings import Leavings
from services.orchestrator.jobs.results import discard, no_room, place_of
from services.orchestrator.jobs.settings import JobSettings
from services.orchestrator.jobs.store import Event, JobStore
from services.runtime.redis import connect

_WITH_RESULTS = frozenset({"completed", "completed_with_errors"})
_POLL_S = 0.5
_READ_WITHIN_S = 120.0  # a data set of the hub is downloaded the first time


class Jobs:
    """The jobs of all tenants, as one orchestrator takes and shows them."""

    def __init__(
        self, settings: JobSettings, generator: Generator, verifier: Verifier, copies: Path | None = None
    ) -> None:
        """`copies` is a directory with built-in data sets, which are then not asked of the hub."""
        self._settings = settings
        self._generator = generator
        self._verifier = verifier
        self._copies = copies
        self._store: JobStore | None = None
        self._leavings: Leavings | None = None
        if settings.redis_url is not None:
            redis = connect(settings.redis_url, timeout_s=settings.redis_timeout_s)
            self._store, self._leavings = JobStore(redis, settings), Leavings(redis, settings)

    async def ready(self) -> str | None:
        """What keeps jobs from being taken, or from outliving redis; None also where they are not asked for."""
        if self._store is None:
            return None
        try:
            refusal = await self._store.trouble()
        except UpstreamUnavailable:
            return "redis:down"
        if refusal is not None:
            return f"redis:refused ({refusal[0]})"
        return "redis:not_durable (no append-only file)" if self._store.durable is False else None

    async def submit(self, request: JobRequest, tenant: str, key: str | None) -> tuple[Job, bool]:
        """The job, and whether it is new: an earlier submit with the same `key` and body stands for this one.

        Raises `InvalidRequest` (`idempotency_mismatch` for the key of another body), `NotReady`, `StorageFull` or
        `UpstreamUnavailable`; nothing of the job is then kept.
        """
        store = self._kept()
        digest = hashlib.sha256(request.model_dump_json().encode()).hexdigest()
        earlier = await store.known(tenant, key)
        if earlier is None:
            refusal = await store.trouble()
            if refusal is not None:
                raise NotReady(refusal[0])
            job = await self._new(request, tenant)
            earlier = await self._keep(job, key, digest)
            if earlier is None:
                return await store.get(tenant, job.id), True
        known_digest, known_job = earlier
        if known_digest != digest:
            raise IdempotencyMismatch("this key came with another body before", param="Idempotency-Key")
        return await store.get(tenant, known_job), False

    async def get(self, tenant: str, job: str) -> Job:
        """How a job stands. Raises `NotFound`."""
        return await self._kept().get(tenant, job)

    async def newest(self, tenant: str) -> list[Job]:
        """The newest hundred of a tenant's jobs, newest first."""
        return await self._kept().newest(tenant)

    async def cancel(self, tenant: str, job: str) -> Job:
        """End a job, and say how it stands. One that has ended stays as it is. Raises `NotFound`."""
        store = self._kept()
        found = await store.get(tenant, job)
        await store.cancel(job)
        # What workers have written may be much, and is theirs to remove; where none has begun, there may be none.
        if found.status == "queued" and self._leavings is not None:
            await self._leavings.remove(job)
        return await store.get(tenant, job)

    async def events(self, tenant: str, job: str, last_id: str | None) -> AsyncGenerator[Event, None]:
        """What happens, from the event after `last_id` (from the beginning without one) to the end of the job.

        An id that lies ahead of the stream starts at its end. Raises `NotFound`, `InvalidEventId`.
        """
        store = self._kept()
        after = "0-0" if last_id is None else checked_event_id(last_id)
        await store.get(tenant, job)
        newest = await store.newest_event(job)
        if newest is not None and event_order(after) > event_order(newest):
            after = newest
        while True:
            # Asked before the events, so that none that comes between the two is left out.
            ended = await store.ended(tenant, job)
            found = await store.events(job, after)
            for event in found:
                yield event
                after = event.id
            if ended and not found:
                return
            if not found:
                await asyncio.sleep(_POLL_S)

    async def results(self, tenant: str, job: str) -> ResultsStore:
        """Where the samples of a job are. Raises `NotFound`, `NotFinished` before there are any."""
        shown = await self._kept().get(tenant, job)
        if shown.status not in _WITH_RESULTS:
            raise NotFinished(f"the job has no results: it is {shown.status}")
        store = await asyncio.to_thread(self._place, job)
        if not await asyncio.to_thread(lambda: store.finished):
            raise NotFound("the results of the job are no longer where they were written")
        return store

    async def report(self, tenant: str, job: str) -> Report:
        """The report on the strategies that the job names. Raises `NotFound`, `NotFinished` where there is none."""
        store = await self.results(tenant, job)
        written = await asyncio.to_thread(store.report)
        if written is None:
            raise NotFinished("the job has no report: its problems have no gold answers, or none has all its samples")
        shown = await self._kept().get(tenant, job)
        return Report.model_validate_json(written).of(shown.strategies)

    async def close(self) -> None:
        if self._store is not None:
            await self._store.close()

    def _kept(self) -> JobStore:
        if self._store is None:
            raise NotReady("this server takes no jobs: it has no redis for them (E2H_JOBS_REDIS_URL)")
        return self._store

    def _place(self, job: str) -> ResultsStore:
        return ResultsStore(place_of(self._settings.results_url or "", job))

    async def _new(self, request: JobRequest, tenant: str) -> NewJob:
        """A job whose problems are at the results place."""
        source = allowed(request.dataset, self._settings)
        try:
            async with asyncio.timeout(_READ_WITHIN_S):
                problems = await asyncio.to_thread(load_problems, source, self._copies)
        except TimeoutError:
            raise UpstreamUnavailable("the data set did not arrive in time") from None
        plan = request.plan
        items = items_a_problem(plan) * len(problems)
        if items > self._settings.max_items:
            raise TooManyItems(f"the job has {items} items of work; at most {self._settings.max_items} are taken")
        manifest = await self._manifest(request, problems)
        job = NewJob(f"job-{secrets.token_hex(16)}", tenant, plan, tuple(request.strategies), items)
        try:
            await asyncio.to_thread(lambda: self._place(job.id).begin(manifest, problems))
        except OSError as error:
            await self._discard(job.id)
            if no_room(error):
                raise StorageFull("the place of results is full") from error
            raise UpstreamUnavailable("the place of results cannot be written") from error
        return job

    async def _manifest(self, request: JobRequest, problems: Sequence[EvaluationProblem]) -> Manifest:
        generator, verifier = await asyncio.gather(self._generator.info(), self._verifier.info())
        return Manifest(
            dataset=shown_name(request.dataset),
            digest=digest_of(problems),
            problems=len(problems),
            plan=request.plan,
            generator=generator.id,
            verifier=ServedVerifier.of(verifier),
        )

    async def _keep(self, job: NewJob, key: str | None, digest: str) -> tuple[str, str] | None:
        """`JobStore.submit`; what it does not keep leaves nothing at the results place."""
        store, kept = self._kept(), False
        try:
            earlier = await store.submit(job, key, digest)
            kept = earlier is None
            return earlier
        except (UpstreamUnavailable, asyncio.CancelledError):
            # It may have been kept and not been confirmed: the caller is told no, and so is redis.
            with contextlib.suppress(E2HError):
                await store.forget(job, key)
            raise
        finally:
            if not kept:
                await self._discard(job.id)

    async def _discard(self, job: str) -> None:
        with contextlib.suppress(OSError):
            await asyncio.to_thread(discard, place_of(self._settings.results_url or "", job))


def lines_of(store: ResultsStore) -> Iterator[bytes]:
    """The results, a JSON line a problem. Blocking."""
    for sampled in store.read():
        yield _line(sampled).model_dump_json().encode() + b"\n"


def _line(sampled: SampledProblem) -> JobResult:
    names = [name for name in JobSample.model_fields if name != "scores"]
    return JobResult(
        **sampled.problem.model_dump(),
        samples=[
            JobSample(scores=list(sample.scores), **{name: getattr(sample, name) for name in names})
            for sample in sampled.samples
        ],
    )
