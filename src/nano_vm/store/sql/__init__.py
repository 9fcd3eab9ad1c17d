"""Runs in SQLite or PostgreSQL."""
