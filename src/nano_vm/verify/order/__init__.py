"""Statements about order: guards and approvals, proved over the graph and judged over one run."""
