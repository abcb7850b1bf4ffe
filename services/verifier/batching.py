"""Which waiting solutions go in the next forward pass. Pure: no clock, no queue, no torch."""

from collections.abc import Sequence


def padded_tokens(lengths: Sequence[int]) -> int:
    """Rows of a padded batch of these lengths."""
    return max(lengths, default=0) * len(lengths)


def take_batch(lengths: Sequence[int], budget: int) -> list[int]:
    """The places of the solutions to run next, given the lengths of all that wait, oldest first.

    The oldest always goes, so nothing starves; with it go as many as fit `budget` padded tokens, nearest in length
    first, so that little is padded. A lone oversize solution still goes. Empty only when nothing waits.
    """
    if not lengths:
        return []
    order = sorted(range(len(lengths)), key=lambda place: (lengths[place], place))
    oldest = order.index(0)
    best = (oldest, oldest + 1)
    for end in range(oldest, len(order)):
        fitting = max(1, budget // lengths[order[end]])
        begin = max(0, end + 1 - fitting)
        if begin <= oldest and end + 1 - begin > best[1] - best[0]:
            best = (begin, end + 1)
    return sorted(order[best[0] : best[1]])
