"""What is kept of a run: steps, usage, errors, digest and seal. Data in, JSON out."""
