"""PPO with step-level rewards: the pieces of the loop. No library keeps one (TRL's GRPO and RLOO pay sequences)."""
