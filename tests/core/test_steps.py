"""Where a step ends: one blank-line rule, and the answer block inside the last step."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.core.steps import join_steps, last_answer_header, split_answer_block, split_steps

WORDS = ["a", "b c", "# Answer", "# Answer:", "## Answer", "42", "\n", "\n\n", "\n \n", "\r\n", " ", "\t"]
solutions = st.lists(st.sampled_from(WORDS), max_size=14).map("".join)
# White space that `str.strip` removes and that is neither a blank, a tab, nor a line end.
exotic_solutions = st.lists(st.sampled_from([*WORDS, "\x0b", "\x0c", "\u00a0", "\u2028"]), max_size=14).map("".join)


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        pytest.param("", [], id="nothing has no steps"),
        pytest.param(" \n\n\t\n", [], id="white space has no steps"),
        pytest.param("one", ["one"], id="one paragraph is one step"),
        pytest.param("one\ntwo", ["one\ntwo"], id="a single newline divides nothing"),
        pytest.param("one\n\ntwo", ["one", "two"], id="a blank line divides"),
        pytest.param("one\n\n\n\ntwo", ["one", "two"], id="many blank lines divide once"),
        pytest.param("one\n \t \ntwo", ["one", "two"], id="a line of white space is blank"),
        pytest.param("one\r\n\r\ntwo", ["one", "two"], id="carriage returns are white space"),
        pytest.param("\n\n one \n\n two \n\n", ["one", "two"], id="steps are trimmed"),
        pytest.param("one\n\n# Answer\n\n4", ["one\n\n# Answer\n\n4"], id="the answer block stays with the last step"),
        pytest.param("one\n# Answer\n4", ["one\n\n# Answer\n\n4"], id="the answer block is spelled one way"),
        pytest.param("# Answer\n\n4", ["# Answer\n\n4"], id="an answer alone is one part"),
        pytest.param("one\n\n# Answer", ["one\n\n# Answer"], id="a header may stand without an answer"),
        pytest.param("one\n\n# Answer: 4", ["one", "# Answer: 4"], id="a header is the whole line"),
        pytest.param(
            "# Answer\n\n1\n\ntwo\n\n# Answer\n\n2",
            ["# Answer", "1", "two\n\n# Answer\n\n2"],
            id="the last header counts",
        ),
        pytest.param("one\n\n# Answer\n\n4\n\nbye", ["one\n\n# Answer\n\n4\n\nbye"], id="the block goes to the end"),
    ],
)
def test_a_solution_is_divided_at_blank_lines(text: str, steps: list[str]) -> None:
    assert split_steps(text) == steps


@given(solutions)
def test_joining_and_splitting_again_gives_the_same_steps(text: str) -> None:
    steps = split_steps(text)
    assert split_steps(join_steps(steps)) == steps


@given(exotic_solutions)
@example("one\n\n\x0b# Answer\n\n42")
def test_any_white_space_around_a_header_leaves_the_steps_the_same_when_joined_and_split_again(text: str) -> None:
    steps = split_steps(text)
    assert split_steps(join_steps(steps)) == steps


@given(solutions, st.sampled_from(["\n\n", "\n\n\n", "\n  \n", "\r\n\r\n", "\n\t\n\n"]))
def test_every_spelling_of_a_blank_line_means_the_same(text: str, gap: str) -> None:
    paragraphs = [p.strip() for p in text.split("\n\n") if p.strip()]
    assert split_steps(gap.join(paragraphs)) == split_steps("\n\n".join(paragraphs))


@given(solutions)
def test_steps_are_trimmed_and_never_empty(text: str) -> None:
    assert all(step and step == step.strip() for step in split_steps(text))


@given(solutions)
def test_only_the_last_step_may_hold_a_blank_line(text: str) -> None:
    assert all("\n\n" not in step for step in split_steps(text)[:-1])


@given(solutions)
def test_no_visible_character_is_lost(text: str) -> None:
    assert "".join("".join(split_steps(text)).split()) == "".join(text.split())


@pytest.mark.parametrize(
    ("text", "reasoning", "block"),
    [
        pytest.param(" one ", "one", None, id="no header"),
        pytest.param("one\n\n# Answer\n\n4 ", "one", "# Answer\n\n4", id="reasoning and block"),
        pytest.param("# Answer\n4", "", "# Answer\n\n4", id="block alone"),
        pytest.param("one\n\n  # Answer\t\r\n4", "one", "# Answer\n\n4", id="white space around the header"),
        pytest.param("one\n\n# Answer\n\n\n4\n\n\n5", "one", "# Answer\n\n4\n\n5", id="blank lines collapse"),
    ],
)
def test_the_answer_block_begins_at_the_last_header(text: str, reasoning: str, block: str | None) -> None:
    assert split_answer_block(text) == (reasoning, block)


def test_a_header_inside_a_line_is_no_header() -> None:
    assert last_answer_header("see # Answer below") is None
