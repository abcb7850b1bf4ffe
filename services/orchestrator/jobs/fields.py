"""A job as the fields of a redis hash, and back: texts and whole numbers, under a schema version. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from services.core.contracts import EvaluationPlan, Job, JobError, JobProgress
from services.core.voting import Strategy
from services.orchestrator.evaluation.items import items_a_problem

VERSION = "1"  # of the fields; what another one wrote is not read
_ERRORS_SHOWN = 20


@dataclass(frozen=True, slots=True)
class NewJob:
    """What is kept of a job when it is submitted."""

    id: str
    tenant: str
    plan: EvaluationPlan
    strategies: tuple[Strategy, ...]
    items: int


def fields_of(job: NewJob, keep_ms: int) -> dict[str, str | int]:
    """The hash of a job that was just submitted; redis adds when."""
    return {
        "v": VERSION,
        "id": job.id,
        "tenant": job.tenant,
        "status": "queued",
        "plan": job.plan.model_dump_json(),
        "strategies": json.dumps(job.strategies),
        "total": job.items,
        "cursor": 0,
        "done": 0,
        "failed": 0,
        "retried": 0,
        "keep_ms": keep_ms,
    }


def flat(fields: Mapping[str, str | int]) -> list[str | int]:
    """Names and values in turn, as a command takes them."""
    return [part for field in fields.items() for part in field]


def texts(found: Mapping[bytes, bytes]) -> dict[str, str]:
    """What redis answers, as text."""
    return {name.decode(): value.decode() for name, value in found.items()}


def progress_of(fields: Mapping[str, str]) -> JobProgress:
    """How far a job is, of its hash or of an event."""
    return JobProgress.model_validate_strings({name: fields[name] for name in JobProgress.model_fields})


def job_of(fields: Mapping[str, str], dead: Mapping[str, str], now: int) -> Job:
    """How a job stands at `now`, in milliseconds of redis' clock; `dead` maps given up items to their errors."""
    plan = EvaluationPlan.model_validate_json(fields["plan"])
    done, left = int(fields["done"]), int(fields["total"]) - int(fields["done"]) - int(fields["failed"])
    ended = "ended_ms" in fields
    ran_s = (now - int(fields.get("started_ms", now))) / 1000
    until = int(fields.get("ended_ms", now))
    errors = [
        JobError.model_validate_json(text).model_copy(update=_place(int(item), plan))
        for item, text in sorted(dead.items(), key=lambda pair: int(pair[0]))[:_ERRORS_SHOWN]
    ]
    return Job.model_validate(
        {
            "id": fields["id"],
            "status": fields["status"],
            "plan": plan,
            "strategies": [Strategy(name) for name in json.loads(fields["strategies"])],
            "items_total": int(fields["total"]),
            "items_done": done,
            "failed": int(fields["failed"]),
            "retried": int(fields["retried"]),
            "age_s": max(0.0, (until - int(fields["created_ms"])) / 1000),
            "eta_s": None if ended or done == 0 else max(0.0, ran_s / done * left),
            "error": JobError.model_validate_json(fields["error"]) if "error" in fields else None,
            "errors": errors,
        }
    )


def _place(item: int, plan: EvaluationPlan) -> dict[str, int]:
    return {"item": item, "problem": item // items_a_problem(plan)}
