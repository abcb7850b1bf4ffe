"""The public HTTP surface of the orchestrator, one file a group of routes."""
