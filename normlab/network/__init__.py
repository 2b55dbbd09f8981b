"""The network, its normalizations, and the engine that computes it."""
