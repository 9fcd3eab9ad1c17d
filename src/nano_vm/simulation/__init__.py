"""A simulated world for durable runs: see docs/how-to/simulation.md."""
