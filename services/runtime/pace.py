"""How fast reserved tokens have gone of late, which predicts how long others wait. Pure: no clock."""

# The weight of the newest release.
_NEWEST = 0.05


class Pace:
    """Moving averages over releases; the caller leaves idle times out."""

    def __init__(self) -> None:
        self._tokens, self._seconds = 0.0, 0.0

    def learn(self, tokens: int, seconds: float) -> None:
        """So many went, so long after the ones before them."""
        newest = _NEWEST if self._seconds else 1.0
        self._tokens += newest * (tokens - self._tokens)
        self._seconds += newest * (seconds - self._seconds)

    def seconds(self, tokens: int) -> float:
        """What so many will take; 0 while nothing is known, as nobody is refused for a guess."""
        return tokens * self._seconds / self._tokens if self._tokens else 0.0
