"""Architectures that this house implements itself. Imports nothing, so that any command can ask."""

# Their code on the hub is not needed: the body is one of transformers, the head one of ours.
IMPLEMENTED = frozenset({"Qwen2ForProcessRewardModel", "Qwen2ForRewardModel", "Qwen2ForPrmModel"})
