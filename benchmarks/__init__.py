"""Measurements: one script per question, each beside what redis-py alone does in the same run. See README.md."""
