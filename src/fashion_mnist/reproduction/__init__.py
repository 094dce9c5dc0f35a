"""A run made again from what the tracking store keeps of it, and whether it came out the same."""
