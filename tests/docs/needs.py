"""What a command may need that not every reader has, and how the text near it must say so. Pure."""

import re

# A need, and the pattern that its section must hold. Within one clause: "needs a GPU, docker 24 or later" says both.
_CLAUSE = r"\b[Nn]eeds?\b[^.;:()|]*?"
NEEDS = {
    "a GPU": _CLAUSE + r"\bGPUs?\b",
    "docker": _CLAUSE + r"\bdocker\b",
    "a cluster": _CLAUSE + r"\bcluster\b",
    "the hub": _CLAUSE + r"\bhub\b",
    "locust": _CLAUSE + r"\blocust\b",
    "k6": _CLAUSE + r"\bk6\b",
    "a package index": _CLAUSE + r"\bpackage index\b",
    "a checkout": _CLAUSE + r"\bcheckout\b",
    "minutes": r"\b[Mm]inutes?\b",
}


def unsaid(needs: set[str], section: str) -> set[str]:
    """The needs that the section does not tell its reader."""
    return {need for need in needs if not re.search(NEEDS[need], section)}
