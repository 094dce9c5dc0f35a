"""The reference Fashion-MNIST project: Hydra composes, MLflow tracks, DVC rebuilds, Keras trains."""
