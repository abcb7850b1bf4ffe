"""What a checkpoint is and whether it could be served, told without loading it: config, headers, four rows at most."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from services.core.errors import ModelLoadError
from services.runtime.checkpoint import check_model_directory, read_config
from services.verifier.attention import decoder_config
from services.verifier.families.architectures import IMPLEMENTED
from services.verifier.families.checkpoint import Checkpoint, own_block
from services.verifier.families.registry import FAMILIES, recognise
from services.verifier.settings import VerifierSettings
from services.verifier.tensors import Tensors

_HEAD_NAMES = ("score.", "classifier.", "v_head.", "lm_head.")
_BYTES = {"F64": 8, "F32": 4, "I64": 8, "I32": 4, "BF16": 2, "F16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "I8": 1, "U8": 1}


@dataclass
class Inspection:
    """`facts` are name and value in the order of the table; `refusals` are what stands in the way, and the mend."""

    facts: dict[str, str] = field(default_factory=dict)
    refusals: list[tuple[str, str]] = field(default_factory=list)

    @property
    def servable(self) -> bool:
        return not self.refusals

    @contextmanager
    def noting(self) -> Iterator[None]:
        """A refusal inside the block is noted, and the rest still told."""
        try:
            yield
        except ModelLoadError as error:
            self.refusals.append((error.message, error.hint))


def inspect_checkpoint(settings: VerifierSettings) -> Inspection:
    """All that can be told of the directory `settings.model` without reading its weights. Raises nothing."""
    found = Inspection()
    directory = Path(settings.model).expanduser()
    with found.noting():
        check_model_directory(settings.model, IMPLEMENTED)
    if not directory.is_dir() or not (directory / "config.json").is_file():
        return found
    with found.noting():
        config = read_config(settings.model)
        found.facts["architecture"] = _architecture(config)
        _tell_context(found, config)
        own_block(config)
        if any(directory.glob("*.safetensors")):
            _tell_weights(found, Checkpoint.open(directory, config, settings))
    return found


def _architecture(config: dict[str, Any]) -> str:
    names = ", ".join(map(str, config.get("architectures") or ())) or "not said"
    return f"{names} (model_type {config.get('model_type', 'not said')})"


def _tell_context(found: Inspection, config: dict[str, Any]) -> None:
    with found.noting():
        _, context = decoder_config(config)
        window = config.get("sliding_window") if config.get("use_sliding_window", True) else None
        bound = f" (its sliding window; {config['max_position_embeddings']} positions)" if window == context else ""
        found.facts["context"] = f"{context} tokens{bound}"


def _tell_weights(found: Inspection, checkpoint: Checkpoint) -> None:
    tensors = checkpoint.tensors
    heads = {name: shape for name, shape in tensors.shapes.items() if name.startswith(_HEAD_NAMES)}
    found.facts["head"] = ", ".join(f"{name} {list(shape)}" for name, shape in heads.items()) or "none"
    if isinstance(tensors, Tensors):
        found.facts["weights"] = _weights(tensors)
    with found.noting():
        recognised = recognise(checkpoint)
        found.facts = {"family": f"{recognised.family}, because {recognised.why}", **found.facts}
        served = FAMILIES[recognised.family]
        kind = checkpoint.kind(served.kinds)
        found.facts["kind"] = kind
        found.facts["aggregation"] = str(checkpoint.aggregation(kind, served.default_aggregation))
        found.facts["golden scores"] = "yes" if "golden" in checkpoint.own else "none in the config"
        served.check_head(tensors, int(checkpoint.config.get("hidden_size") or checkpoint.config.get("n_embd") or 0))


def _weights(tensors: Tensors) -> str:
    count = sum(_numbers(shape) for shape in tensors.shapes.values())
    size = sum(_numbers(shape) * _BYTES.get(tensors.dtypes[name], 0) for name, shape in tensors.shapes.items())
    dtypes = ", ".join(sorted(set(tensors.dtypes.values())))
    return f"{count / 1e6:,.1f} M in {dtypes}, {size / 2**30:.2f} GiB in {tensors.shards} files"


def _numbers(shape: tuple[int, ...]) -> int:
    count = 1
    for side in shape:
        count *= side
    return count
