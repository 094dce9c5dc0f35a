"""Jobs of a sweep, made side by side: who makes them, and what a worker does."""
