"""Reading the final answer: which marker counts, balanced braces, truncation; one spelling for equal typography."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.answers import extract_answer, normalise
from services.core.equivalence import equivalent

PUBLIC_CASES = Path(__file__).parents[2] / ".." / "shared" / "data" / "extract_public.jsonl"

nested = st.recursive(
    st.text("ab1\\frac +", min_size=1, max_size=4).map(lambda s: s.replace("\\", "")),
    lambda inner: st.lists(st.one_of(inner, inner.map(lambda s: f"{{{s}}}")), min_size=1, max_size=3).map("".join),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        pytest.param("6 times 7.\n\n# Answer\n\n42", "42", id="the line after the header"),
        pytest.param("# Answer\n42\n", "42", id="the header needs no blank line"),
        pytest.param("# Answer\n\n1\n\n# Answer\n\n2", "2", id="the last header wins"),
        pytest.param("# Answer\n\n42\n\nthat is all", "42", id="the first line after the header"),
        pytest.param("# Answer\n\n$\\frac{1}{2}$.", "\\frac{1}{2}", id="undressed of its delimiters"),
        pytest.param("# Answer\n\n**42**", "42", id="undressed of bold"),
        pytest.param("# Answer\n\n\\boxed{42}", "42", id="boxed in the answer line"),
        pytest.param("so \\boxed{1} or\n\n# Answer\n\n2", "2", id="the header before the box"),
        pytest.param("\\boxed{1} and \\boxed{2}", "2", id="the last box wins"),
        pytest.param("\\boxed{2} and \\boxed{}", "2", id="an empty box is no answer"),
        pytest.param("\\boxed{2} and \\boxed{3", "2", id="an open box is no answer"),
        pytest.param("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}", id="braces nest"),
        pytest.param("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}", id="escaped braces do not nest"),
        pytest.param("\\fbox{7}", "7", id="fbox"),
        pytest.param("\\boxed {7}", "7", id="a space before the brace"),
        pytest.param("The answer is 7.", "7", id="said"),
        pytest.param("The final answer is $x^2$.", "x^2", id="said in math"),
        pytest.param("The answer is 2.5.", "2.5", id="a point inside a number is no end"),
        pytest.param("The answer is 1.\nNo, the answer is 2.", "2", id="the last saying wins"),
        pytest.param("The answer is 1. No, the answer is 2.", "2", id="the last saying wins within a line"),
        pytest.param(
            "Final Answer: The final answer is $3$. I hope it is correct.", "3", id="a saying within a saying (Minerva)"
        ),
        pytest.param("# Answer\n\n", None, id="a header without an answer"),
        pytest.param("the sum is 42", None, id="the last number is no answer"),
        pytest.param("", None, id="nothing"),
    ],
)
def test_the_answer_is_read_where_the_solution_says_it_is(text: str, answer: str | None) -> None:
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        pytest.param("The answer is 12", None, id="a saying may be cut in the middle"),
        pytest.param("\\boxed{12} and then", "12", id="a closed box counts"),
        pytest.param("\\boxed{12", None, id="an open box does not"),
        pytest.param("one\n\n# Answer\n\n12\n\n", "12", id="a finished answer block counts"),
        pytest.param("one\n\n# Answer\n\n", None, id="a header that nothing follows"),
    ],
)
def test_a_truncated_sample_counts_only_what_it_finished(text: str, answer: str | None) -> None:
    assert extract_answer(text, truncated=True) == answer


@given(nested, st.text("xyz \n", max_size=10))
def test_a_box_gives_its_content_whatever_nests_in_it(content: str, around: str) -> None:
    boxed = f"{around}\\boxed{{{content}}}{around}"
    assert extract_answer(boxed) == (content.strip() or None)


@given(st.lists(st.integers(0, 99), min_size=1, max_size=5))
def test_of_many_boxes_the_last_one_counts(values: list[int]) -> None:
    assert extract_answer(" then ".join(f"\\boxed{{{v}}}" for v in values)) == str(values[-1])


@given(st.text("\\boxed{}fanswer is:#A$*. \n1"), st.booleans())
def test_an_answer_is_never_blank(text: str, truncated: bool) -> None:
    answer = extract_answer(text, truncated=truncated)
    assert answer is None or answer.strip()


@pytest.mark.timeout(5)
@pytest.mark.parametrize(
    "text",
    [
        pytest.param("\\boxed{" * 40_000, id="boxes that never close"),
        pytest.param("answer:" + "\n" * 200_000, id="a saying of newlines"),
        pytest.param("final " * 40_000, id="openings of sayings"),
        pytest.param("the answer is " + "$" * 200_000, id="dollars"),
        pytest.param("# Answer\n" * 40_000, id="headers"),
        pytest.param("\\boxed{" + "{" * 200_000, id="braces that never close"),
    ],
)
def test_reading_an_answer_takes_time_in_proportion_to_the_text(text: str) -> None:
    extract_answer(text)


@pytest.mark.parametrize(
    ("spelling", "normal"),
    [
        pytest.param(" 42 ", "42", id="white space around"),
        pytest.param("1,234,567", "1234567", id="thousands"),
        pytest.param("(1, 2)", "(1,2)", id="a pair keeps its comma"),
        pytest.param("\\dfrac{1}{2}", "\\frac{1}{2}", id="display fractions"),
        pytest.param("\\tfrac{1}{2}", "\\frac{1}{2}", id="text fractions"),
        pytest.param("\\left( 1 \\right)", "(1)", id="sized brackets"),
        pytest.param("\\text{Evelyn}", "evelyn", id="words in text"),
        pytest.param("Evelyn", "evelyn", id="letter case of a word"),
        pytest.param("A", "A", id="a single letter keeps its case"),
        pytest.param("$5$", "5", id="math delimiters"),
        pytest.param("\\$5", "5", id="a currency sign"),
        pytest.param("50\\%", "50%", id="an escaped per cent sign"),
        pytest.param("\N{MINUS SIGN}3", "-3", id="a typographic minus"),
        pytest.param("\N{FULLWIDTH DIGIT FOUR}", "4", id="compatibility forms"),
    ],
)
def test_answers_that_differ_in_typography_have_one_spelling(spelling: str, normal: str) -> None:
    assert normalise(spelling) == normal


@pytest.mark.skipif(not PUBLIC_CASES.exists(), reason="the public extraction cases are not in this checkout")
def test_most_public_cases_of_plain_answers_are_read() -> None:
    rows = [json.loads(line) for line in PUBLIC_CASES.read_text(encoding="utf-8").splitlines()]
    core = [row for row in rows if row["tier"] == "core"]
    read = [(extract_answer(row["text"]), row["answer"]) for row in core]
    right = sum(a == b if a is None or b is None else equivalent(a, b) for a, b in read)
    assert right / len(core) >= 0.8, f"{right} of {len(core)}"
