"""Controls, approvals and approvers of a report."""

from collections.abc import Iterator, Sequence

from authz.tools.audit_report.documents import ReportFolder, markdown_table, percent, seconds
from authz.tools.audit_report.statistics import ApprovalGroup, Approver

__all__ = ["write_approvals"]


def write_approvals(
    folder: ReportFolder, groups: Sequence[ApprovalGroup], people: Sequence[Approver]
) -> None:
    """Write `approvals.csv`, `approvers.csv`, `controls.csv` and `approvals.md`."""
    folder.write_csv(
        "approvals.csv",
        (
            "group",
            "name",
            "step_ups",
            "asked",
            "approved",
            "rejected",
            "expired",
            "expired_recorded",
            "open",
            "used",
            "unused",
            "answers",
            "decided_median_ms",
            "decided_p95_ms",
            "decided_under_3s_share",
            "rejected_share",
        ),
        (
            (
                one.form,
                one.name,
                one.step_ups,
                one.asked,
                one.approved,
                one.rejected,
                one.expired,
                one.expired_recorded,
                one.open,
                one.used,
                one.unused,
                one.times.count,
                one.times.median_ms,
                one.times.p95_ms,
                one.times.fast_share,
                one.rejected_share,
            )
            for one in groups
            if one.step_ups or one.asked
        ),
    )
    folder.write_csv(
        "approvers.csv",
        (
            "approver",
            "group",
            "name",
            "answers",
            "rejected",
            "refused",
            "methods",
            "decided_median_ms",
            "decided_p95_ms",
            "decided_under_3s_share",
            "rejected_share",
        ),
        (
            (
                one.person,
                one.form,
                one.name,
                one.answers,
                one.rejected,
                one.refused,
                one.methods,
                one.times.median_ms,
                one.times.p95_ms,
                one.times.fast_share,
                one.rejected_share,
            )
            for one in people
        ),
    )
    folder.write_csv(
        "controls.csv",
        ("group", "name", "denied", "held", "observed"),
        ((one.form, one.name, one.denied, one.step_ups, one.observed) for one in groups),
    )
    folder.write("approvals.md", _approval_text(groups, people))


def _approval_text(groups: Sequence[ApprovalGroup], people: Sequence[Approver]) -> Iterator[str]:
    yield "# Step-ups and approvals\n"
    titles = (("all", "All"), ("control", "By control"), ("rule", "By rule"))
    for form, title in titles:
        yield f"\n## {title}\n\n"
        yield from markdown_table(
            (
                "name",
                "step-ups",
                "asked",
                "approved",
                "rejected",
                "expired",
                "open",
                "used",
                "unused",
                "median",
                "p95",
                "under 3 s",
                "rejected share",
            ),
            (
                (
                    one.name or "all",
                    one.step_ups,
                    one.asked,
                    one.approved,
                    one.rejected,
                    one.expired,
                    one.open,
                    one.used,
                    one.unused,
                    seconds(one.times.median_ms),
                    seconds(one.times.p95_ms),
                    percent(one.times.fast_share),
                    percent(one.rejected_share),
                )
                for one in groups
                if one.form == form and (one.step_ups or one.asked)
            ),
        )
    yield "\n## By approver\n\nAnswers of the period; `approvers.csv` has them by control and rule, too.\n\n"
    yield from markdown_table(
        (
            "approver",
            "answers",
            "rejected",
            "refused",
            "methods",
            "median",
            "p95",
            "under 3 s",
            "rejected share",
        ),
        (
            (
                one.person,
                one.answers,
                one.rejected,
                one.refused,
                one.methods,
                seconds(one.times.median_ms),
                seconds(one.times.p95_ms),
                percent(one.times.fast_share),
                percent(one.rejected_share),
            )
            for one in people
            if one.form == "all"
        ),
    )
