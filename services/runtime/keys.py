"""API keys: what one looks like, how it is kept, whom it stands for. Knows files and hashes, no HTTP.

A key is `e2h_PREFIX_SECRET`. The prefix is public: it names the key in lists, logs and `e2h keys revoke`. The secret
has 256 random bits, so its plain SHA-256 is safe to store (a slow hash guards guessable secrets), and that digest is
all that the file holds.
"""

import fcntl
import hashlib
import os
import re
import secrets
import string
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, get_args

from limits import RateLimitItem, parse
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, StringConstraints, ValidationError

# `admin` may everything; the others are named after what they open (`auth.py` has the table).
Scope = Literal["solve", "score", "generate", "grade", "jobs", "metrics", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

_ALPHABET = string.ascii_lowercase + string.digits
_PREFIX_LENGTH = 8
_KEY = re.compile(r"e2h_([a-z0-9]{8})_[A-Za-z0-9_-]{43}")
_FORM = re.compile(r"[1-9][0-9]{0,8}/([1-9][0-9]{0,4} ?)?(second|minute|hour|day)s?")


class KeysFileError(Exception):
    """The file of keys cannot be used; the message names the fault and quotes nothing of the file."""


def parse_rate(text: str) -> RateLimitItem:
    """A rate as `60/minute` or `100/15 minutes`. Raises `ValueError` for anything else."""
    if not _FORM.fullmatch(text):
        raise ValueError("write a rate as 60/minute or 100/15 minutes (second, minute, hour, day)")
    return parse(text)


def _checked_rate(text: str) -> str:
    parse_rate(text)
    return text


Rate = Annotated[str, AfterValidator(_checked_rate)]


class KeyRecord(BaseModel):
    """What is kept of one key."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)

    prefix: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]{8}$")]
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    tenant: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    scopes: tuple[Scope, ...]
    created: AwareDatetime
    expires: AwareDatetime | None = None
    rate: Rate | None = None

    def allows(self, scope: Scope) -> bool:
        return scope in self.scopes or "admin" in self.scopes

    def expired(self, now: datetime) -> bool:
        return self.expires is not None and now >= self.expires


class KeyFile(BaseModel):
    """The whole file. `version` changes when a record's meaning does."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)

    version: Literal[1] = 1
    keys: tuple[KeyRecord, ...] = ()


def new_key(
    tenant: str,
    scopes: Sequence[Scope],
    *,
    taken: Collection[str] = (),
    expires: datetime | None = None,
    rate: str | None = None,
) -> tuple[str, KeyRecord]:
    """A fresh key and the record of it. `taken` are prefixes in use. Raises pydantic's `ValidationError`."""
    prefix = _prefix()
    while prefix in taken:
        prefix = _prefix()
    key = f"e2h_{prefix}_{secrets.token_urlsafe(32)}"
    record = KeyRecord(
        prefix=prefix,
        sha256=digest(key),
        tenant=tenant,
        scopes=tuple(dict.fromkeys(scopes)),
        created=datetime.now(UTC).replace(microsecond=0),
        expires=expires,
        rate=rate,
    )
    return key, record


def digest(key: str) -> str:
    """What the file keeps of a key: SHA-256, hexadecimal."""
    return hashlib.sha256(key.encode()).hexdigest()


def prefix_of(text: str) -> str | None:
    """The public part of a key; None when the text does not have the form of one."""
    found = _KEY.fullmatch(text)
    return None if found is None else found[1]


def holds_key(text: str) -> bool:
    """Whether a key stands anywhere in the text."""
    return _KEY.search(text) is not None


def masked(text: str) -> str:
    """The text with the secret of every key in it replaced; which key it was can still be told."""
    return _KEY.sub(r"e2h_\1_***", text) if "e2h_" in text else text


def read_keys(path: Path) -> tuple[KeyRecord, ...]:
    """Raises `KeysFileError`, or `FileNotFoundError` where there is no file."""
    try:
        keys = KeyFile.model_validate_json(path.read_bytes()).keys
    except FileNotFoundError:
        raise
    except OSError as error:
        raise KeysFileError(f"the file of API keys cannot be read ({type(error).__name__})") from None
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors(include_input=False)[0]["loc"])
        raise KeysFileError(
            f"the file of API keys is not as `e2h keys` writes it{where and f' (at {where})'}"
        ) from None
    if len({record.prefix for record in keys}) != len(keys):
        raise KeysFileError("the file of API keys has two keys with one prefix")
    return keys


def change_keys(path: Path, change: Callable[[tuple[KeyRecord, ...]], tuple[KeyRecord, ...]]) -> None:
    """Replace the file's keys at once: a reader sees the old or the new, and two who change wait for each other.

    Raises `KeysFileError` when what is there cannot be read, and `OSError` when nothing can be written.
    """
    path = path.resolve()  # a link keeps pointing at what it did
    with _locked(path):
        present = read_keys(path) if path.exists() else ()
        content = KeyFile(keys=change(present)).model_dump_json(indent=2) + "\n"
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o600
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as new:
            new.write(content.encode())
            new.flush()
            os.fsync(new.fileno())
        Path(new.name).chmod(mode)
        Path(new.name).replace(path)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def _prefix() -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(_PREFIX_LENGTH))
