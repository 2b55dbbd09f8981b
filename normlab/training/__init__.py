"""Trials: from a recipe and a seed to trained weights, on one machine or many."""
