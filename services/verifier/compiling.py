"""The decoder's layers through `torch.compile`, if asked for: what stands between their products is fused.

The attention of the trie and oneDNN's products stay as they are, called from compiled code. Scores change by float
rounding only, and the start-up self-test compares them with plain forward passes, which are never compiled.
"""

import torch

from services.core.errors import ModelLoadError
from services.verifier.families.base import Encoded
from services.verifier.model import RewardModel

# A pass of one row is compiled apart from all others: none of the two shall wait for a request.
_WARM_UP = (Encoded((0,), (0,), None), Encoded((0, 0, 0), (2,), None))


def compile_layers(model: RewardModel) -> None:
    """Compile now, in place; takes up to a minute. Raises `ModelLoadError` where it cannot be done."""
    layers = getattr(model.body, "layers", None)
    if not isinstance(layers, torch.nn.ModuleList):
        raise ModelLoadError("the model's layers cannot be compiled", "unset E2H_VERIFIER_COMPILE")
    # Not the last one: part of it is another module in every pass (see `forward.py`).
    for layer in layers[:-1]:
        layer.compile(dynamic=True)
    try:
        for encoded in _WARM_UP:
            model.forget()
            model.score([encoded])
    except Exception as error:  # torch raises whatever its compiler, or the one that it calls, comes up with
        raise ModelLoadError(
            f"the model's layers cannot be compiled: {type(error).__name__}",
            "install a C++ compiler, on a GPU a C compiler for Triton, if there is none; or unset E2H_VERIFIER_COMPILE",
        ) from error
    model.forget()
