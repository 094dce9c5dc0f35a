"""Which variant is better, and is that sure? Runs read back, grouped, judged, reported; the winner registered."""
