"""The audit of a training, and how it is read: as text, Markdown or JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from sparsepriors import _checks
from sparsepriors.networks.audit.checks import CHECKS, Context, Finding, Status
from sparsepriors.networks.audit.record import Claimed, TrainingRecord, record_training
from sparsepriors.networks.sparse import SparsePlan, TrainingReport

_ORDER = (Status.FAIL, Status.WARN, Status.NA, Status.PASS)


@dataclass(frozen=True)
class AuditReport:
    """Every finding of every check, in the order of the lessons."""

    findings: tuple[Finding, ...]

    def verdict(self, lesson: str) -> Status:
        """The worst of a lesson: fail, warn, not judged, pass."""
        return min((f.status for f in self.findings if f.lesson == lesson), key=_ORDER.index)

    def of(self, status: Status) -> tuple[Finding, ...]:
        """The findings of one status."""
        return tuple(f for f in self.findings if f.status == status)

    @property
    def exit_code(self) -> int:
        """0 if nothing failed, else 1."""
        return int(bool(self.of(Status.FAIL)))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {"lessons": [{"id": c.id, "question": c.question, "verdict": self.verdict(c.id).value,
                             "findings": [{**asdict(f), "status": f.status.value} for f in self.findings
                                          if f.lesson == c.id]} for c in CHECKS],
                "failed": len(self.of(Status.FAIL)), "warned": len(self.of(Status.WARN)),
                "not_judged": len(self.of(Status.NA))}

    def to_text(self) -> str:
        """Lines for the terminal."""
        lines = []
        for check in CHECKS:
            lines.append(f"{check.id:>3}  {self.verdict(check.id).value.upper():<4}  {check.question}")
            for f in self.findings:
                if f.lesson == check.id:
                    remedy = f" -> {f.remedy}" if f.remedy else ""
                    lines.append(f"      {f.status.value:<4}  {f.code}: {f.evidence}{remedy}")
        return "\n".join(lines)

    def to_markdown(self) -> str:
        """A table for a page."""
        rows = [f"| {f.lesson} | {f.status.value} | {f.code} | {f.evidence} | {f.remedy} |".replace("\n", " ")
                for f in self.findings]
        return "\n".join(["| lesson | status | question | evidence | remedy |", "|---|---|---|---|---|", *rows])


def audit(record: TrainingRecord, claims: Sequence[Claimed] = ()) -> AuditReport:
    """Look at a training through the ten lessons.

    Parameters
    ----------
    record
        What is known; what is not leaves questions unjudged, never passed.
    claims
        What is said of it.
    """
    _checks.instance("record", record, TrainingRecord)
    _checks.instance("claims", claims, (tuple, list))
    for i, claim in enumerate(claims):
        _checks.instance(f"claims[{i}]", claim, Claimed)
    ctx = Context(record, tuple(claims))
    return AuditReport(tuple(f for check in CHECKS for f in check.run(ctx)))


def audit_training(plan: SparsePlan, report: TrainingReport, model: nn.Module | None = None,
                   claims: Sequence[Claimed] = (), **more: Any) -> AuditReport:
    """Audit what a plan did: `record_training`, then `audit`."""
    return audit(record_training(plan, report, model, **more), claims)
