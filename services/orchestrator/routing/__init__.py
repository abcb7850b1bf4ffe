"""Which replica answers, and what happens when it does not: load, affinity, retries, breakers. Knows ports, no HTTP."""

from services.orchestrator.routing.fleet import Policy
from services.orchestrator.routing.generator import ReplicatedGenerator
from services.orchestrator.routing.metrics import RoutingMetrics
from services.orchestrator.routing.verifier import ReplicatedVerifier

__all__ = ["Policy", "ReplicatedGenerator", "ReplicatedVerifier", "RoutingMetrics"]
