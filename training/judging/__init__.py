"""Reward models in training: labels at read-out rows, the loss, the export, and scoring with the result."""
