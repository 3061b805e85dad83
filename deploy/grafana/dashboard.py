"""Writes the Grafana dashboard: `python deploy/grafana/dashboard.py`, or `--check` that the file is what this gives."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    BigValueGraphMode,
    LegendDisplayMode,
    StackingMode,
    TooltipDisplayMode,
    VizOrientation,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    VariableRefresh,
)

FILE = Path(__file__).with_name("authz.json")

_SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
_NODE = 'instance=~"$instance"'
_RATE = "[$__rate_interval]"
_CREDENTIALS = (
    "NO_CREDENTIAL|BAD_CREDENTIAL|EXPIRED_CREDENTIAL|WRONG_AUDIENCE|UNTRUSTED_ISSUER"
    "|UNBOUND_CREDENTIAL|BAD_PROOF|REPLAYED|REVOKED|ENFORCER_REFUSED"
)
_OWN = "UNAVAILABLE|STATE_UNAVAILABLE|STORE_SLOW|DEADLINE|OVERLOADED|AUDIT_FULL"

# Denials of judged calls: what the bundle says about the call, its task and its history.
_JUDGED = (
    "FORBIDDEN|NOT_PERMITTED|CHAIN_NOT_PERMITTED|OUT_OF_SCOPE|USES_EXHAUSTED|TOO_DEEP|TIER_REQUIREMENT|BUDGET_EXCEEDED"
    "|WINDOW_FULL|EXCEPTION_EXPIRED|APPROVAL_MISMATCH|APPROVAL_EXPIRED|APPROVAL_REJECTED|APPROVER_BUSY|POLICY_ERROR"
)

_QUEUE_AND_RULE = "{{queue}}: {{rule}}"


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a panel.

    Attributes:
        text: PromQL.
        legend: Name of each series.
    """

    text: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel.

    Attributes:
        title: What it shows.
        about: Explanation for operators.
        queries: What is asked.
        unit: Grafana's name of the unit.
        number: A single number instead of curves.
        stacked: Curves that add up.
        negative: Curves that can be below zero.
    """

    title: str
    about: str
    queries: tuple[Query, ...]
    unit: str = "reqps"
    number: bool = False
    stacked: bool = False
    negative: bool = False


def decided(by: str = "", **labels: str) -> str:
    """Returns the rate of decisions.

    Args:
        by: Labels to keep.
        labels: Label and regular expression.
    """
    chosen = ",".join([_NODE, *(f'{name}=~"{value}"' for name, value in labels.items())])
    kept = f" by ({by})" if by else ""
    return f"sum{kept} (rate(authz_decisions_total{{{chosen}}}{_RATE}))"


def rate(name: str, by: str = "", labels: str = "") -> str:
    """Returns the rate of a counter, summed."""
    chosen = f"{_NODE},{labels}" if labels else _NODE
    kept = f" by ({by})" if by else ""
    return f"sum{kept} (rate({name}{{{chosen}}}{_RATE}))"


def quantile(share: float, name: str, by: str = "") -> str:
    """Returns a quantile of a histogram."""
    kept = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({kept}) (rate({name}_bucket{{{_NODE}}}{_RATE})))"


def quantiles(name: str, by: str = "") -> tuple[Query, ...]:
    """Returns median and p99."""
    suffix = f" {{{{{by}}}}}" if by else ""
    return (
        Query(quantile(0.5, name, by), f"p50{suffix}"),
        Query(quantile(0.99, name, by), f"p99{suffix}"),
    )


ROWS: tuple[tuple[str, tuple[Panel, ...]], ...] = (
    (
        "At a glance",
        (
            Panel("Decisions", "All answers, of both lanes.", (Query(decided()),), number=True),
            Panel(
                "Denied",
                "Share of the answers that are an enforced denial.",
                (Query(f"{decided(decision='deny', enforced='true')} / {decided()}"),),
                "percentunit",
                number=True,
            ),
            Panel(
                "Would be held",
                "Not enforced yet: what observe mode let pass.",
                (Query(decided(enforced="false")),),
                number=True,
            ),
            Panel(
                "Decision, p99",
                "From the request's bytes to the answer's.",
                (Query(quantile(0.99, "authz_decision_duration_seconds")),),
                "s",
                number=True,
            ),
            Panel(
                "Bundle loaded",
                "Time since the oldest of the bundles was loaded.",
                (Query(f"time() - min(authz_policy_last_success_timestamp_seconds{{{_NODE}}})"),),
                "s",
                number=True,
            ),
            Panel(
                "Nodes that can record",
                "A node that cannot write its audit permits nothing.",
                (Query(f"sum(authz_audit_writable{{{_NODE}}})"),),
                "none",
                number=True,
            ),
        ),
    ),
    (
        "Traffic",
        (
            Panel(
                "Decisions by outcome",
                "Permits, step-ups and denials.",
                (Query(decided("decision"), "{{decision}}"),),
                stacked=True,
            ),
            Panel(
                "Decisions by system",
                "`unknown`: the operation is not in the catalog, or was not resolved.",
                (Query(decided("system"), "{{system}}"),),
                stacked=True,
            ),
            Panel(
                "Decisions by surface and tier",
                "Who asks, and for what.",
                (Query(decided("surface, tier"), "{{surface}} {{tier}}"),),
                stacked=True,
            ),
        ),
    ),
    (
        "Latency",
        (
            Panel(
                "Decision by lane",
                "Inside the server: bytes in, bytes out, the wait for a durable record included.",
                quantiles("authz_decision_duration_seconds", "lane"),
                "s",
            ),
            Panel(
                "Decision by surface, p99",
                "The same, by how it was asked.",
                (
                    Query(
                        quantile(0.99, "authz_decision_duration_seconds", "surface"), "{{surface}}"
                    ),
                ),
                "s",
            ),
            Panel(
                "Python lane's handlers, p99",
                "From the handler's start to its answer; the fast lane has none.",
                (
                    Query(
                        quantile(0.99, "grpc_server_handling_seconds", "grpc_method"),
                        "{{grpc_method}}",
                    ),
                ),
                "s",
            ),
        ),
    ),
    (
        "Denials",
        (
            Panel(
                "Denied by reason",
                "Enforced denials.",
                (
                    Query(
                        decided("reason_code", decision="deny", enforced="true"), "{{reason_code}}"
                    ),
                ),
                stacked=True,
            ),
            Panel(
                "Denied by system",
                "The same.",
                (Query(decided("system", decision="deny", enforced="true"), "{{system}}"),),
                stacked=True,
            ),
            Panel(
                "Step-ups by reason",
                "Held until somebody shows more.",
                (Query(decided("reason_code", decision="step_up"), "{{reason_code}}"),),
                stacked=True,
            ),
            Panel(
                "Would be held, by reason",
                "Observed, not enforced: answered as a permit.",
                (Query(decided("reason_code", enforced="false"), "{{reason_code}}"),),
                stacked=True,
            ),
            Panel(
                "Would be held, by system",
                "The same; what is left before it can be enforced.",
                (Query(decided("system", enforced="false"), "{{system}}"),),
                stacked=True,
            ),
            Panel(
                "Failures of our own",
                "Denied because nothing could be decided: overload, deadlines, audit.",
                (Query(decided("reason_code", reason_code=_OWN), "{{reason_code}}"),),
                stacked=True,
            ),
        ),
    ),
    (
        "Approvals",
        (
            Panel(
                "Open, by queue and rule",
                "Calls that wait for a person. Each node of a shared store counts all of them.",
                (
                    Query(
                        f"max by (queue, rule) (authz_approvals_open{{{_NODE}}})",
                        _QUEUE_AND_RULE,
                    ),
                ),
                "none",
            ),
            Panel(
                "Age of the oldest, by queue and rule",
                "A queue that only grows older has nobody who looks at it.",
                (
                    Query(
                        f"max by (queue, rule) (authz_approvals_oldest_seconds{{{_NODE}}})",
                        _QUEUE_AND_RULE,
                    ),
                ),
                "s",
            ),
            Panel(
                "Time to decide, by queue",
                "From the first look of a person to the answer.",
                quantiles("authz_approval_decision_seconds", "queue"),
                "s",
            ),
            Panel(
                "Time to decide, by rule, median",
                "A rule that people answer at once may ask for too much; one that takes hours lacks people.",
                (
                    Query(
                        quantile(0.5, "authz_approval_decision_seconds", "queue, rule"),
                        _QUEUE_AND_RULE,
                    ),
                ),
                "s",
            ),
            Panel(
                "Answered in under 3 seconds, by queue and rule",
                "Share of the answers. Many fast answers: people no longer read the card, and too much waits for them.",
                (
                    Query(
                        rate("authz_approvals_fast_answers_total", "queue, rule")
                        + " / "
                        + rate("authz_approval_decision_seconds_count", "queue, rule"),
                        _QUEUE_AND_RULE,
                    ),
                ),
                "percentunit",
            ),
            Panel(
                "Rejected, by queue and rule",
                "Share of the final answers. None for weeks: the rule may not need a person.",
                (
                    Query(
                        rate("authz_approvals_total", "queue, rule", 'event="rejected"')
                        + " / "
                        + rate(
                            "authz_approvals_total", "queue, rule", 'event=~"approved|rejected"'
                        ),
                        _QUEUE_AND_RULE,
                    ),
                ),
                "percentunit",
            ),
            Panel(
                "Expired, by queue and rule",
                "Calls that ended before people had answered: the queue lacks people, or nobody tells them.",
                (
                    Query(
                        rate("authz_approvals_total", "queue, rule", 'event="expired"'),
                        _QUEUE_AND_RULE,
                    ),
                ),
                "ops",
            ),
            Panel(
                "Asked, answered, used",
                "Repeated: agents that ask again before somebody has answered.",
                (Query(rate("authz_approvals_total", "event"), "{{event}}"),),
                "ops",
            ),
        ),
    ),
    (
        "Security",
        (
            Panel(
                "Step-ups by kind",
                "Kinds of step-up that calls needed, for example `confirm` by the subject or `approve` by another person. A call that needs two counts in both.",
                (Query(rate("authz_step_ups_total", "kind"), "{{kind}}"),),
                stacked=True,
            ),
            Panel(
                "Labels joined",
                "Permitted calls that brought a label into their session. More of one label: agents read more of that source, or a new one.",
                (Query(rate("authz_labels_joined_total", "label"), "{{label}}"),),
            ),
            Panel(
                "Shadow bundle: results",
                "Decisions by what the shadow bundle would have answered. newly_permitted is the first number to explain; not_compared shows nothing about the bundle.",
                (Query(rate("authz_shadow_decisions_total", "result"), "{{result}}"),),
                stacked=True,
            ),
            Panel(
                "Denied by the bundle, by reason",
                "Judged calls only: bad credentials, bad requests and failures of Authz are left out. A new reason is a new bundle, or an agent that tries.",
                (
                    Query(
                        decided(
                            "reason_code", decision="deny", enforced="true", reason_code=_JUDGED
                        ),
                        "{{reason_code}}",
                    ),
                ),
                stacked=True,
            ),
            Panel(
                "Approvals by outcome",
                "Ends of approvals. An approval in two queues counts in both.",
                (
                    Query(
                        rate(
                            "authz_approvals_total",
                            "event",
                            'event=~"approved|rejected|expired|unused"',
                        ),
                        "{{event}}",
                    ),
                ),
                "ops",
                stacked=True,
            ),
            Panel(
                "Standing exceptions, time left",
                "Below zero: expired, and the calls are denied.",
                (
                    Query(
                        f"min by (exception) (authz_exception_expiry_timestamp_seconds{{{_NODE}}} - time())",
                        "{{exception}}",
                    ),
                ),
                "s",
                negative=True,
            ),
            Panel(
                "Calls by exception",
                "Calls that were let through and depended on an exception; `breakglass` is break-glass. Remove an exception that nothing uses.",
                (Query(rate("authz_exception_uses_total", "exception"), "{{exception}}"),),
            ),
            Panel(
                "Observed entries, time until the first ends",
                "From then on its calls are enforced. `authz status` names the entries.",
                (
                    Query(
                        f"min((authz_observe_until_timestamp_seconds{{{_NODE}}} > 0) - time())",
                        "first end",
                    ),
                ),
                "s",
            ),
        ),
    ),
    (
        "Identity",
        (
            Panel(
                "Token verification",
                "Of all credentials of a request, cached or not.",
                quantiles("authz_token_verify_duration_seconds"),
                "s",
            ),
            Panel(
                "Verified tokens found in the cache",
                "Share of the look-ups.",
                (
                    Query(
                        rate("authz_cache_requests_total", "cache", 'result="hit"')
                        + " / "
                        + rate("authz_cache_requests_total", "cache"),
                        "{{cache}}",
                    ),
                ),
                "percentunit",
            ),
            Panel(
                "Credentials refused",
                "By reason; a rise of one reason is a rotation gone wrong, or somebody trying.",
                (Query(decided("reason_code", reason_code=_CREDENTIALS), "{{reason_code}}"),),
                stacked=True,
            ),
            Panel(
                "Age of keys",
                "Time since each trust source was last known to be what its source says.",
                (
                    Query(
                        f"max by (kind, name) (authz_trust_source_age_seconds{{{_NODE}}})",
                        "{{kind}} {{name}}",
                    ),
                ),
                "s",
            ),
            Panel(
                "Usable keys",
                "By trust source.",
                (
                    Query(
                        f"min by (kind, name) (authz_trust_source_keys{{{_NODE}}})",
                        "{{kind}} {{name}}",
                    ),
                ),
                "none",
            ),
        ),
    ),
    (
        "Bundle",
        (
            Panel(
                "Bundles that serve",
                "Nodes by revision; more than one for long: a node does not load.",
                (Query(f"count by (revision) (authz_bundle_info{{{_NODE}}})", "{{revision}}"),),
                "none",
            ),
            Panel(
                "Loads",
                "By result; after a failure the bundle before goes on serving.",
                (
                    Query(
                        "sum by (result) "
                        f"(increase(authz_policy_reload_total{{{_NODE}}}[$__range]))",
                        "{{result}}",
                    ),
                ),
                "none",
            ),
            Panel(
                "Entries that observe",
                "Parts of the bundle that are not enforced.",
                (Query(f"max(authz_observe_entries{{{_NODE}}})", "entries"),),
                "none",
            ),
        ),
    ),
    (
        "Audit",
        (
            Panel(
                "Records",
                "Refused and dropped ones were answered with a denial.",
                (Query(rate("authz_audit_records_total", "result"), "{{result}}"),),
            ),
            Panel(
                "Queue",
                "Records that wait for the disk, at most.",
                (
                    Query(
                        f"max(max_over_time(authz_audit_queued_records{{{_NODE}}}{_RATE}))",
                        "records",
                    ),
                ),
                "none",
            ),
            Panel(
                "Written",
                "Bytes of records.",
                (Query(rate("authz_audit_written_bytes_total"), "bytes"),),
                "Bps",
            ),
            Panel(
                "Syncs and failures",
                "While writing fails, nothing is permitted.",
                (
                    Query(rate("authz_audit_syncs_total"), "syncs"),
                    Query(rate("authz_audit_failures_total"), "failures"),
                ),
                "ops",
            ),
            Panel(
                "Sinks: age of the oldest record that is not delivered",
                "It grows while a sink is down. The records wait in the log.",
                (
                    Query(
                        "max by (sink) "
                        f"(max_over_time(authz_audit_undelivered_age_seconds{{{_NODE}}}{_RATE}))",
                        "{{sink}}",
                    ),
                ),
                "s",
            ),
            Panel(
                "Sinks: failed deliveries",
                "By kind: refused ones wait for somebody to change something.",
                (Query(rate("authz_audit_delivery_errors_total", "kind"), "{{kind}}"),),
            ),
        ),
    ),
    (
        "Tasks and state",
        (
            Panel(
                "Tasks",
                "Started and ended.",
                (
                    Query(rate("authz_tasks_started_total", "kind"), "started {{kind}}"),
                    Query(rate("authz_tasks_ended_total", "status"), "{{status}}"),
                ),
            ),
            Panel(
                "Kept",
                "Tasks in the store, live and ended, and what is revoked.",
                (
                    Query(f"max(authz_tasks_kept{{{_NODE}}})", "tasks"),
                    Query(f"max(authz_revocations{{{_NODE}}})", "revocations"),
                ),
                "none",
            ),
            Panel(
                "Store",
                "While it fails, nothing is permitted that has state.",
                (
                    Query(rate("authz_store_commits_total"), "commits"),
                    Query(rate("authz_store_failures_total"), "failures"),
                ),
                "ops",
            ),
        ),
    ),
    (
        "Overload",
        (
            Panel(
                "Calls that wait for a thread",
                "Python lane, at most.",
                (Query(f"max(max_over_time(authz_queue_depth{{{_NODE}}}{_RATE}))", "calls"),),
                "none",
            ),
            Panel(
                "Shed and unreceived",
                "Refused because the queue was full, or because their message did not come.",
                (
                    Query(rate("authz_shed_total"), "shed"),
                    Query(rate("authz_unreceived_refused_total"), "unreceived"),
                ),
            ),
            Panel(
                "Spans dropped",
                "The collector is slower than the decisions.",
                (Query(rate("authz_trace_spans_dropped_total"), "spans"),),
                "ops",
            ),
        ),
    ),
)
"""Rows of the dashboard."""


def build() -> str:
    """Returns the dashboard's JSON."""
    made = (
        dashboard.Dashboard("Authz")
        .uid("authz")
        .description("Decisions about AI agents: traffic, latency, denials, identity, audit.")
        .tags(["authz", "generated"])
        .timezone("browser")
        .time("now-1h", "now")
        .refresh("30s")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(
            dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")
        )
        .with_variable(
            dashboard.QueryVariable("instance")
            .label("Node")
            .datasource(_SOURCE)
            .query("label_values(authz_build_info, instance)")
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .multi(True)
            .include_all(True)
            .all_value(".*")
        )
    )
    for title, panels in ROWS:
        made = made.with_row(dashboard.Row(title))
        width = {3: 8, 4: 6, 5: 8, 6: 4 if panels[0].number else 8, 7: 6, 8: 6}[len(panels)]
        for panel in panels:
            made = made.with_panel(_number(panel, width) if panel.number else _curves(panel, width))
    return JSONEncoder(sort_keys=True, indent=2).encode(made.build()) + "\n"


