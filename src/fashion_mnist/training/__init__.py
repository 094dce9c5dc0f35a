"""From a configuration and images to a trained model, and to the file that holds it."""
