"""Compare the normalizations a small CNN can use, and say how sure the answer is."""
