"""Sweeps: one configuration under many seeds, on all cores.

one        one seed: drawn, run in memory, judged; stored only when it fails
swarm      each seed its own mix of faults and rates
pool       seeds over worker processes, whatever becomes of the workers
results    the file of results, appended to as they come, from which a sweep resumes
board      what was found so far, as a table or as lines
"""
