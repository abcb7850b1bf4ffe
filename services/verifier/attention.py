"""Whether a decoder's attention is what the forward pass computes: full and causal. Reads a config, loads no weights.

A sliding window is no obstacle up to its own length: the W-th token is the first that cannot see all before it, so a
context of W tokens makes the window and full causal attention the same function.
"""

from typing import Any

from transformers import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from services.core.errors import ModelLoadError

_WINDOWED = "sliding_attention"
_SERVED_LAYERS = {"full_attention", _WINDOWED}
# Entries that only layers with a recurrent state have (Mamba, RWKV, RecurrentGemma and their hybrids).
_RECURRENT_ENTRIES = ("state_size", "ssm_state_size", "mamba_d_state", "lru_width", "attention_hidden_size")
# Positions as a bias on attention scores, which the packed forward does not compute.
_ALIBI_TYPES = {"bloom", "mpt"}


def decoder_config(config: dict[str, Any]) -> tuple[Any, int]:
    """The body's config with any window taken off, and the context length within which that changes nothing.

    `config` is a checkpoint's config.json. Raises `ModelLoadError` for anything but a decoder with full, causal
    attention, or windowed attention with the same positions in every layer.
    """
    body = _parse(config)
    if getattr(body, "is_encoder_decoder", False) or not _max_positions(body):
        raise ModelLoadError("the model is no decoder with a known context length", "serve a causal reward model")
    if what := _other_attention(body):
        raise ModelLoadError(f"the model's attention is not fully causal ({what})", "serve another reward model")
    context = min([_max_positions(body), *_bounds(body)])
    _take_off_window(body)
    return body, context


def _parse(config: dict[str, Any]) -> Any:
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING:
        raise ModelLoadError(
            f"the architecture {model_type!r} is unknown to transformers", "serve a model that transformers ships"
        )
    try:
        return CONFIG_MAPPING[model_type].from_dict(config)
    except Exception as error:  # transformers validates entries with whatever exceptions it likes
        raise ModelLoadError(
            f"the model's config.json is no valid {model_type} config: {type(error).__name__}",
            "download or save the model again",
        ) from error


def _max_positions(body: Any) -> int:
    value = getattr(body, "max_position_embeddings", None)
    return value if isinstance(value, int) and value > 0 else 0


def _other_attention(body: Any) -> str | None:
    """What of the attention is not served, in words; None when all of it is."""
    layers = set(getattr(body, "layer_types", None) or ["full_attention"])
    if not layers <= _SERVED_LAYERS:
        return f"layers of {', '.join(sorted(layers - _SERVED_LAYERS))}"
    if any(getattr(body, entry, None) is not None for entry in _RECURRENT_ENTRIES):
        return "recurrent layers"
    if getattr(body, "alibi", False) or body.model_type in _ALIBI_TYPES:
        return "ALiBi positions"
    if getattr(body, "attn_logit_softcapping", None) is not None:
        return "a soft cap on attention scores"
    if body.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES or _says_bidirectional(body):
        return "bidirectional"
    if _WINDOWED in layers and _WINDOWED in (getattr(body, "rope_parameters", None) or {}):
        return "windows with positions of their own"
    return None


def _says_bidirectional(body: Any) -> bool:
    return bool(getattr(body, "use_bidirectional_attention", False)) or getattr(body, "is_causal", True) is False


def _bounds(body: Any) -> list[int]:
    """Context lengths beyond which attention or positions would be others."""
    window = getattr(body, "sliding_window", None) if getattr(body, "use_sliding_window", True) else None
    layers = getattr(body, "layer_types", None)
    windowed = window and (layers is None or _WINDOWED in layers)
    rope = getattr(body, "rope_parameters", None) or {}
    # LongRoPE switches its factors with the length of the whole batch.
    long_rope = rope.get("original_max_position_embeddings") if rope.get("rope_type") == "longrope" else None
    return [int(bound) for bound in (window if windowed else None, long_rope) if bound]


def _take_off_window(body: Any) -> None:
    if getattr(body, "sliding_window", None) is not None:
        body.sliding_window = None
    if getattr(body, "layer_types", None):
        body.layer_types = ["full_attention"] * len(body.layer_types)
