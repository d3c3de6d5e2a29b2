"""Benchmarks of d3po's time and memory, as ratios measured on this machine. Run `python -m benchmarks`; docs/benchmarks.md explains the figures."""
