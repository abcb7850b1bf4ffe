"""e2h: the serving system of easy-to-hard generalization (Sun et al., 2024, arXiv 2403.09472)."""

__version__ = "0.1.0"
