"""Step-level search: solutions are grown step by step, and the verifier says after each step which of them go on.

`tree` decides (pure), `searching` draws and acts, `scoring` asks the verifier.
"""

from services.orchestrator.search.metrics import SearchMetrics
from services.orchestrator.search.searching import Search

__all__ = ["Search", "SearchMetrics"]
