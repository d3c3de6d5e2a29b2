"""What d3po costs, as ratios measured on the machine at hand. Run `python -m benchmarks`; docs/benchmarks.md explains the figures."""
