"""Training data: readers of published formats, the lab, step labels by rollouts. No model but through a port."""
