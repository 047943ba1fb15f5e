"""Guided search: runs that bring the cluster into states not seen before are kept, and changed a little.

features   what a run has reached, as a set of numbers
mutate     a plan changed a little, or two plans joined
corpus     the plans worth changing, and which to take next
"""
