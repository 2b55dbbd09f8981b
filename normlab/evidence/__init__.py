"""What the trials show: scores, intervals, tests, verdicts."""
