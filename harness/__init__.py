"""Harness: runs a test from configuration to verdict."""
