"""Data sets: their files and where they come from, reading, dividing, augmenting."""
