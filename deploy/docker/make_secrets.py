"""Secrets that nobody has to type: made at the first start, into a volume that only their users mount.

`python make_secrets.py FOLDER` writes what is missing and changes nothing that is there. Standard library alone.
The folder is an `E2H_SECRETS_DIR`: a file named after a setting is that setting.
"""

import secrets
import sys
from pathlib import Path

# Readable by every user of the volume: redis and grafana run under the ids of their own images.
_MODE = 0o444


def make(folder: Path) -> None:
    """The passwords of redis and of grafana's first user, and the address of redis with its password."""
    redis = _keep(folder / "redis_password", secrets.token_urlsafe(32))
    _keep(folder / "grafana_password", secrets.token_urlsafe(18))
    for setting, database in (("E2H_REDIS_URL", 0), ("E2H_JOBS_REDIS_URL", 1)):
        _keep(folder / setting, f"redis://:{redis}@redis:6379/{database}")


def _keep(path: Path, value: str) -> str:
    """What the file holds; `value`, when there is none yet."""
    if not path.exists():
        fresh = path.with_suffix(".new")
        fresh.write_text(value, encoding="ascii")
        fresh.chmod(_MODE)
        fresh.rename(path)
    return path.read_text(encoding="ascii")


if __name__ == "__main__":
    make(Path(sys.argv[1]))
