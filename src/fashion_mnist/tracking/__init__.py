"""What MLflow knows of a training: what made it, what it gave, and how both are told and found again."""
