"""Reading what deploy/ holds: YAML without anchors, the stages of the Dockerfile, modules that are in no package."""

import importlib.util
import re
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "deploy/docker/Dockerfile"


class _Loader(yaml.SafeLoader):
    """Knows compose's `!override`."""


_LOADERS = {
    yaml.SequenceNode: _Loader.construct_sequence,
    yaml.MappingNode: _Loader.construct_mapping,
    yaml.ScalarNode: _Loader.construct_scalar,
}
_Loader.add_constructor("!override", lambda loader, node: _LOADERS[type(node)](loader, node))


def documents(path: Path) -> list[Any]:
    """The YAML documents of a file."""
    return list(yaml.load_all(path.read_text(encoding="utf-8"), Loader=_Loader))


def compose(path: str = "docker-compose.yml") -> dict[str, Any]:
    return dict(documents(ROOT / path)[0])


def module(path: str) -> ModuleType:
    """A script of deploy/ as a module; modules beside it are found, as when it is run."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(path)
    loaded = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str((ROOT / path).parent))
        spec.loader.exec_module(loaded)
    return loaded


@dataclass
class Stage:
    """One `FROM ... AS name` and its instructions, each as (word, rest)."""

    name: str
    base: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def last(self, word: str) -> str | None:
        return next((rest for told, rest in reversed(self.instructions) if told == word), None)


def stages() -> dict[str, Stage]:
    """The Dockerfile's stages by name."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    found: dict[str, Stage] = {}
    current: Stage | None = None
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            current = found[name] = Stage(name, base)
        elif word and current is not None:
            current.instructions.append((word, rest))
    return found


def lineage(name: str) -> list[Stage]:
    """A stage and those it is built on, itself first."""
    known = stages()
    chain = [known[name]]
    while chain[-1].base in known:
        chain.append(known[chain[-1].base])
    return chain
