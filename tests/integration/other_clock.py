"""A process whose wall clock is not ours, as on another host.

    python -m tests.integration.other_clock SECONDS_AHEAD MODULE

runs `main` of a module so. What measures spans (`time.monotonic`, the event loop) is as it is.
"""

import datetime
import importlib
import sys
import time
from datetime import datetime as Datetime
from typing import Any

_CLOCK, _CLOCK_NS = time.time, time.time_ns
_WHO_ASK_FOR_DATES = ("services", "dramatiq")


def set_clock_ahead(seconds: float) -> None:
    """Move the wall clock of this process, also for modules that took it by name when they were imported."""

    class Moved(Datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Any:
            return Datetime.now(tz) + datetime.timedelta(seconds=seconds)

    instead: dict[Any, Any] = {
        _CLOCK: lambda: _CLOCK() + seconds,
        _CLOCK_NS: lambda: _CLOCK_NS() + round(seconds * 1e9),
        Datetime: Moved,
    }
    for name, module in list(sys.modules.items()):
        if module is sys.modules[__name__] or module is datetime:
            continue
        for attribute, value in list(vars(module).items()):
            if value is Datetime and name.partition(".")[0] not in _WHO_ASK_FOR_DATES:
                continue
            if value is _CLOCK or value is _CLOCK_NS or value is Datetime:
                setattr(module, attribute, instead[value])


def main() -> int:
    """The exit code of the module's `main`."""
    run = importlib.import_module(sys.argv[2]).main
    set_clock_ahead(float(sys.argv[1]))
    return int(run())


if __name__ == "__main__":
    sys.exit(main())
