"""From a published checkpoint to one that the service loads: safetensors, a config that names family and kind.

Reads `pytorch_model*.bin` shards with torch's restricted unpickler, mapped into memory, and never otherwise; a file
that holds anything but tensors is refused before anything in it runs. Works shard by shard: memory is bounded by the
shards that it writes, not by the model.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file

from services.core.contracts import VerifierKind
from services.core.errors import ModelLoadError
from services.runtime.checkpoint import read_config, without_remote_code
from services.verifier.attention import decoder_config
from services.verifier.families import easy_to_hard
from services.verifier.families.architectures import IMPLEMENTED
from services.verifier.families.checkpoint import Checkpoint, own_block
from services.verifier.families.registry import FAMILIES, recognise
from services.verifier.head import LM_HEAD, collapse
from services.verifier.loading import load_reward_model
from services.verifier.selftest import self_test
from services.verifier.settings import VerifierSettings
from services.verifier.shards import Survey, load_shard, shards_of
from services.verifier.tensors import INDEX

_SHARD_BYTES = 2 * 2**30
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)
# A buffer of old versions of transformers, computed at load since.
_COMPUTED = "rotary_emb.inv_freq"


@dataclass(frozen=True)
class Conversion:
    """What was written. `tensors` counts those of the new checkpoint, `collapsed` the rows that became one."""

    family: str
    why: str
    kind: VerifierKind
    shards: int
    tensors: int
    collapsed: int | None


def convert(source: Path, target: Path, settings: VerifierSettings, *, check: bool = True) -> Conversion:
    """Write the checkpoint of `source` to `target`, which must not exist or be empty.

    `settings` say family, kind and outcome position where the source's files do not. With `check`, the result is
    loaded on the CPU and held to its self-test before it appears at `target`. Raises `ModelLoadError`; then nothing is
    at `target`.
    """
    config = _source_config(source)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ModelLoadError(f"{target} exists already", "name a directory that does not exist; none is overwritten")
    shards = shards_of(source)
    checkpoint = Checkpoint(config, own_block(config), Survey(source, shards), settings)
    found = recognise(checkpoint)
    kind = checkpoint.kind(FAMILIES[found.family].kinds)
    decoder_config(config)
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        writer = _Writer(work, collapse_head=found.family == easy_to_hard.NAME)
        for shard in shards:
            writer.add(load_shard(shard))
        writer.finish()
        _write_config(work, config, checkpoint, found.family, kind, collapsed=writer.collapsed is not None)
        _write_tokenizer(source, work)
        if check:
            self_test(load_reward_model(_check_settings(work)))
        work.chmod(0o755)
        work.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return Conversion(found.family, found.why, kind, writer.shards, len(writer.places), writer.collapsed)


def _source_config(source: Path) -> dict[str, Any]:
    if not source.is_dir():
        raise ModelLoadError(f"model directory {source} does not exist", "download the checkpoint and name its folder")
    return without_remote_code(read_config(str(source)), str(source), IMPLEMENTED)


class _Writer:
    """Writes tensors into safetensors shards of bounded size and, at the end, their index."""

    def __init__(self, directory: Path, *, collapse_head: bool) -> None:
        self._directory = directory
        self._collapse_head = collapse_head
        self.places: dict[str, str] = {}
        self.shards = 0
        self.collapsed: int | None = None
        self._bytes = 0

    def add(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """The tensors of one source shard."""
        part: dict[str, torch.Tensor] = {}
        size = 0
        for name, tensor in self._kept(tensors):
            if part and size + tensor.nbytes > _SHARD_BYTES:
                self._write(part)
                part, size = {}, 0
            # A copy: tied tensors share memory, which safetensors does not keep.
            part[name] = tensor.contiguous().clone()
            size += tensor.nbytes
        self._write(part)

    def finish(self) -> None:
        """Give the shards their final names and write the index."""
        names = {str(k): self._name(k) for k in range(1, self.shards + 1)}
        for number, name in names.items():
            (self._directory / number).rename(self._directory / name)
        if self.shards > 1:
            index = {
                "metadata": {"total_size": self._bytes},
                "weight_map": {tensor: names[number] for tensor, number in self.places.items()},
            }
            _write_json(self._directory / INDEX, index)

    def _name(self, number: int) -> str:
        return "model.safetensors" if self.shards == 1 else f"model-{number:05}-of-{self.shards:05}.safetensors"

    def _kept(self, tensors: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
        for name, tensor in tensors.items():
            if name.endswith(_COMPUTED):
                continue
            if self._collapse_head and name == LM_HEAD:
                self.collapsed = tensor.shape[0]
                yield "score.weight", collapse(tensor)
            else:
                yield name, tensor

    def _write(self, part: dict[str, torch.Tensor]) -> None:
        if not part:
            return
        self.shards += 1
        save_file(part, self._directory / str(self.shards), {"format": "pt"})
        self.places |= dict.fromkeys(part, str(self.shards))
        self._bytes += sum(tensor.nbytes for tensor in part.values())


def _write_config(
    work: Path, config: dict[str, Any], checkpoint: Checkpoint, family: str, kind: VerifierKind, *, collapsed: bool
) -> None:
    said = {"separator": checkpoint.settings.separator, "prompt": checkpoint.settings.prompt}
    own = {**checkpoint.own, "family": family, "kind": kind, **{k: v for k, v in said.items() if v is not None}}
    if family == easy_to_hard.NAME:
        own["eos_readout"] = checkpoint.settings.eos_readout or own.get("eos_readout", "at")
    written = {**config, "e2h": own}
    if collapsed:
        names = [name.replace("ForCausalLM", "ForTokenClassification") for name in checkpoint.architectures]
        written |= {
            "architectures": names,
            "tie_word_embeddings": False,
            "id2label": {"0": "LABEL_0"},
            "label2id": {"LABEL_0": 0},
        }
    _write_json(work / "config.json", written)


def _write_tokenizer(source: Path, work: Path) -> None:
    """Copy the tokenizer; make a tokenizer.json of one that has only a slow form."""
    if (source / "tokenizer.json").is_file():
        for name in _TOKENIZER_FILES:
            if (source / name).is_file():
                shutil.copyfile(source / name, work / name)
        return
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, trust_remote_code=False, local_files_only=True)
        tokenizer.save_pretrained(work)
    except Exception as error:  # transformers raises whatever it likes on broken files and missing packages
        raise ModelLoadError(
            f"the tokenizer of {source} cannot be converted: {type(error).__name__}",
            "put a tokenizer.json beside the model, or pip install sentencepiece",
        ) from error
    if not (work / "tokenizer.json").is_file():
        raise ModelLoadError(f"the tokenizer of {source} has no fast form", "put a tokenizer.json beside the model")


def _check_settings(work: Path) -> VerifierSettings:
    """The converted checkpoint must be served by what its own files say, whatever the environment says."""
    unsaid = {"family": None, "kind": None, "eos_readout": None, "separator": None, "prompt": None}
    return VerifierSettings(model=str(work), device="cpu", dtype="float32", **unsaid)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
