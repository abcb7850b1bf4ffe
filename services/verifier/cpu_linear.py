"""A CPU's linear layers with weights laid out in advance, and the gated MLP in three products. float32 only.

oneDNN multiplies some 13 % faster with weights in its own layout, and applies the activation and the gate while a
result is still in a register. torch uses both only where it compiles a model; these are the same kernels without a
compiler on the serving machine.
"""

import torch
from torch import nn

from services.core.errors import ModelLoadError

# How many rows the layout is chosen for: a batch of some solutions. Any number is served.
_ROWS = 1024


def has_products() -> bool:
    """Whether this torch has oneDNN's products."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def product(rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """[rows, outputs] of rows [rows, inputs] and a weight [outputs, inputs].

    Slow unless the weight is contiguous or the transpose of what is.
    """
    out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, None, "none", [], "")
    return out


def pack_linears(body: nn.Module) -> bool:
    """Replace the linear layers of `body`, in place, where torch has the kernels. Returns whether it has.

    The products stay the same up to float32 rounding; gradients are gone.
    """
    if not has_products():
        return False
    for parent in list(body.modules()):
        for name, child in list(parent.named_children()):
            if _is_gated_mlp(child):
                setattr(parent, name, _GatedMlp(child))
            elif is_plain(child):
                setattr(parent, name, PackedLinear(child))
    return True


def is_plain(module: nn.Module) -> bool:
    return type(module) is nn.Linear and module.weight.dtype == torch.float32 and module.weight.device.type == "cpu"


def _is_gated_mlp(module: nn.Module) -> bool:
    """Whether it is down(silu(gate(x)) * up(x)), as in Llama, Mistral and Qwen."""
    children = dict(module.named_children())
    linear = ("gate_proj", "up_proj", "down_proj")
    if set(children) != {*linear, "act_fn"} or not all(is_plain(children[name]) for name in linear):
        return False
    probe = torch.tensor([-1.5, 0.5, 2.0])
    with torch.inference_mode():
        same_activation = bool(torch.equal(children["act_fn"](probe), nn.functional.silu(probe)))
        return same_activation and _computes_as_assumed(module, children)


def _computes_as_assumed(module: nn.Module, children: dict[str, nn.Module]) -> bool:
    """Layers of these names may be put together otherwise: ask one row."""
    row = torch.linspace(-1.0, 1.0, int(children["gate_proj"].in_features)).unsqueeze(0)  # type: ignore[arg-type]
    expected = children["down_proj"](nn.functional.silu(children["gate_proj"](row)) * children["up_proj"](row))
    found = module(row)
    return isinstance(found, torch.Tensor) and bool(torch.allclose(found, expected, rtol=1e-5, atol=1e-6))


class Packed:
    """One weight in oneDNN's layout, with its bias. No module: what moves or saves modules must not touch it."""

    def __init__(self, linear: nn.Linear) -> None:
        """Raises `ModelLoadError` when the product is another one than before."""
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), _ROWS)
        self.bias = None if linear.bias is None else linear.bias.detach()
        self._compare(linear)

    @torch.inference_mode()
    def _compare(self, linear: nn.Linear) -> None:
        # The start-up self-test runs on packed layers on both of its sides: it could not tell.
        row = torch.linspace(-1.0, 1.0, linear.in_features).unsqueeze(0)
        expected = linear(row)
        if not torch.allclose(self(row), expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max() + 1)):
            raise ModelLoadError("oneDNN multiplies this model's weights wrongly on this CPU", "report it with the CPU")

    # The compiler knows no weights in oneDNN's layout.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def __call__(self, rows: torch.Tensor, activation: str = "none") -> torch.Tensor:
        out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(rows, self.weight, self.bias, activation, [], "")
        return out

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def times(self, rows: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """The product of the layer's output with `other`, element by element."""
        out: torch.Tensor = torch.ops.mkldnn._linear_pointwise.binary(rows, other, self.weight, self.bias, "mul")
        return out


class PackedLinear(nn.Module):
    def __init__(self, linear: nn.Module) -> None:
        super().__init__()
        self._packed = Packed(linear)  # type: ignore[arg-type]

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self._packed(rows)
        return out


class _GatedMlp(nn.Module):
    def __init__(self, mlp: nn.Module) -> None:
        super().__init__()
        self._gate, self._up, self._down = (Packed(getattr(mlp, f"{name}_proj")) for name in ("gate", "up", "down"))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self._down(self._up.times(rows, self._gate(rows, "swish")))
        return out
