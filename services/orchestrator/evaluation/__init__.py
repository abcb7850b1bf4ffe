"""Evaluation over data sets: items of work, scored samples and where they are kept, estimators, the report."""
