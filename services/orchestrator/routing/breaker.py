"""Whether a replica is sent requests. Pure: no clock; who waits `rest_s` and probes is the fleet.

closed ──(5 failures in a row, or half of the last 20, or `trip`)──> open
open ──(after `rest_s`, `probe`)──> half_open ──(`mend`)──> closed
                                              └─(`trip`)──> open
"""

from collections import deque
from typing import Literal

State = Literal["closed", "half_open", "open"]

_IN_A_ROW = 5
_WINDOW = 20
_LONGEST_REST = 5.0  # seconds between probes of a replica that stays away; one costs little


class Breaker:
    """Opens on failures; each time it opens without a success in between, it rests twice as long."""

    def __init__(self, rest_s: float) -> None:
        self._shortest = rest_s
        self._next_rest = rest_s
        self._in_a_row = 0
        self._window: deque[bool] = deque(maxlen=_WINDOW)  # whether each of the last requests failed
        self.state: State = "closed"
        self.rest_s = rest_s  # how long it rests from when it opened last

    def succeeded(self) -> None:
        """A request was answered. What was sent before it opened says nothing about now."""
        if self.state == "closed":
            self._in_a_row = 0
            self._window.append(False)
            self._next_rest = self._shortest

    def failed(self) -> None:
        """A request was not, through the replica's fault."""
        if self.state != "closed":
            return
        self._in_a_row += 1
        self._window.append(True)
        half = len(self._window) == _WINDOW and 2 * sum(self._window) >= _WINDOW
        if self._in_a_row >= _IN_A_ROW or half:
            self.trip()

    def trip(self) -> None:
        """Open, whatever was counted."""
        self.state = "open"
        self.rest_s = self._next_rest
        self._next_rest = min(_LONGEST_REST, 2 * self._next_rest)

    def probe(self) -> None:
        """The replica is being asked whether it is ready."""
        self.state = "half_open"

    def mend(self) -> None:
        """It is: begin to count anew."""
        self.state = "closed"
        self._in_a_row = 0
        self._window.clear()
