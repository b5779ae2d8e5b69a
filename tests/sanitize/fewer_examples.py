"""A plugin for pytest: property tests try fewer examples, since each takes long under a sanitizer."""

from hypothesis import HealthCheck, settings

settings.register_profile("sanitize", deadline=None, max_examples=20, suppress_health_check=list(HealthCheck))
