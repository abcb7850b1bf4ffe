"""A checkpoint directory in, a `RewardModel` out: device, dtype, body, head and family, or a clear refusal."""

import logging
from pathlib import Path
from typing import Any

import torch
import transformers

from services.core.contracts import VerifierInfo
from services.core.errors import ModelLoadError
from services.runtime.checkpoint import check_model_directory, check_vocabulary
from services.verifier.attention import decoder_config
from services.verifier.compiling import compile_layers
from services.verifier.cpu_layers import pack_layers
from services.verifier.families.architectures import IMPLEMENTED
from services.verifier.families.checkpoint import Checkpoint
from services.verifier.families.registry import family_of
from services.verifier.memory import keep_activations
from services.verifier.model import RewardModel
from services.verifier.packed_attention import NAME as ATTENTION
from services.verifier.settings import VerifierSettings

# Larger than any activation of a CPU batch: 4,096 tokens of a 7B model's widest layer are 180 MB in float32.
_KEPT_BLOCK_BYTES = 2**28


def load_reward_model(settings: VerifierSettings) -> RewardModel:
    """The checkpoint of `settings`. Raises `ModelLoadError` when it cannot be served."""
    directory = Path(settings.model).expanduser()
    config = check_model_directory(settings.model, IMPLEMENTED)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    device = _device(settings.device)
    body_config, context_length = decoder_config(config)
    tokenizer = _load(transformers.AutoTokenizer, directory)
    family, head = family_of(Checkpoint.open(directory, config, settings), tokenizer)
    body = _load_body(directory, body_config, _dtype(settings, device))
    check_vocabulary(len(tokenizer), body.get_input_embeddings().weight.shape[0], settings.model)
    if head.width != body.config.hidden_size:
        raise ModelLoadError("the reward head does not fit the model's hidden size", "save head and body together")
    info = VerifierInfo(
        id=settings.model.rstrip("/"),
        context_length=context_length,
        kind=family.kind,
        family=family.name,
        default_aggregation=family.default_aggregation,
    )
    body = body.to(device).eval()
    if device.type == "cpu":
        keep_activations(_KEPT_BLOCK_BYTES)
        pack_layers(body)
    cache_bytes = settings.prefix_cache_mib * 2**20
    model = RewardModel(body, head.to(device), family, info, cache_bytes=cache_bytes)
    if settings.compile:
        compile_layers(model)
    return model


def _load_body(directory: Path, config: Any, dtype: torch.dtype) -> Any:
    body, report = _load(
        transformers.AutoModel,
        directory,
        config=config,
        use_safetensors=True,
        dtype=dtype,
        attn_implementation=ATTENTION,
        output_loading_info=True,
    )
    # transformers fills what is missing with random numbers, and scores would look like scores.
    if report["missing_keys"] or report["mismatched_keys"]:
        raise ModelLoadError(
            f"the weights in {directory} lack tensors of the model, or have them in another shape",
            "download or save the model again",
        )
    return body


def _load(loader: Any, directory: Path, **options: Any) -> Any:
    verbosity = transformers.utils.logging.get_verbosity()
    # It reports the reward head, which we read ourselves, as an unexpected tensor.
    transformers.utils.logging.set_verbosity(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()
    try:
        return loader.from_pretrained(directory, trust_remote_code=False, local_files_only=True, **options)
    except Exception as error:  # transformers and safetensors raise whatever they like on broken files
        raise ModelLoadError(
            f"the model in {directory} cannot be loaded: {type(error).__name__}", "download or save the model again"
        ) from error
    finally:
        transformers.utils.logging.set_verbosity(verbosity)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ModelLoadError(f"there is no device named {name!r}", "set E2H_VERIFIER_DEVICE to cpu or cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ModelLoadError("no CUDA device is available", "set E2H_VERIFIER_DEVICE=cpu, or mend the driver")
    return device


def _dtype(settings: VerifierSettings, device: torch.device) -> torch.dtype:
    if settings.dtype == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    return torch.float32 if settings.dtype == "float32" else torch.bfloat16
