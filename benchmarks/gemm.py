"""The matrix-product limit: how fast this device runs a model's linear layers and nothing else.

No scorer that computes a number of rows can be faster than these products, so a method's seconds by this limit say what
its attention, norms, padding and bookkeeping cost.
"""

from collections.abc import Iterable, Sequence

import torch

from benchmarks.clock import Clock
from benchmarks.models import Product

_CHUNKS = (256, 512, 1024, 2048, 4096, 8192)
_PROBE_ROWS = {"cpu": 2048, "cuda": 8192}


class Gemms:
    """The products of all layers, each with weights of its own so that they come from memory as the model's do."""

    def __init__(self, layer: Sequence[Product], layers: int, dtype: torch.dtype, device: str) -> None:
        self._row_flops = layers * sum(product.flops for product in layer)
        self._device = device
        self._layers = [
            [torch.randn(product.outputs, product.inputs, dtype=dtype, device=device) for product in layer]
            for _ in range(layers)
        ]
        # Chunks, because activations that outgrow the caches make one large product slower than several small ones.
        probe = _PROBE_ROWS[torch.device(device).type]
        probes = {size: self._measure([size] * (probe // size)) for size in _CHUNKS if size <= probe}
        self.chunk = min(probes, key=lambda size: probes[size].own)
        self.peak = self.flops(probe) / probes[self.chunk].own
        """Floating-point operations a second at the best number of rows."""

    def flops(self, rows: int) -> float:
        """Floating-point operations of `rows` rows through all layers."""
        return float(rows) * self._row_flops

    def seconds(self, passes: Iterable[int]) -> Clock:
        """The time of forward passes of so many rows each through all layers, in chunks of the best size."""
        return self._measure([size for rows in passes for size in self._chunks(rows)])

    def _chunks(self, rows: int) -> list[int]:
        return [self.chunk] * (rows // self.chunk) + ([rows % self.chunk] if rows % self.chunk else [])

    @torch.inference_mode()
    def _measure(self, chunks: Sequence[int]) -> Clock:
        weight = self._layers[0][0]
        widths = {weight.shape[1] for weight in self._layers[0]}
        inputs = {width: torch.randn(max(chunks), width, dtype=weight.dtype, device=weight.device) for width in widths}
        for size in set(chunks):
            self._run(inputs, size, self._layers[:1])  # warms the library's kernels of this shape
        with Clock(self._device) as clock:
            for size in chunks:
                self._run(inputs, size, self._layers)
        return clock

    @staticmethod
    def _run(inputs: dict[int, torch.Tensor], rows: int, layers: Sequence[Sequence[torch.Tensor]]) -> None:
        for layer in layers:
            for weight in layer:
                torch.nn.functional.linear(inputs[weight.shape[1]][:rows], weight)
