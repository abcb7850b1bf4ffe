"""Grading against a reference: the table of traps, both directions, and the public cases."""

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.equivalence import Method, Mode, Verdict, canonical_key, quick_verdict
from services.core.equivalence.symbolic import fits, symbolically_equal
from tests.core.answer_cases import DIFFERENT, EQUAL, Cases
from tests.core.respelling import respellings

DATA = Path(__file__).parents[2] / ".." / "shared" / "data"
ALL_CASES = [answer for cases in (EQUAL, DIFFERENT) for pairs in cases.values() for pair in pairs for answer in pair]

spellings = st.one_of(
    st.sampled_from(ALL_CASES),
    st.builds(lambda a, b: a[: len(a) // 2] + b[len(b) // 2 :], st.sampled_from(ALL_CASES), st.sampled_from(ALL_CASES)),
    st.text("0123456789.-+/\\{}()[]^_,;=<>|!%$& xyeipsqrtfacn", max_size=30),
    st.text(max_size=12),
)


def needs(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not (DATA / name).exists(), reason=f"{name} of the public data is not in this checkout")


def rows(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


def params(cases: Cases) -> list[object]:
    return [pytest.param(a, b, id=f"{group}: {a} ~ {b}") for group, pairs in cases.items() for a, b in pairs]


def graded(gold: str, pred: str) -> Verdict:
    """As the worker grades: the quick verdict, else computer algebra's."""
    quick = quick_verdict(gold, pred, Mode.REFERENCE)
    return quick or Verdict(symbolically_equal(gold, pred), Method.SYMBOLIC)


@pytest.mark.parametrize(("a", "b"), params(EQUAL))
def test_what_a_teacher_takes_for_the_answer_is_equal_to_it_in_both_directions(a: str, b: str) -> None:
    assert quick_verdict(a, b, Mode.REFERENCE) == quick_verdict(b, a, Mode.REFERENCE)
    assert graded(a, b).equal


@pytest.mark.parametrize(("a", "b"), params(DIFFERENT))
def test_what_a_teacher_does_not_take_is_not_in_either_direction(a: str, b: str) -> None:
    assert quick_verdict(a, b, Mode.REFERENCE) == quick_verdict(b, a, Mode.REFERENCE)
    assert not graded(a, b).equal
    assert canonical_key(a) != canonical_key(b)


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        pytest.param(r"\sum_{k=1}^{n} k", r"\frac{n(n+1)}{2}", True, id="a sum and its closed form"),
        pytest.param(r"\int_0^1 x\,dx", r"\frac12", True, id="an integral"),
        pytest.param(r"\lim_{x\to0}\frac{\sin x}{x}", "1", True, id="a limit"),
        pytest.param(r"\frac{d}{dx} x^2", "2x", True, id="a derivative"),
        pytest.param(r"\int_0^1 x\,dx", r"\int_0^2 x\,dx", False, id="another bound"),
        pytest.param(r"\sum_{k=1}^{n} k", r"\sum_{k=1}^{n} k^2", False, id="another term"),
        pytest.param(r"\frac{1}{0}", r"\frac{2}{0}", False, id="no numbers"),
        pytest.param(r"\int_0^1 x\,\mathrm{d}x", r"\frac12", True, id="an upright differential"),
        pytest.param(r"1\text{ cat }2\text{ dogs}", r"1\text{ cat }3\text{ dogs}", False, id="words"),
        pytest.param(r"0.123\ldots", "0.123", False, id="dots"),
    ],
)
def test_computer_algebra_decides_what_the_grammar_leaves_open(a: str, b: str, equal: bool) -> None:
    assert quick_verdict(a, b, Mode.REFERENCE) is None
    assert symbolically_equal(a, b) == symbolically_equal(b, a) == equal


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param("9^{9^{9^{9}}}", id="a tower"),
        pytest.param("99999!", id="a factorial"),
        pytest.param("((3!)!)!", id="factorials of factorials"),
        pytest.param("10^{10000000}", id="a power"),
        pytest.param("(x+1)^{5000}", id="a power of a sum"),
        pytest.param(r"\binom{10^{9}}{5\cdot 10^{8}}", id="a binomial"),
        pytest.param("1" * 100, id="a long number"),
        pytest.param("(" * 20 + ")" * 20, id="nesting"),
        pytest.param("x+" * 400, id="length"),
    ],
)
def test_what_is_too_large_for_computer_algebra_never_reaches_it(answer: str) -> None:
    assert not fits(answer)
    assert not symbolically_equal(answer, "1")


@given(spellings)
def test_an_answer_is_equal_to_itself_in_either_mode(a: str) -> None:
    for mode in Mode:
        verdict = quick_verdict(a, f" {a} ", mode)
        assert verdict is not None
        assert verdict.equal


@given(spellings, spellings)
def test_the_order_of_the_two_does_not_matter(a: str, b: str) -> None:
    for mode in Mode:
        assert quick_verdict(a, b, mode) == quick_verdict(b, a, mode)


@given(spellings, spellings)
def test_what_votes_together_is_equal_to_a_reference_too(a: str, b: str) -> None:
    if canonical_key(a) == canonical_key(b) and a.strip() and b.strip():
        verdict = quick_verdict(a, b, Mode.REFERENCE)
        assert verdict is not None
        assert verdict.equal or not canonical_key(a)


@given(st.lists(spellings, max_size=8), st.randoms())
def test_voting_classes_do_not_depend_on_the_order_of_the_answers(answers: list[str], random: object) -> None:
    classes = Counter(map(canonical_key, answers))
    getattr(random, "shuffle")(answers)  # noqa: B009 - hypothesis gives a Random that mypy cannot see
    assert Counter(map(canonical_key, answers)) == classes


@needs("math500.jsonl")
def test_every_math500_answer_equals_itself_respelled() -> None:
    wrong = [
        (row["answer"], other)
        for row in rows("math500.jsonl")
        for other in respellings(row["answer"])
        if not graded(row["answer"], other).equal
    ]
    assert wrong == []


@needs("gsm8k_test.jsonl")
def test_every_gsm8k_answer_equals_itself_respelled() -> None:
    golds = {row["answer"] for row in rows("gsm8k_test.jsonl")}
    wrong = [(gold, other) for gold in golds for other in respellings(gold) if not graded(gold, other).equal]
    assert wrong == []


@needs("math500.jsonl")
def test_answers_of_different_problems_are_seldom_taken_for_equal() -> None:
    """Golds that differ as texts and are equal are the same number in two spellings, or the same with a unit."""
    golds = sorted({row["answer"] for row in rows("math500.jsonl")})[::3]
    equal = [(a, b) for i, a in enumerate(golds) for b in golds[i + 1 :] if graded_quickly(a, b)]
    assert len(equal) <= len(golds) // 10, equal


def graded_quickly(a: str, b: str) -> bool:
    verdict = quick_verdict(a, b, Mode.REFERENCE)
    return verdict is not None and verdict.equal


@needs("equivalence_public.jsonl")
def test_the_public_cases_are_graded_as_labelled() -> None:
    cases = rows("equivalence_public.jsonl")
    verdicts = [(row, graded(row["gold"], row["pred"]).equal) for row in cases]
    false_accepts = [row for row, equal in verdicts if equal and not row["equal"]]
    false_rejects = [row for row, equal in verdicts if not equal and row["equal"]]
    assert len(false_accepts) <= 3, false_accepts
    assert len(false_accepts) + len(false_rejects) <= 0.015 * len(cases), false_rejects