def _targets(panel: Panel) -> list[prometheus.Dataquery]:
    return [
        prometheus.Dataquery()
        .ref_id(chr(ord("A") + index))
        .datasource(_SOURCE)
        .expr(query.text)
        .legend_format(query.legend or panel.title)
        for index, query in enumerate(panel.queries)
    ]


def _number(panel: Panel, width: int) -> stat.Panel:
    made = (
        stat.Panel()
        .title(panel.title)
        .description(panel.about)
        .datasource(_SOURCE)
        .unit(panel.unit)
        .span(width)
        .height(4)
        .orientation(VizOrientation.AUTO)
        .graph_mode(BigValueGraphMode.AREA)
    )
    for target in _targets(panel):
        made = made.with_target(target)
    return made


def _curves(panel: Panel, width: int) -> timeseries.Panel:
    made = (
        timeseries.Panel()
        .title(panel.title)
        .description(panel.about)
        .datasource(_SOURCE)
        .unit(panel.unit)
        .span(width)
        .height(8)
        .fill_opacity(20 if panel.stacked else 5)
        .stacking(
            common.StackingConfig().mode(
                StackingMode.NORMAL if panel.stacked else StackingMode.NONE
            )
        )
        .legend(common.VizLegendOptions().display_mode(LegendDisplayMode.LIST).show_legend(True))
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    )
    if not panel.negative:
        made = made.min(0)
    for target in _targets(panel):
        made = made.with_target(target)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes or checks the file; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args(arguments).check
    text = build()
    if check:
        if not FILE.exists() or FILE.read_text() != text:
            print(f"{FILE} is not what dashboard.py gives; run: make dashboard", file=sys.stderr)
            return 1
        return 0
    FILE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
