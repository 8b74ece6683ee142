# SPDX-License-Identifier: Apache-2.0
"""What holds for all tests: no property test fails because its machine is busy."""

from hypothesis import HealthCheck, settings

settings.register_profile("troth", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("troth")
