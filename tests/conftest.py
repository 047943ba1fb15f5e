"""What all tests share."""

from hypothesis import HealthCheck, settings

# How long an example takes, or making one up, says more about who else uses the machine than about the code. And the
# same examples each time: a change is judged by what it changes. For others: `--hypothesis-profile other-examples`.
PATIENT = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("splitbrain", derandomize=True, **PATIENT)
settings.register_profile("other-examples", max_examples=1_000, **PATIENT)
settings.load_profile("splitbrain")
