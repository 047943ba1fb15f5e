"""Checkers: pure functions from a history to a verdict, and the history format itself."""
