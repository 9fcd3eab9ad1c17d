"""A simulated world for durable runs: see docs/simulation.md."""
