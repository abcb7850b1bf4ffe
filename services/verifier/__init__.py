"""The verifier service: scores every step of a solution with a reward model."""
