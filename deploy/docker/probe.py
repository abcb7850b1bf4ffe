"""Whether the service in this container is ready: exit code 0 when `/ready` answers 200. Standard library alone."""

import sys
import urllib.request

_TIMEOUT_S = 4.0


def ready(port: int) -> bool:
    """Ask the service on this port of the loopback. Raises nothing."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=_TIMEOUT_S) as response:
            return bool(response.status == 200)
    except (OSError, ValueError):  # HTTPError of a 503 is an OSError
        return False


if __name__ == "__main__":
    sys.exit(0 if ready(int(sys.argv[1])) else 1)
