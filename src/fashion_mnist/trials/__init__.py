"""Searches: what is varied, the study that Optuna keeps, one trial of it, and what came out."""
