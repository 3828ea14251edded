"""Exact answers, with error bars, to what theory asks of a small neural network."""
