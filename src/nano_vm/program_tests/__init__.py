"""Tests of programs, as data: a test file comes in, what passed and what was covered goes out."""
