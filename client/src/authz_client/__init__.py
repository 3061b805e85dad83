"""Client of Authz: agents start tasks and guard what they do, tool servers ask about their callers.

    from authz_client import Authz, TokenFile

    authz = Authz("unix:///run/authz/authz.sock", credentials=TokenFile("/run/spiffe/svid.jwt"))

    @authz.guard("crm.search")
    async def search(query: str) -> list[str]: ...

    async with authz.task("answer-ticket", params={"ticket": "T-1"}, subject_token=token):
        await search("T-1")

Nothing runs that was not permitted: a refusal raises `Denied`, `StepUp` or `Unavailable`, and so does every failure.

Modules, each of which imports only those below it:

    integrations                   code for httpx, httpx2, gRPC and MCP
    default                        the client of the whole process
    client                         `Authz`: passes each call to the part that performs it
    guard                          functions that run only where they are permitted
    issued                         task credentials and leased secrets
    questions                      Check and List
    report, tasks, approvals       results of permits; tasks; answers of people
    mcp_held                       MCP calls that wait for a person
    session                        transport, identity, time and retries that all calls share
    flow                           runs a call on a thread or on an event loop
    transport, permit, credentials, context, dpop, obligations, arguments, result_values
    approval_texts                 texts about calls that wait for a person
    errors, redaction
    base_errors, jose, approval_code   root errors, JSON Web Keys and codes of requests, which the server uses too
    v1                             generated messages of the protocol

A method whose name ends in `-ing` (`checking`, `reporting`) returns a flow: a generator that yields the steps to perform and
does no I/O itself.
"""

from authz_client.client import Authz
from authz_client.context import (
    CREDENTIAL_HEADER,
    TASK_HEADER,
    TASK_META,
    Caller,
    acting_for,
    caller,
    current_task,
    outgoing_task,
    within_task,
)
from authz_client.credentials import Credentials, TokenFile, TokenSource, WorkloadToken
from authz_client.default import guard, task, use
from authz_client.dpop import ProofKey
from authz_client.errors import (
    ApprovalStatus,
    Denied,
    NextAction,
    PublicCode,
    Refused,
    Retry,
    StepUp,
    TransportError,
    Unavailable,
)
from authz_client.issued import (
    IssueOptions,
    Leased,
    TaskCredential,
    TaskCredentials,
)
from authz_client.obligations import Obligation, Obligations
from authz_client.permit import Permit
from authz_client.propagate import task_headers, task_meta
from authz_client.questions import CheckOptions, ToolList
from authz_client.report import Report, Reports
from authz_client.tasks import (
    Between,
    DelegateOptions,
    Ending,
    OneOf,
    Part,
    Prefix,
    SaidBy,
    Scope,
    Task,
    TaskBlock,
    TaskOptions,
    Tasks,
)
from authz_client.tools import filter_tools
from authz_client.transport import GrpcTransport, StreamTransport, Tls, Transport

__all__ = [
    "CREDENTIAL_HEADER",
    "TASK_HEADER",
    "TASK_META",
    "ApprovalStatus",
    "Authz",
    "Between",
    "Caller",
    "CheckOptions",
    "Credentials",
    "DelegateOptions",
    "Denied",
    "Ending",
    "GrpcTransport",
    "IssueOptions",
    "Leased",
    "NextAction",
    "Obligation",
    "Obligations",
    "OneOf",
    "Part",
    "Permit",
    "Prefix",
    "ProofKey",
    "PublicCode",
    "Refused",
    "Report",
    "Reports",
    "Retry",
    "SaidBy",
    "Scope",
    "StepUp",
    "StreamTransport",
    "Task",
    "TaskBlock",
    "TaskCredential",
    "TaskCredentials",
    "TaskOptions",
    "Tasks",
    "Tls",
    "TokenFile",
    "TokenSource",
    "ToolList",
    "Transport",
    "TransportError",
    "Unavailable",
    "WorkloadToken",
    "acting_for",
    "caller",
    "current_task",
    "filter_tools",
    "guard",
    "outgoing_task",
    "task",
    "task_headers",
    "task_meta",
    "use",
    "within_task",
]
