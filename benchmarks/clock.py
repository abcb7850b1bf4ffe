"""Time of a block of code: on the wall, and on this process's processors."""

import time
from typing import Self

import torch


class Clock:
    """Seconds of a `with` block, the device's pending work before and after it waited for.

    `seconds` is wall time. `busy` is the processor time of all threads of this process: with one thread on the CPU it
    is what `seconds` would be on a machine that nobody else uses.
    """

    def __init__(self, device: str) -> None:
        self._cuda = device.startswith("cuda")
        self.seconds = 0.0
        self.busy = 0.0

    def __enter__(self) -> Self:
        self._wait()
        self._began, self._began_busy = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self._wait()
        self.seconds = time.perf_counter() - self._began
        self.busy = time.process_time() - self._began_busy

    @property
    def single(self) -> bool:
        """Whether `busy` tells the whole time: one thread, on the CPU."""
        return not self._cuda and torch.get_num_threads() == 1

    @property
    def own(self) -> float:
        """The better of the two measures: `busy` where it tells the whole time, else `seconds`."""
        return self.busy if self.single else self.seconds

    def _wait(self) -> None:
        if self._cuda:
            torch.cuda.synchronize()
