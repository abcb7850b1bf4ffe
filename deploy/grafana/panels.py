"""What the dashboards show: rows of (title, unit, queries). `make_dashboards.py` makes Grafana's JSON of them.

Standard library alone.
"""

from typing import NamedTuple

_RATE = "[$__rate_interval]"


class Panel(NamedTuple):
    """One graph: `queries` are legend and PromQL."""

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    description: str = ""


def rate(metric: str, by: str = "") -> str:
    """Events a second, over all processes."""
    return f"sum{f' by ({by})' if by else ''} (rate({metric}{_RATE}))"


def quantile(q: float, histogram: str, by: str = "", where: str = "") -> str:
    """A quantile of a histogram, over all processes."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, sum by ({labels}) (rate({histogram}_bucket{where}{_RATE})))"


def quantiles(histogram: str) -> tuple[tuple[str, str], ...]:
    return tuple((f"p{round(q * 100)}", quantile(q, histogram)) for q in (0.5, 0.9, 0.99))


def ratio(part: str, whole: str) -> str:
    """A share of two rates; nothing while there is no traffic."""
    return f"{rate(part)} / ({rate(whole)} > 0)"


SOLVING = (
    Panel("Solves", "reqps", (("{{strategy}}", rate("e2h_solves_total", "strategy")),)),
    Panel("Time of a solve", "s", quantiles("e2h_solve_seconds")),
    Panel(
        "Partial, degraded, unanswered",
        "percentunit",
        (
            ("partial", ratio('e2h_solves_total{partial="true"}', "e2h_solves_total")),
            ("without the verifier", ratio('e2h_solves_total{degraded!="no"}', "e2h_solves_total")),
            ("no answer", ratio("e2h_solves_unanswered_total", "e2h_solves_total")),
        ),
        "Partial: the time budget ended before all samples were scored.",
    ),
    Panel(
        "Margin of the vote",
        "percentunit",
        (("median", quantile(0.5, "e2h_solve_margin")), ("p10", quantile(0.1, "e2h_solve_margin"))),
        "Winner's share of the weight less the runner-up's. A fall means harder problems, or a model that got worse.",
    ),
    Panel("Samples by their part in the vote", "ops", (("{{part}}", rate("e2h_solve_candidates_total", "part")),)),
    Panel(
        "Samples that early stops left out",
        "ops",
        (("{{strategy}}", rate("e2h_solve_samples_saved_total", "strategy")),),
    ),
    Panel(
        "Requests by status",
        "reqps",
        (("{{status}}", 'sum by (status) (rate(e2h_http_requests_total{job="e2h-orchestrator"}[$__rate_interval]))'),),
    ),
    Panel("Requests in flight", "short", (("{{job}}", "sum by (job) (e2h_http_inflight)"),)),
    Panel(
        "Refused at the door",
        "reqps",
        (
            ("over their rate", rate("e2h_rate_limited_total")),
            ("key: {{reason}}", rate("e2h_auth_refusals_total", "reason")),
        ),
    ),
    Panel(
        "Upstreams: retries",
        "ops",
        (
            ("{{service}} again", rate("e2h_upstream_retries_total", "service")),
            ("{{service}} refused by the budget", rate("e2h_upstream_retries_refused_total", "service")),
            ("samples made again", rate("e2h_samples_remade_total")),
        ),
    ),
    Panel(
        "Upstreams: breakers",
        "short",
        (("{{service}} {{replica}}", "max by (service, replica) (e2h_upstream_breaker_state)"),),
        "0 closed, 1 half open, 2 open: that replica gets no requests.",
    ),
    Panel(
        "Upstreams: tokens under way",
        "short",
        (("{{service}} {{replica}}", "sum by (service, replica) (e2h_upstream_outstanding_tokens)"),),
        "What each replica was asked for and has not answered.",
    ),
    Panel(
        "Requests with an Idempotency-Key",
        "reqps",
        (("{{outcome}}", rate("e2h_idempotent_requests_total", "outcome")),),
        "replayed and joined: a caller sent a request again, and it was not executed again.",
    ),
    Panel(
        "Done without redis",
        "ops",
        (
            ("rates counted in one process", rate("e2h_rate_limit_redis_faults_total")),
            ("answers kept in one process", rate("e2h_idempotency_redis_faults_total")),
        ),
        "Redis was away or slow: limits and kept answers hold for each process alone.",
    ),
    Panel(
        "Grading",
        "ops",
        (
            ("timeouts", rate("e2h_grading_timeouts_total")),
            ("processes replaced: {{cause}}", rate("e2h_grading_worker_restarts_total", "cause")),
        ),
    ),
    Panel("Comparisons that wait", "short", (("{{instance}}", "e2h_grading_waiting"),)),
    Panel(
        "Verdicts of grading",
        "ops",
        (
            ("{{method}}", rate("e2h_grading_verdicts_total", "method")),
            ("known already", rate("e2h_grading_remembered_total")),
        ),
        "Symbolic verdicts cost a process its time, the others next to nothing.",
    ),
    Panel(
        "Verifier against majority",
        "percentunit",
        (
            (
                "disagrees",
                ratio(
                    'e2h_solve_verifier_vs_majority_total{verdict="disagrees"}', "e2h_solve_verifier_vs_majority_total"
                ),
            ),
        ),
        "Votes that scores decided, in which the most frequent answer would have lost.",
    ),
    Panel("Lag of the event loop", "s", (("{{job}}", "max by (job) (e2h_event_loop_lag_seconds)"),)),
    Panel(
        "Waiting for their turn",
        "short",
        (("{{priority}}", "sum by (priority) (e2h_admission_waiting)"),),
        "Solves that wait before any engine is asked; tenants take turns.",
    ),
    Panel(
        "Wait for a turn, p99",
        "s",
        (("{{priority}}", quantile(0.99, "e2h_admission_wait_seconds", "priority")),),
        "Of those that were let in.",
    ),
    Panel(
        "Refused a turn",
        "reqps",
        (("{{priority}}: {{reason}}", rate("e2h_admission_refused_total", "priority, reason")),),
        "full: the tenant has too many waiting; wait: it would wait too long; budget: longer than its time budget.",
    ),
    Panel(
        "Tokens in flight",
        "short",
        (("{{instance}}", "e2h_admission_tokens_in_flight"),),
        "What solves under way may still make; their bound is E2H_ADMISSION_MAX_TOKENS_IN_FLIGHT.",
    ),
    Panel(
        "Depth of a step search",
        "short",
        (
            ("{{strategy}} median", quantile(0.5, "e2h_search_levels", "strategy")),
            ("{{strategy}} p99", quantile(0.99, "e2h_search_levels", "strategy")),
        ),
        "Steps. At max_steps, solutions are cut and have no vote.",
    ),
    Panel(
        "Continuations of step searches",
        "ops",
        (("{{strategy}} {{fate}}", rate("e2h_search_continuations_total", "strategy, fate")),),
        "Many duplicates: the temperature is low for this expand. Many cut: max_steps or max_tokens is.",
    ),
)

VERIFIER = (
    Panel("Tokens that wait", "short", (("{{instance}}", "e2h_verifier_queue_tokens"),)),
    Panel("Age of the queue", "s", (("{{instance}}", "e2h_verifier_queue_age_seconds"),)),
    Panel("Wait before a batch", "s", quantiles("e2h_verifier_queue_seconds")),
    Panel("Time of a forward pass", "s", quantiles("e2h_verifier_inference_seconds")),
    Panel(
        "p99 of /v1/score",
        "s",
        (("{{job}}", quantile(0.99, "e2h_http_request_seconds", "job", '{route="/v1/score"}')),),
    ),
    Panel("Solutions by outcome", "ops", (("{{outcome}}", rate("e2h_verifier_solutions_total", "outcome")),)),
    Panel("Tokens of a batch", "short", quantiles("e2h_verifier_batch_tokens")),
    Panel("Solutions of a batch", "short", quantiles("e2h_verifier_batch_solutions")),
    Panel(
        "Tokens computed and cached",
        "ops",
        (
            ("computed", rate("e2h_verifier_tokens_computed_total")),
            ("cached", rate("e2h_verifier_tokens_cached_total")),
        ),
        "Cached: shared with another solution of the batch, or known from an earlier one.",
    ),
    Panel(
        "Share of tokens computed",
        "percentunit",
        (("computed / scored", ratio("e2h_verifier_tokens_computed_total", "e2h_verifier_tokens_total")),),
    ),
    Panel(
        "Waste",
        "ops",
        (
            ("expired in the queue", rate("e2h_verifier_expired_total")),
            ("out of memory", rate("e2h_verifier_out_of_memory_total")),
        ),
        "Expired: the deadline came before the turn. Out of memory: a forward pass that was halved and made again.",
    ),
    Panel("Bound of a batch", "short", (("{{instance}}", "e2h_verifier_max_batch_tokens"),), "Falls when memory ends."),
    Panel("Prefix cache", "bytes", (("{{instance}}", "e2h_verifier_prefix_cache_bytes"),)),
    Panel("Score cache: lookups", "ops", (("{{result}}", rate("e2h_verifier_cache_lookups_total", "result")),)),
    Panel("Score cache: failures", "ops", (("failures", rate("e2h_verifier_cache_failures_total")),)),
)

GENERATOR = (
    Panel(
        "Samples by how they ended",
        "ops",
        (("{{finish_reason}}", rate("e2h_generator_samples_total", "finish_reason")),),
    ),
    Panel("Samples in the engine, running and waiting", "short", (("{{instance}}", "e2h_generator_samples_running"),)),
    Panel("Requests in flight", "short", (("{{instance}}", 'e2h_http_inflight{job="e2h-generator"}'),)),
    Panel(
        "Tokens",
        "ops",
        (("sampled", rate("e2h_generator_tokens_total")), ("prompts", rate("e2h_generator_prompt_tokens_total"))),
    ),
    Panel(
        "Tokens of a sample", "short", (("mean", ratio("e2h_generator_tokens_total", "e2h_generator_samples_total")),)
    ),
    Panel(
        "Samples cut at the length",
        "percentunit",
        (("length", ratio('e2h_generator_samples_total{finish_reason="length"}', "e2h_generator_samples_total")),),
        "They have no vote: raise max_tokens, or the context.",
    ),
    Panel(
        "Tokens reserved",
        "short",
        (("{{instance}}", "e2h_generator_reserved_tokens"),),
        "What admitted requests may make; their bound is E2H_GENERATOR_MAX_QUEUE_TOKENS.",
    ),
    Panel("Refused for want of room", "reqps", (("{{instance}}", rate("e2h_generator_refused_total", "instance")),)),
)

JOBS = (
    Panel("Jobs that have not ended", "short", (("jobs", "max(e2h_jobs_running)"),)),
    Panel("Messages that no worker has taken", "short", (("messages", "max(e2h_jobs_queue_depth)"),)),
    Panel("Items held", "short", (("{{instance}}", "e2h_jobs_items_held"),)),
    Panel("Items by what became of them", "ops", (("{{outcome}}", rate("e2h_jobs_items_total", "outcome")),)),
    Panel(
        "Workers that fell silent",
        "ops",
        (
            ("leases run out", rate("e2h_jobs_lease_expiries_total")),
            ("late writes refused", rate("e2h_jobs_fenced_writes_total")),
        ),
    ),
    Panel("Redis down", "short", (("{{instance}}", "e2h_jobs_redis_down"),)),
)

DASHBOARDS = {"solving": SOLVING, "verifier": VERIFIER, "generator": GENERATOR, "jobs": JOBS}
