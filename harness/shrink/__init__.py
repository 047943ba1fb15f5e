"""Shrinking: from a run that violates its model to the smallest plan that still does.

ddmin      delta debugging over any list, without knowing what is in it
edits      pure functions from a plan to a smaller or simpler plan
attempt    a plan run in memory, and where its history goes wrong
shrinker   the search: which edits to try in which order, within a budget
story      the shrunk run told on one page, in order of time
"""
