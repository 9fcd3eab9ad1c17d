"""What names hold: definite assignment, abstract values, infeasible branches."""
