"""Reading the final answer: which marker counts, balanced braces, truncation; one spelling for equal typography."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.answers import extract_answer
from services.core.equivalence import Mode, canonical_key, quick_verdict
from services.core.equivalence.typography import tidy

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
        pytest.param("The answer is $\\$32,\\!348$. I hope it is correct.", "\\$32,\\!348", id="money in math"),
        pytest.param("The answer is $5.", "$5", id="money without math"),
        pytest.param("The answer is\n\\[ 9 \\]", "9", id="said in a display on the next line"),
        pytest.param("**Answer:** B", "B", id="said in bold"),
        pytest.param("**Final Answer**: 42", "42", id="a final answer in bold"),
        pytest.param("Answer: D\nConfidence: 100%", "D", id="a line of its own"),
        pytest.param("The answer is C because A is wrong.", "C", id="without its reason"),
        pytest.param("The answer is 4, so we are done.", "4", id="without its consequence"),
        pytest.param("The answer is therefore 5.", "5", id="an adverb is no answer"),
        pytest.param("The answer is 7. So our answer is correct.", "7", id="a saying that is none"),
        pytest.param("The answer is not 5.", None, id="a denial"),
        pytest.param("2+2=<<2+2=4>>4\n#### 4", "4", id="the hashes of GSM8K"),
        pytest.param("#### 1,000", "1,000", id="hashes with a separator"),
        pytest.param("\\boxed{3}\n#### 4", "3", id="a box before hashes"),
        pytest.param("so \\boxed 5", "5", id="a box without braces"),
        pytest.param("# Answer\n\n$$\n\\frac{1}{2}\n$$", "\\frac{1}{2}", id="a display after the header"),
        pytest.param("The answer is **12**.", "12", id="in bold"),
        pytest.param("**The answer is 12.**", "12", id="said in a bold sentence"),
        pytest.param("### Final Answer\n\n18", "18", id="a heading"),
        pytest.param("**Final Answer**\n\n18", "18", id="a heading in bold"),
        pytest.param("## Answer\n18", "18", id="a heading without a blank line"),
        pytest.param("$\\textbf{Answer: } 14$", "14", id="a saying within math"),
        pytest.param("The answer is \\boxed{}", None, id="an empty box after a saying"),
        pytest.param("Final Answer\n\n7", "7", id="a plain heading"),
        pytest.param("The answer is as follows:\n\n7", "7", id="an answer that follows"),
        pytest.param("The answer is 7.<|im_end|>", "7", id="the end of a turn"),
        pytest.param("#### 7</s>", "7", id="the end of a sequence"),
        pytest.param("The answer is 7. <|im_start|>user\nThe answer is 8.", "7", id="another's turn"),
        pytest.param("The answer is option C.", "C", id="an option"),
        pytest.param("The answer is definitely A, since B is wrong.", "A", id="a sure one"),
        pytest.param("Final Answer: The largest $n$ is 34.", "34", id="a sentence that says what is"),
        pytest.param("Final Answer: Tom has 5 apples left.", "5", id="a sentence with one figure"),
        pytest.param("Final Answer: Tom has 5 of 6 apples left.", "Tom has 5 of 6 apples left", id="one with two"),
        pytest.param("Answer: The midpoints form a hexagon", "The midpoints form a hexagon", id="one without any"),
        pytest.param("The final answer is 5 + 3 = 8.", "5 + 3 = 8", id="a calculation"),
        pytest.param("We answer the question by adding: 5+5 = 10.", None, id="an answer that is only talked about"),
        pytest.param("# Answer\n\n", None, id="a header without an answer"),
        pytest.param("5 + 4 = 9\n# Answer\n# Answer\n", None, id="a header under a header"),
        pytest.param("Final Answer\n\nThe answer is:\n", None, id="a saying under a heading"),
        pytest.param("# Answer\n# Answer\n\n9", "9", id="an answer under two headers"),
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
        pytest.param("the answer is \\[" + "x\\" * 100_000, id="a display that never closes"),
        pytest.param("answer" + " " * 200_000 + "answer is " + " " * 200_000, id="spaces"),
        pytest.param("the answer is not " * 20_000, id="denials"),
        pytest.param("####" * 50_000, id="hashes"),
        pytest.param("# answer" + " " * 200_000 + "x", id="a heading of spaces"),
        pytest.param("Answer: A" + "," * 100_000, id="a sentence of commas"),
        pytest.param("Answer: It is " * 20_000, id="sentences in sentences"),
    ],
)
def test_reading_an_answer_takes_time_in_proportion_to_the_text(text: str) -> None:
    extract_answer(text)


@pytest.mark.parametrize(
    ("spelling", "normal"),
    [
        pytest.param(" 42 ", "42", id="white space around"),
        pytest.param("1{,}234", "1234", id="a braced separator of thousands"),
        pytest.param("11,\\! 111", "11111", id="a tightened one"),
        pytest.param("1 234 567", "1234567", id="spaces between thousands"),
        pytest.param("(1, 2)", "(1, 2)", id="a pair keeps its comma"),
        pytest.param("\\dfrac{1}{2}", "\\frac{1}{2}", id="display fractions"),
        pytest.param("\\left( 1 \\right)", "( 1 )", id="sized brackets"),
        pytest.param("$5$", "5", id="math delimiters"),
        pytest.param("$5", "\\$5", id="a lone dollar sign is money"),
        pytest.param("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}", id="a box"),
        pytest.param("**5**.", "5", id="bold"),
        pytest.param("\N{MINUS SIGN}3", "-3", id="a typographic minus"),
        pytest.param("\N{FULLWIDTH DIGIT FOUR}", "4", id="compatibility forms"),
        pytest.param("x\N{SUPERSCRIPT TWO}", "x^{2}", id="a raised digit stays raised"),
        pytest.param("1\N{VULGAR FRACTION ONE HALF}", "1\\frac{1}{2}", id="a vulgar fraction"),
        pytest.param("1 \\\\ 2", "1 \\\\ 2", id="the end of a row is no space"),
        pytest.param("\x00\ud8003", "3", id="controls and lone surrogates"),
    ],
)
def test_answers_that_differ_in_typography_have_one_spelling(spelling: str, normal: str) -> None:
    assert tidy(spelling) == normal


@pytest.mark.skipif(not PUBLIC_CASES.exists(), reason="the public extraction cases are not in this checkout")
def test_the_public_cases_are_read_as_labelled() -> None:
    rows = [json.loads(line) for line in PUBLIC_CASES.read_text(encoding="utf-8").splitlines()]
    core = [row for row in rows if row["tier"] == "core"]
    wrong = [row["text"] for row in core if not same(extract_answer(row["text"]), row["answer"])]
    assert len(wrong) <= 0.015 * len(core), wrong


def same(found: str | None, expected: str | None) -> bool:
    if found is None or expected is None:
        return found is expected
    verdict = quick_verdict(expected, found, Mode.REFERENCE)
    return canonical_key(found) == canonical_key(expected) or (verdict is not None and verdict.equal)
