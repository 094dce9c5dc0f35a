"""The images: found, checked, prepared on disk, loaded."""
