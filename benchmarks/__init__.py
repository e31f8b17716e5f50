"""Benchmarks: each figure and the figure that it is compared with come from the same run."""
