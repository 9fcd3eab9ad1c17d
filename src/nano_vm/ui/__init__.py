"""The pages that show runs: one file that opens from disk, and a local server."""
