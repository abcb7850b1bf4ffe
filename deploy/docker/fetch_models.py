"""Models of the hub, fetched into a folder before anything serves them; those that serve have no way out.

`python fetch_models.py FOLDER MODEL[@COMMIT]...` fetches each model into FOLDER/MODEL, unless it lies there already at
that commit. An absolute path is a model of the image, and left alone. Weights are safetensors or not fetched at all.
"""

import sys
from collections.abc import Callable
from pathlib import Path

# Pickled weights (.bin, .pt) and code (.py) are never served, so they are not fetched either.
PATTERNS = ("*.safetensors", "*.json", "*.jinja", "*.model", "tokenizer*.txt", "vocab.txt", "merges.txt")
_DONE = ".fetched"

Download = Callable[[str, str | None, Path], None]


def fetch(folder: Path, wanted: str, download: Download) -> bool:
    """Fetch `wanted` (MODEL or MODEL@COMMIT) into its place under `folder`. False when there was nothing to do."""
    model, _, commit = wanted.partition("@")
    if not model or model.startswith("/"):
        return False
    place = folder / model
    if not place.resolve().is_relative_to(folder.resolve()):
        raise ValueError("a model's name leads out of the folder")
    done = place / _DONE
    if done.is_file() and done.read_text(encoding="ascii") == commit:
        return False
    download(model, commit or None, place)
    done.write_text(commit, encoding="ascii")
    return True


def _from_hub(model: str, commit: str | None, place: Path) -> None:
    from huggingface_hub import snapshot_download

    snapshot_download(model, revision=commit, local_dir=place, allow_patterns=list(PATTERNS))


if __name__ == "__main__":
    for argument in sys.argv[2:]:
        print(f"{argument}: {'fetched' if fetch(Path(sys.argv[1]), argument, _from_hub) else 'is there'}")  # noqa: T201
