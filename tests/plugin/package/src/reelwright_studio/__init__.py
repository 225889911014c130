"""A generator of another package: its record, its plan, and its settings.

The plan is that of Reelwright's generator for tests, with parameters of the studio's own.
"""

from __future__ import annotations

from dataclasses import replace

from reelwright.backends.shared.job import Job
from reelwright.core.plan import Finding, Plan
from reelwright.testing import backend

from .settings import StudioSettings


def plan(job: Job[StudioSettings]) -> Plan:
    """The plan for tests, filmed through the chosen lens."""
    settings = job.settings
    made = backend.plan(job)
    findings = []
    if settings.grain and settings.api_token is None:
        findings.append(Finding("grain.token", "error", "grain needs an api_token", "Set api_token."))
    parameters = {**made.parameters, "lens": settings.lens, "grain": settings.grain}
    return replace(made, generator="studio", parameters=parameters, findings=(*made.findings, *findings))


BACKEND = replace(
    backend,
    name="studio",
    title="A studio with lenses",
    plan=plan,
    settings=StudioSettings,
    configured=lambda settings: settings.api_token is not None,
)
