"""The paper's experiment on the lab: train on easy problems, rerank and train policies on hard ones, report."""
