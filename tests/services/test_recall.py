"""Keys of known scores: everything that a score depends on, and nothing else. And what is kept under them."""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.errors import ModelLoadError
from services.core.ports import KnownScores
from services.verifier.families.base import Encoded
from services.verifier.recall import Recall, ScoreKeys, model_digest
from tests.conftest import CheckpointOf

IDENTITY: dict[str, Any] = {"model": "a" * 64, "family": "easy-to-hard", "version": 1, "dtype": "torch.float32"}
KEYS = ScoreKeys(**IDENTITY)
PLAIN = Encoded(ids=(1, 2, 3, 4), step_rows=(1, 2), outcome_row=3)


@dataclass
class Shelf:
    """A `ScoreCache` in a dict."""

    held: dict[str, KnownScores] = field(default_factory=dict)

    async def get(self, keys: Sequence[str]) -> list[KnownScores | None]:
        return [self.held.get(key) for key in keys]

    async def put(self, entries: Mapping[str, KnownScores]) -> None:
        self.held.update(entries)

    async def ready(self) -> str | None:
        return None

    async def close(self) -> None: ...


# --- keys ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"model": "b" * 64}, id="another checkpoint"),
        pytest.param({"family": "other"}, id="another family"),
        pytest.param({"version": 2}, id="another version of the family"),
        pytest.param({"dtype": "torch.bfloat16"}, id="another dtype"),
    ],
)
def test_another_model_has_other_keys(change: dict[str, Any]) -> None:
    assert ScoreKeys(**{**IDENTITY, **change}).key(PLAIN) != KEYS.key(PLAIN)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(replace(PLAIN, ids=(1, 2, 3, 5)), id="another token"),
        pytest.param(replace(PLAIN, ids=(1, 2, 4, 3)), id="another order"),
        pytest.param(replace(PLAIN, ids=(1, 2, 3)), id="a token less"),
        pytest.param(replace(PLAIN, step_rows=(1,)), id="a step less"),
        pytest.param(replace(PLAIN, step_rows=(0, 2)), id="another row"),
        pytest.param(replace(PLAIN, outcome_row=None), id="no outcome"),
        pytest.param(replace(PLAIN, step_rows=(1, 2, 3), outcome_row=None), id="the outcome's row as a step"),
        pytest.param(Encoded(ids=(1, 2, 3, 4, 1), step_rows=(2,), outcome_row=3), id="a row as a token"),
    ],
)
def test_other_ids_or_rows_have_other_keys(other: Encoded) -> None:
    assert KEYS.key(other) != KEYS.key(PLAIN)


def test_flags_are_told_and_change_no_score() -> None:
    assert KEYS.key(replace(PLAIN, flags=("reserved_token_in_input",))) == KEYS.key(PLAIN)


ENCODED = st.builds(
    Encoded,
    ids=st.lists(st.integers(0, 3), max_size=4).map(tuple),
    step_rows=st.lists(st.integers(0, 3), max_size=3).map(tuple),
    outcome_row=st.none() | st.integers(0, 3),
)


@given(first=ENCODED, second=ENCODED)
def test_keys_are_equal_exactly_when_inputs_are(first: Encoded, second: Encoded) -> None:
    assert (KEYS.key(first) == KEYS.key(second)) == (first == second)


# --- the digest of a checkpoint --------------------------------------------------------------------------------------


@pytest.fixture
def copied(checkpoint_of: CheckpointOf, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint_of("oprm"), tmp_path / "elsewhere"))


def test_a_copy_of_a_checkpoint_elsewhere_is_the_same_model(checkpoint_of: CheckpointOf, copied: Path) -> None:
    (copied / "README.md").write_text("a model card")
    assert model_digest(copied) == model_digest(checkpoint_of("oprm"))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_changed_byte_makes_another_model_though_size_and_time_are_the_same(copied: Path, name: str) -> None:
    before, file = model_digest(copied), copied / name
    times = file.stat()
    content = bytearray(file.read_bytes())
    content[-2] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (times.st_size, times.st_mtime_ns)
    assert model_digest(copied) != before


def test_a_file_more_or_under_another_name_makes_another_model(copied: Path) -> None:
    before = model_digest(copied)
    (copied / "model.safetensors").rename(copied / "model-1.safetensors")
    renamed = model_digest(copied)
    (copied / "more.safetensors").write_bytes(b"")
    assert len({before, renamed, model_digest(copied)}) == 3


def test_a_file_that_vanishes_is_a_model_that_cannot_be_served(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "is_file", lambda path: True)
    (copied / "gone.json").symlink_to(copied / "nowhere.json")
    with pytest.raises(ModelLoadError):
        model_digest(copied)


# --- look up and keep ------------------------------------------------------------------------------------------------


BATCH = [Encoded(ids=(n, 7), step_rows=(0,), outcome_row=1) for n in range(4)]
SCORES = [KnownScores((0.1 * n,), 0.5) for n in range(4)]


async def test_what_was_kept_is_known_and_the_rest_is_missing_in_order() -> None:
    recall = Recall(Shelf(), KEYS)
    first = await recall.look_up([BATCH[1], BATCH[3]])
    assert first.missing == [BATCH[1], BATCH[3]]
    await recall.keep(first, [SCORES[1], SCORES[3]])
    second = await recall.look_up(BATCH)
    assert second.missing == [BATCH[0], BATCH[2]]
    completed = second.completed([SCORES[0], SCORES[2]])
    assert completed == [(SCORES[0], False), (SCORES[1], True), (SCORES[2], False), (SCORES[3], True)]


async def test_only_what_was_missing_is_kept_again() -> None:
    shelf = Shelf()
    recall = Recall(shelf, KEYS)
    await recall.keep(await recall.look_up(BATCH[:1]), SCORES[:1])
    key, before = KEYS.key(BATCH[0]), shelf.held[KEYS.key(BATCH[0])]
    await recall.keep(await recall.look_up(BATCH[:2]), [SCORES[1]])
    assert shelf.held == {key: before, KEYS.key(BATCH[1]): SCORES[1]}


@pytest.mark.parametrize(
    "scores",
    [
        pytest.param(KnownScores((float("nan"),), 0.5), id="a step is NaN"),
        pytest.param(KnownScores((0.5,), float("nan")), id="the outcome is NaN"),
        pytest.param(KnownScores((float("inf"),), 0.5), id="infinite"),
        pytest.param(KnownScores((1.5,), 0.5), id="over one"),
    ],
)
async def test_what_is_no_probability_is_never_kept(scores: KnownScores) -> None:
    shelf = Shelf()
    recall = Recall(shelf, KEYS)
    await recall.keep(await recall.look_up(BATCH[:2]), [scores, SCORES[1]])
    assert list(shelf.held.values()) == [SCORES[1]]


@pytest.mark.parametrize(
    "scores",
    [
        pytest.param(KnownScores((0.5, 0.5), 0.5), id="a step too many"),
        pytest.param(KnownScores((), 0.5), id="a step too few"),
        pytest.param(KnownScores((0.5,), None), id="no outcome"),
    ],
)
async def test_scores_of_another_shape_are_a_miss(scores: KnownScores) -> None:
    recall = Recall(Shelf({KEYS.key(BATCH[0]): scores}), KEYS)
    assert (await recall.look_up(BATCH[:1])).missing == BATCH[:1]
