"""Figures and the page: they show numbers that others have computed."""
