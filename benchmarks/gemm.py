"""The matrix-product limit: how fast this device runs a model's linear layers and nothing else.

No scorer that multiplies as PyTorch's `linear` does can be faster than these products, so a method's seconds by this
limit say what its attention, norms, padding and bookkeeping cost.
"""

from collections.abc import Callable, Iterable, Sequence

import torch

from benchmarks.clock import Clock
from benchmarks.models import Product

_CHUNKS = (256, 512, 1024, 2048, 4096, 8192)
_PROBE_ROWS = {"cpu": 2048, "cuda": 8192}
_PROBE_LAYERS = 8  # enough that their weights outgrow the caches
Layers = Sequence[Sequence[torch.Tensor]]
Multiply = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Gemms:
    """The products of all layers, each with weights of its own so that they come from memory as the model's do.

    `limit` is the time of rows with `linear`, as a model of transformers multiplies. `peaks` are floating-point
    operations a second at the best number of rows, of each way to multiply: on a CPU also with weights that oneDNN laid
    out in advance, as vLLM does.
    """

    def __init__(self, layer: Sequence[Product], layers: int, dtype: torch.dtype, device: str) -> None:
        self._layer_flops = sum(product.flops for product in layer)
        self._device = device
        self._layers = [
            [torch.randn(product.outputs, product.inputs, dtype=dtype, device=device) for product in layer]
            for _ in range(layers)
        ]
        # Chunks, because activations that outgrow the caches make one large product slower than several small ones.
        self.chunk, peak = self._probe(torch.nn.functional.linear, self._layers[:_PROBE_LAYERS])
        self.peaks = {"linear": peak}
        if device == "cpu" and torch.backends.mkldnn.is_available():
            _, self.peaks["oneDNN, weights laid out in advance"] = self._probe(_multiply_laid_out, self._laid_out())

    @property
    def peak(self) -> float:
        """The fastest way's floating-point operations a second."""
        return max(self.peaks.values())

    def flops(self, rows: int) -> float:
        """Floating-point operations of `rows` rows through all layers."""
        return float(rows) * self._layer_flops * len(self._layers)

    def limit(self, passes: Iterable[int]) -> Clock:
        """The time of forward passes of so many rows each through all layers, in chunks of the best size."""
        sizes = [size for rows in passes for size in self._chunks(rows)]
        return self._measure(torch.nn.functional.linear, self._layers, sizes)

    def _chunks(self, rows: int) -> list[int]:
        return [self.chunk] * (rows // self.chunk) + ([rows % self.chunk] if rows % self.chunk else [])

    def _probe(self, multiply: Multiply, layers: Layers) -> tuple[int, float]:
        """The best number of rows at once, and the floating-point operations a second with it."""
        rows = _PROBE_ROWS[torch.device(self._device).type]
        # Twice, the sizes in turn: a neighbour's burst must not choose.
        sizes = [size for _ in range(2) for size in _CHUNKS if size <= rows]
        times = dict.fromkeys(sizes, float("inf"))
        for size in sizes:
            times[size] = min(times[size], self._measure(multiply, layers, [size] * (rows // size)).own)
        best = min(times, key=lambda size: times[size])
        return best, float(rows) * self._layer_flops * len(layers) / times[best]

    def _laid_out(self) -> Layers:
        lay_out = torch.ops.mkldnn._reorder_linear_weight
        return [[lay_out(weight, None) for weight in layer] for layer in self._layers[:_PROBE_LAYERS]]

    @torch.inference_mode()
    def _measure(self, multiply: Multiply, layers: Layers, sizes: Sequence[int]) -> Clock:
        widths = [weight.shape[1] for weight in self._layers[0]]
        like = self._layers[0][0]
        inputs = {width: torch.randn(max(sizes), width, dtype=like.dtype, device=like.device) for width in set(widths)}

        def run(some: Layers, rows: int) -> None:
            for layer in some:
                for weight, width in zip(layer, widths, strict=True):
                    multiply(inputs[width][:rows], weight)

        for size in set(sizes):
            run(layers[:1], size)  # warms the library's kernels of this shape
        with Clock(self._device) as clock:
            for size in sizes:
                run(layers, size)
        return clock


def _multiply_laid_out(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(values, weight, None, "none", [], "")
    return product
