"""Keeps the C allocator from giving activations back to the kernel after every layer. On glibc; else nothing."""

import ctypes

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


def keep_activations(nbytes: int) -> bool:
    """Blocks up to `nbytes` come from the heap, and up to that much of it stays when they are freed.

    Without it each tensor of some MiB is mapped, faulted in page by page, and unmapped: 8 % of a CPU forward pass.
    Returns whether the allocator took it. What stays is bounded by the largest activations that were ever alive.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return all(mallopt(option, nbytes) == 1 for option in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD))
