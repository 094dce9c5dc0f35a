"""What a model is worth on the test set: numbers, predictions as a file, pictures."""
