"""How answers and scores look on a terminal. Model text is printed as text, never as markup."""

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from services.core.contracts import ScoredStep, ScoreResponse, SolveCandidate, SolveResponse

_MAX_CLASSES = 8


def show_solve(console: Console, response: SolveResponse) -> None:
    """The answer, the classes it won against, and the winning solution with a score on each step."""
    console.print(_headline(response))
    if response.classes:
        console.print(_class_table(response))
    best = _shown_candidate(response)
    if best is not None:
        console.print(_solution(best))
    console.print(_footer(response), style="dim", highlight=False)


def show_scores(console: Console, response: ScoreResponse, steps: list[list[str]], names: list[str]) -> None:
    """Each solution with a score on each step."""
    for solution, texts, name in zip(response.solutions, steps, names, strict=True):
        if solution.error is not None:
            console.print(Text.assemble((f"{name}: ", "bold"), (solution.error.message, "red")))
            continue
        scores: list[float | None] = [s.score for s in solution.steps] or [None] * len(texts)
        scored = [ScoredStep(text=t, score=s) for t, s in zip(texts, scores, strict=True)]
        console.print(Panel(_steps(scored, solution.outcome), title=Text(name), title_align="left"))


def _headline(response: SolveResponse) -> Text:
    if response.answer is None:
        return Text("No sample reached an answer.", style="bold red")
    text = Text.assemble(("Answer: ", "bold"), (response.answer, "bold green"), f"   margin {response.margin:.2f}")
    if response.correct is not None:
        text.append("   right" if response.correct else "   wrong", "green" if response.correct else "red")
    for flag, told in (
        (response.partial, "partial"),
        (response.stopped_early, f"stopped early, {response.used} samples used"),
        (response.degraded, "degraded to majority"),
    ):
        if flag:
            text.append(f"   {told}", "yellow")
    return text


def _class_table(response: SolveResponse) -> Table:
    table = Table(title="Answer classes", title_justify="left", title_style="bold")
    table.add_column("answer", overflow="ellipsis", max_width=40, no_wrap=True)
    for name in ("votes", "weight", "best score"):
        table.add_column(name, justify="right")
    for place, found in enumerate(response.classes[:_MAX_CLASSES]):
        best = "-" if found.best_score is None else f"{found.best_score:.3f}"
        row = (Text(found.answer), str(found.votes), f"{found.weight:.3f}", best)
        table.add_row(*row, style="bold green" if place == 0 else None)
    rest = response.classes[_MAX_CLASSES:]
    if rest:
        more = Text(f"{len(rest)} more", style="dim")
        table.add_row(more, str(sum(c.votes for c in rest)), f"{sum(c.weight for c in rest):.3f}", "")
    return table


def _shown_candidate(response: SolveResponse) -> SolveCandidate | None:
    return next((c for c in response.candidates if c.text == response.solution), None)


def _solution(candidate: SolveCandidate) -> Panel:
    title = Text(f"Winning solution (sample {candidate.index})")
    return Panel(_steps(candidate.steps, candidate.outcome), title=title, title_align="left")


def _steps(steps: list[ScoredStep], outcome: float | None) -> RenderableType:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(justify="right")
    grid.add_column()
    for step in steps:
        grid.add_row(_coloured(step.score), Text(step.text))
    if outcome is None:
        return grid
    return Group(grid, Text.assemble(_coloured(outcome), ("  whole solution", "dim")))


def _coloured(score: float | None) -> Text:
    if score is None:
        return Text("    -", style="dim")
    return Text(f"{score:.3f}", style="green" if score >= 0.8 else "yellow" if score >= 0.5 else "red")


def _footer(response: SolveResponse) -> str:
    excluded = sum(1 for c in response.candidates if c.excluded in ("no_answer", "truncated", "not_scored"))
    aggregation = f"/{response.aggregation}" if response.aggregation else ""
    return (
        f"{response.strategy}{aggregation}: {len(response.candidates)} samples, {excluded} without a vote, "
        f"{response.usage.completion_tokens} tokens sampled, {response.usage.verifier_tokens} verified, "
        f"{response.timings_ms.total / 1000:.1f} s  "
        f"({response.model.generator} + {response.model.verifier or 'no verifier'})"
    )
