"""What guides say beside commands: Python that works, and tables that the code has too."""

import ast
import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest

from services.core.aggregation import aggregations_of
from services.core.contracts import VerifierKind
from services.runtime.auth import scope_of
from services.runtime.keys import SCOPES
from tests.docs.http import chat_contract
from tests.docs.shell import PAGES, ROOT, Block, blocks

GUIDES = ROOT / "docs/guides"
PYTHON = [block for page in PAGES for block in blocks(page) if block.language == "python"]


def cells(page: Path, first: str) -> list[str]:
    """The cells of the row that begins with `first`."""
    (row,) = (line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith(f"| `{first}` |"))
    return [cell.strip() for cell in row.strip("|").split("|")]


@pytest.mark.parametrize("block", [pytest.param(each, id=f"{each.page}:{each.line}") for each in PYTHON])
def test_a_block_of_python_is_python(block: Block) -> None:
    ast.parse("\n".join(block.lines))


def test_the_request_of_openais_client_is_one_that_the_route_takes() -> None:
    (block,) = (each for each in PYTHON if each.page == "docs/guides/api.md")
    (call,) = (
        node
        for node in ast.walk(ast.parse("\n".join(block.lines)))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "client.chat.completions.create"
    )
    given: dict[str, Any] = {keyword.arg or "": ast.literal_eval(keyword.value) for keyword in call.keywords}
    extra = given.pop("extra_body")
    body = chat_contract().model_validate_json(json.dumps({**given, **extra}))
    assert body.model_fields_set >= {"model", "messages", "e2h"}


@pytest.mark.parametrize("scope", [scope for scope in SCOPES if scope != "admin"])
def test_a_scope_opens_what_the_guide_says(scope: str) -> None:
    _, opened = cells(GUIDES / "security.md", scope)
    paths = re.findall(r"`(/[^`]+)`", opened)
    assert paths
    assert {scope_of(path) for path in paths} == {scope}


@pytest.mark.parametrize("kind", get_args(VerifierKind))
def test_a_kind_has_the_aggregations_that_the_guide_says(kind: str) -> None:
    told = cells(GUIDES / "verifiers.md", kind)[2]
    named = {name.strip("`, ") for name in told.split() if "`" in name}
    known = {how.value for how in aggregations_of(kind)}
    assert named == known or (told == "all five" and len(known) == 5)


def test_every_figure_of_the_demo_pair_in_the_guide_of_verifiers_is_in_its_report() -> None:
    report = (ROOT / "models/README.md").read_text(encoding="utf-8")
    hard = report[report.index("| hard | N = 16") : report.index("## The same on other hard problems")]
    within = dict(re.findall(r"(\w+) (\d\.\d+)", re.findall(r"hard: AUC within a problem: ([^;]+)", hard)[0]))
    gains = {
        rule: row.split("|")[5].split("[")[0].strip()
        for rule in within
        if (row := next(line for line in hard.splitlines() if re.match(rf"\| \**weighted \({rule}\)", line)))
    }
    page = (GUIDES / "verifiers.md").read_text(encoding="utf-8")
    assert f"| AUROC within a problem | {' | '.join(within.values())} |" in page
    assert f"| weighted minus majority at N = 64, points | {' | '.join(gains.values())} |" in page
    for figure in ("53.1", "42.5", "64.0", "67.2", "85.0"):
        assert figure in hard
        assert figure in page
