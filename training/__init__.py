"""Training: data, supervised fine-tuning, reward models and the lab."""
