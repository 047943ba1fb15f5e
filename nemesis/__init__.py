"""Nemesis: what can go wrong, as plain values; when it does, drawn from a seed; and how to do and undo it."""
