"""Benchmarks: planners, their speed, and other libraries on the same problems."""
