"""Comparing answers in processes that can be killed: the pool, its worker, its settings, its metrics."""

from services.orchestrator.grading.metrics import GradingMetrics
from services.orchestrator.grading.pool import GradingPool
from services.orchestrator.grading.settings import GradingSettings

__all__ = ["GradingMetrics", "GradingPool", "GradingSettings"]
