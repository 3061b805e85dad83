"""The configuration: every refusal says what, where and how to fix."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, get_args
from urllib.parse import urlsplit

import pytest
import yaml
from pydantic import BaseModel

from authz.config import (
    Config,
    environment_name,
    is_key_variable,
    json_schema,
    load,
    parse_assignment,
    redacted,
)
from authz.config.redact import REDACTED
from authz.config.sections.enforcers import ReportWay
from authz.config.types import Secret, SecretEntries
from authz.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

GOOD = """\
bundle: {path: bundle}
trust:
  domains:
    a.example: {bundle: {file: keys/a.json}}
  issuers:
    corp:
      issuer: https://idp.example
      audience: [authz]
      algorithms: [ES256]
      jwks: {file: keys/jwks.json}
identity: {audiences: [authz]}
listeners:
  main: {address: "127.0.0.1:9191", insecure_dev: true}
  sidecar: {address: "unix:run/authz.sock"}
enforcers:
  - {name: envoy, listener: sidecar, asks: ["system:*"]}
audit: {path: audit.jsonl}
"""


def read(
    folder: Path, text: str, env: dict[str, str] | None = None, sets: tuple[str, ...] = ()
) -> Config:
    """Load a text as `config.yaml`."""
    file = folder / "config.yaml"
    file.write_text(text)
    assignments = [parse_assignment(one) for one in sets]
    return load(file, env or {}, assignments, working_folder=folder)


def refusals(folder: Path, text: str, env: dict[str, str] | None = None) -> list[str]:
    """Load a text that must be refused, and give the messages without the folder."""
    with pytest.raises(ConfigError) as refused:
        read(folder, text, env)
    return [str(one).replace(f"{folder}/", "") for one in refused.value.diagnostics]


def change(old: str, new: str) -> str:
    """The good configuration with one change."""
    assert old in GOOD
    return GOOD.replace(old, new)


def test_the_good_one_loads_and_its_paths_start_at_its_folder(tmp_path: Path) -> None:
    """Also the path of a socket."""
    config = read(tmp_path, GOOD)

    assert config.bundle.path == str(tmp_path / "bundle")
    assert config.trust.domains["a.example"].bundle.file == str(tmp_path / "keys/a.json")
    assert config.trust.issuers["corp"].jwks.file == str(tmp_path / "keys/jwks.json")
    assert config.listeners.decisions["sidecar"].address == f"unix://{tmp_path}/run/authz.sock"
    assert config.limits.threads == 4


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "      audience: [authz]\n",
            "",
            (
                "config.yaml:6: issuer `corp` has no audience. A token for any service would be accepted. "
                "Add audience: [...]."
            ),
        ),
        (
            "    corp:",
            "    'corp/x':",
            "config.yaml:6: `corp/x` is not a valid alias of an issuer. Use letters, digits, dots, dashes and underscores.",
        ),
        (
            "      algorithms: [ES256]\n",
            "",
            (
                "config.yaml:6: issuer `corp` has no algorithms. The token itself would choose. "
                "Add algorithms: [ES256], or the algorithms that the issuer signs with."
            ),
        ),
        (
            "[ES256]",
            "[none]",
            (
                "config.yaml:9: `none` is not an accepted signature algorithm. Use one of RS256, RS384, RS512, "
                "PS256, PS384, PS512, ES256, ES384, ES512, EdDSA."
            ),
        ),
        (
            "identity: {audiences: [authz]}\n",
            "",
            (
                "config.yaml:3: trust domains are configured, but `identity.audiences` is empty: every JWT-SVID would "
                "be refused. Add the audience that agents ask for: `identity: {audiences: [...]}`."
            ),
        ),
        (
            ", insecure_dev: true",
            "",
            (
                "config.yaml:13: listener `main` is TCP without `tls`. Credentials would travel in plain text, and "
                "callers would have no identity. Add tls: {cert_file: ..., key_file: ...}; or, on loopback for "
                "development, insecure_dev: true."
            ),
        ),
        (
            '"127.0.0.1:9191", insecure_dev: true',
            '"0.0.0.0:9191", insecure_dev: true',
            (
                "config.yaml:13: listener `main` is `insecure_dev` on `0.0.0.0`, which is not loopback. Anyone on the "
                "network could ask about every system. Use 127.0.0.1 or [::1], or set tls."
            ),
        ),
        (
            '"127.0.0.1:9191", insecure_dev: true',
            '"localhost:9191", insecure_dev: true',
            (
                "config.yaml:13: listener `main` is `insecure_dev` on `localhost`, which is not loopback. Anyone on "
                "the network could ask about every system. Use 127.0.0.1 or [::1], or set tls."
            ),
        ),
        (
            "insecure_dev: true",
            "tls: {cert_file: c.pem}",
            (
                "config.yaml:13: listener `main` has a certificate without a key. It could not serve TLS. "
                "Add key_file."
            ),
        ),
        (
            "insecure_dev: true",
            "tls: {key_file: k.pem}",
            (
                "config.yaml:13: listener `main` has a key without a certificate. It could not serve TLS. "
                "Add cert_file."
            ),
        ),
        (
            "insecure_dev: true",
            "tls: {client_ca_file: ca.pem}",
            (
                "config.yaml:13: listener `main` has `tls` without a certificate. It would serve plain text. "
                "Add cert_file and key_file."
            ),
        ),
        (
            "listener: sidecar",
            "listener: main",
            (
                "config.yaml:16: enforcer `envoy` is bound to `main`, which is not a unix socket. Any caller that reaches the "
                "port would be this enforcer. Use a unix-socket listener, the mode of whose folder says who may open it; "
                "or match: its SPIFFE id."
            ),
        ),
        (
            "listener: sidecar",
            "listener: sidecart",
            (
                "config.yaml:16: enforcer `envoy` names listener `sidecart`, which does not exist. "
                "Declared: main, sidecar."
            ),
        ),
        (
            ', asks: ["system:*"]',
            "",
            (
                'config.yaml:16: enforcer `envoy` may ask about no system. Add asks: ["system:crm"], or ["system:*"] '
                "for all."
            ),
        ),
        (
            '"unix:run/authz.sock"',
            '"unix-abstract:authz"',
            (
                "config.yaml:14: listener `sidecar` is an abstract socket, which has no file mode: anyone could open "
                "it. Use `unix:///path`."
            ),
        ),
        (
            "audit: {path: audit.jsonl}",
            "audit: {path: audit.jsonl, pth: x}",
            "config.yaml:17: unknown key `pth` under `audit`. Did you mean `path`?",
        ),
        (
            "audit: {path: audit.jsonl}",
            "listenres: {}",
            "config.yaml:17: unknown key `listenres`. Did you mean `listeners`?",
        ),
        (
            "audit: {path: audit.jsonl}",
            "limits: {unreceived_calls: 1}",
            "config.yaml:17: `limits.unreceived_calls`: it must be greater than or equal to 4. See `authz config schema`.",
        ),
        (
            "audit: {path: audit.jsonl}",
            "limits: {connections: 0}",
            "config.yaml:17: `limits.connections`: it must be greater than or equal to 16. See `authz config schema`.",
        ),
        (
            "audit: {path: audit.jsonl}",
            "limits: {handshake_timeout: 0s}",
            "config.yaml:17: `limits.handshake_timeout`: it must be greater than or equal to 0.1. See `authz config schema`.",
        ),
        (
            "audit: {path: audit.jsonl}",
            "limits: {ready_after: 0s}",
            "config.yaml:17: `limits.ready_after`: it must be greater than or equal to 0.1. See `authz config schema`.",
        ),
        (
            "audit: {path: audit.jsonl}",
            "limits: {idle_timeout: 5}",
            "config.yaml:17: `limits.idle_timeout`: a duration is a number and a unit: 200ms, 10s, 5m, 1h, 7d. See `authz config schema`.",
        ),
        (
            "audit: {path: audit.jsonl}",
            "limits: {threads: many}",
            "config.yaml:17: `limits.threads`: it must be a valid integer. See `authz config schema`.",
        ),
        (
            "audit: {path: audit.jsonl}",
            "state: {engine: postgresql}",
            (
                "config.yaml:17: `state.engine: postgresql` has no `dsn`. Add `state: {dsn: ...}`, or the variable "
                "AUTHZ_STATE_DSN."
            ),
        ),
        (
            "audit: {path: audit.jsonl}",
            "state: {dsn: x}",
            (
                "config.yaml:17: `state.dsn` is given, but `state.engine` is `embedded`: tasks would not be shared. Write "
                "`engine: postgresql`, or remove `dsn`."
            ),
        ),
        (
            "audit: {path: audit.jsonl}",
            "state: {poll_interval: 1s}",
            (
                "config.yaml:17: `state.poll_interval` is given, but `state.engine` is `embedded`, which no other node changes. Write "
                "`engine: postgresql`, or remove `poll_interval`."
            ),
        ),
        (
            "audit: {path: audit.jsonl}",
            "state: {engine: postgresql, dsn: x, poll_interval: 501ms}",
            (
                "config.yaml:17: `state.poll_interval` is 0.501 s, more than half of `state.revocation_staleness` (1 s): one late "
                "answer of the database would make the node deny every call. Shorten `poll_interval`, or lengthen "
                "`revocation_staleness`."
            ),
        ),
        (
            "audit: {path: audit.jsonl}",
            "state: {engine: memory, path: x}",
            (
                "config.yaml:17: `state.path` is given, but `state.engine` is `memory`. Write `engine: embedded`, or remove "
                "`path`."
            ),
        ),
        (
            "audit: {path: audit.jsonl}",
            "shutdown_grace_period: 5",
            (
                "config.yaml:17: `shutdown_grace_period`: a duration is a number and a unit: 200ms, 10s, 5m, 1h, 7d. "
                "See `authz config schema`."
            ),
        ),
        (
            "audit: {path: audit.jsonl}",
            "identity: {audiences: [b]}",
            "config.yaml:17:1: `identity` is given twice. Keep one: parsers differ in which of the two counts.",
        ),
        (
            "bundle: {path: bundle}",
            "bundle: {}",
            "config.yaml:1: `bundle` has no `path`. Add `path`: folder of the bundle.",
        ),
        (
            "audit: {path: audit.jsonl}",
            "topology: {url: x}",
            "config.yaml:17: `topology` is not in this version. Remove it; without it, this version is safe.",
        ),
        (
            "bundle: {path: bundle}",
            "bundle: {path: !!python/object:os.system x}",
            "config.yaml:1:16: `tag:yaml.org,2002:python/object:os.system` is not read here. Write a plain value.",
        ),
        (
            "bundle: {path: bundle}",
            "bundle: {path: [}",
            "config.yaml:1:17: not YAML: expected the node content, but found '}'. Fix the syntax.",
        ),
    ],
)
def test_what_is_refused_and_how_it_is_said(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    """One defect, one message: file, line, what follows from it, how to fix it."""
    assert refusals(tmp_path, change(old, new)) == [message]


MUTUAL = """\
bundle: {path: bundle}
trust: {domains: {a.example: {bundle: {file: keys/a.json}}, b.example: {bundle: {file: keys/b.json}}}}
identity: {audiences: [authz]}
listeners:
  main: {address: "0.0.0.0:9191", tls: {cert_file: c, key_file: k, client_ca_file: ca}}
  sidecar: {address: "unix:run/authz.sock"}
enforcers:
  - {name: crm, match: "spiffe://a.example/ns/tools/sa/crm", asks: ["system:crm"]}
  - {name: mesh, match: "spiffe://a.example/ns/*/sa/gateway", asks: ["system:*"], relays: [principal]}
  - {name: tools, match: "spiffe://a.example/ns/tools/sa/*", asks: ["system:wiki"]}
  - {name: envoy, listener: sidecar, asks: ["system:*"], relays: [principal, labels]}
"""


def test_enforcers_by_certificate_and_by_socket(tmp_path: Path) -> None:
    """A pattern and an id within it go together: the id is the more specific."""
    text = MUTUAL.replace("ns/*/sa/gateway", "ns/mesh/sa/gateway")

    config = read(tmp_path, text)

    assert [(one.name, one.match, one.listener) for one in config.enforcers] == [
        ("crm", "spiffe://a.example/ns/tools/sa/crm", None),
        ("mesh", "spiffe://a.example/ns/mesh/sa/gateway", None),
        ("tools", "spiffe://a.example/ns/tools/sa/*", None),
        ("envoy", None, "sidecar"),
    ]
    assert [[str(relay) for relay in one.relays] for one in config.enforcers] == [
        [],
        ["principal"],
        [],
        ["principal", "labels"],
    ]


def test_an_access_log_comes_by_the_python_lane(tmp_path: Path) -> None:
    """An enforcer whose every way in is of the fast lane could not tell what it says that it tells."""
    text = MUTUAL.replace("ns/*/sa/gateway", "ns/mesh/sa/gateway")
    for name in ("mesh", "envoy"):
        text = re.sub(rf"(name: {name}.*)}}", r"\1, reports: access_log}", text)
    assert [one.reports for one in read(tmp_path, text).enforcers][1:] == [
        ReportWay.ACCESS_LOG,
        None,
        ReportWay.ACCESS_LOG,
    ]

    text = re.sub(r"(main|sidecar): {", r"\1: {lane: fast, ", text)

    by_certificate, by_socket = refusals(tmp_path, text)
    assert by_certificate == (
        "config.yaml:9: enforcer `mesh` reports by access log, which the fast lane does not take. Each of its permits would "
        "count as used, even if the call failed. Let it log to a listener of the Python lane."
    )
    assert by_socket == (
        "config.yaml:11: enforcer `envoy` reports by access log, which the fast lane does not take. Each of its permits would "
        "count as used, even if the call failed. Let it log to a listener of the Python lane, on which it then also asks."
    )
    # With another listener for its certificate, it can.
    more = (
        '  main2: {address: "0.0.0.0:9192", tls: {cert_file: c, key_file: k, client_ca_file: ca}}\n'
    )
    assert refusals(tmp_path, text.replace("enforcers:\n", f"{more}enforcers:\n")) == [
        by_socket.replace(":11:", ":12:")
    ]


TIE = (
    "config.yaml:10: `spiffe://a.example/ns/tools/sa/*` of enforcer `tools` and `spiffe://a.example/ns/*/sa/gateway` of "
    "`mesh` match one id, and neither is the more specific. Which one a peer is would be chance. Narrow one of them."
)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("", "", TIE),
        (
            "ns/*/sa/gateway",
            "ns/tools/sa/crm",
            (
                "config.yaml:9: enforcers `crm` and `mesh` have the same `match`. Which one a peer is would be chance. "
                "Remove one, or make one entry of both."
            ),
        ),
        (
            "ns/*/sa/gateway",
            "ns/tools/sa/*",
            (
                "config.yaml:10: enforcers `mesh` and `tools` have the same `match`. Which one a peer is would be chance. "
                "Remove one, or make one entry of both."
            ),
        ),
        (
            "spiffe://a.example/ns/*/sa/gateway",
            "spiffe://c.example/ns/mesh/sa/gateway",
            (
                "config.yaml:9: enforcer `mesh` is of trust domain `c.example`, which is not trusted. Its certificate would "
                "be refused. Add it under trust.domains; there: a.example, b.example."
            ),
        ),
        (
            "ns/*/sa/gateway",
            "ns/mesh*/sa/gateway",
            (
                "config.yaml:9: `spiffe://a.example/ns/mesh*/sa/gateway` is neither a SPIFFE id nor a pattern of SPIFFE ids. No caller could "
                "be enforcer `mesh`. Write `spiffe://trust.domain/ns/tools/sa/crm`; `*` stands for one whole segment of the "
                "path."
            ),
        ),
        (
            "spiffe://a.example/ns/*/sa/gateway",
            "spiffe://*/ns/mesh/sa/gateway",
            (
                "config.yaml:9: `spiffe://*/ns/mesh/sa/gateway` is neither a SPIFFE id nor a pattern of SPIFFE ids. No caller could be "
                "enforcer `mesh`. Write `spiffe://trust.domain/ns/tools/sa/crm`; `*` stands for one whole segment of the "
                "path."
            ),
        ),
        (
            ", client_ca_file: ca",
            "",
            (
                "config.yaml:8: enforcer `crm` is known by its certificate, but no listener asks for one. No caller could be it. "
                "Give a listener tls: {client_ca_file: ...}."
            ),
        ),
        (
            '{name: mesh, match: "spiffe://a.example/ns/*/sa/gateway",',
            '{name: mesh, match: "spiffe://a.example/ns/mesh/sa/gateway", listener: sidecar,',
            (
                "config.yaml:9: enforcer `mesh` has both `match` and `listener`. Any process that opens the socket would be this enforcer without "
                "a certificate. Keep one; for both ways in, give the other an entry and a name of its own."
            ),
        ),
        (
            '{name: mesh, match: "spiffe://a.example/ns/*/sa/gateway",',
            "{name: mesh,",
            (
                "config.yaml:9: enforcer `mesh` has neither `match` nor `listener`. No caller could be this enforcer. Add match: the SPIFFE "
                "id of a TLS peer; or listener: the name of a unix-socket listener."
            ),
        ),
        (
            'asks: ["system:wiki"]',
            'asks: ["system:wiki"], relays: [principal, task]',
            (
                "config.yaml:10: enforcer `tools` relays `task`, which is not in this version. Remove it; without it, Authz "
                "does not believe these statements of the enforcer."
            ),
        ),
        (
            'asks: ["system:wiki"]',
            'asks: ["system:wiki"], relays: [confidence]',
            (
                "config.yaml:10: enforcer `tools` relays `confidence`, which is not in this version. Remove it; without it, "
                "Authz does not believe these statements of the enforcer."
            ),
        ),
        (
            "{domains: {a.example: {bundle: {file: keys/a.json}}, b.example: {bundle: {file: keys/b.json}}}}",
            "{}",
            (
                "config.yaml:5: listener `main` asks for certificates, but no trust domain is configured. Every caller would "
                "be refused. Add trust.domains with the SPIFFE bundle of the callers' trust domain."
            ),
        ),
        (
            "{domains: {a.example: {bundle: {file: keys/a.json}}, b.example: {bundle: {file: keys/b.json}}}}",
            "{}",
            (
                "config.yaml:11: enforcer `envoy` relays principals, but no trust domain is configured. Each would be "
                "refused. Add trust.domains."
            ),
        ),
    ],
)
def test_half_configured_enforcers_are_refused(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    """Whom nobody could be, or whom chance would choose, stops the start."""
    assert old in MUTUAL
    text = MUTUAL.replace(old, new) if old else MUTUAL

    assert message in refusals(tmp_path, text)


@pytest.mark.parametrize("audience", ["authz", "agents"])
def test_an_audience_that_agents_get_proves_no_subject(tmp_path: Path, audience: str) -> None:
    """An `alone_audience` among those of agents stops the start."""
    text = change(
        "      audience: [authz]\n",
        f"      audience: [authz]\n      alone_audience: [{audience}]\n",
    )
    text = text.replace("{audiences: [authz]}", "{audiences: [authz, agents]}")

    message = (
        f"config.yaml:9: `{audience}` of issuer `corp` is an audience of tokens that agents hold too. An agent could show "
        "such a token as if it were the user. Give an audience that no agent and no tool server gets tokens for."
    )
    assert refusals(tmp_path, text) == [message]
    text = text.replace(f"alone_audience: [{audience}]", "alone_audience: [portal]")
    assert read(tmp_path, text).trust.issuers["corp"].alone_audience == ("portal",)


@pytest.mark.parametrize(
    ("listener", "enforcer", "message"),
    [
        (
            "",
            "relays: [prompt]",
            "any process that opens its socket counts as this enforcer. An agent that may open it could speak for its user.",
        ),
        (
            "",
            "relays: [prompt], uids: [7]",
            "is of the Python lane, which is not told the user of a process.",
        ),
        (
            ", lane: fast",
            "relays: [prompt]",
            "Add uids: [...], the users that the front end runs as",
        ),
        (", lane: fast", "relays: [prompt], uids: [-1]", "`-1` is not a user id."),
    ],
)
def test_a_front_end_behind_a_socket_is_known_by_its_user(
    tmp_path: Path, listener: str, enforcer: str, message: str
) -> None:
    """A socket that an agent could open speaks for nobody."""
    text = change('"unix:run/authz.sock"}', f'"unix:run/authz.sock"{listener}}}')
    text = text.replace('asks: ["system:*"]}', f'asks: ["system:*"], {enforcer}}}')

    found = refusals(tmp_path, text)

    assert len(found) == 1
    assert message in found[0]
    sound = change('"unix:run/authz.sock"}', '"unix:run/authz.sock", lane: fast}').replace(
        'asks: ["system:*"]}', 'asks: ["system:*"], relays: [prompt], uids: [1002]}'
    )
    assert read(tmp_path, sound).enforcers[0].uids == (1002,)


def test_every_defect_is_told_at_once(tmp_path: Path) -> None:
    """In the order of the file."""
    text = GOOD.replace("      audience: [authz]\n", "").replace(", insecure_dev: true", "")

    assert [one.split(":")[1] for one in refusals(tmp_path, text)] == ["6", "12"]


def test_a_flag_wins_over_a_variable_over_the_file_over_the_default(tmp_path: Path) -> None:
    """For one and the same key."""
    text = GOOD + "limits: {threads: 5}\n"
    env = {"AUTHZ_LIMITS_THREADS": "6"}

    assert read(tmp_path, GOOD).limits.threads == 4
    assert read(tmp_path, text).limits.threads == 5
    assert read(tmp_path, text, env).limits.threads == 6
    assert read(tmp_path, text, env, ("limits.threads=7",)).limits.threads == 7


def test_a_variable_reaches_keys_under_chosen_names(tmp_path: Path) -> None:
    """And a text stays a text."""
    env = {
        "AUTHZ_LISTENERS_MAIN_ADDRESS": "127.0.0.1:1234",
        "AUTHZ_VARS_TRUST_DOMAIN": "123",
        "AUTHZ_TRUST_DOMAINS": '{b.example: {bundle: {file: "b.json"}}}',
    }

    config = read(tmp_path, GOOD, env)

    assert config.listeners.decisions["main"].address == "127.0.0.1:1234"
    assert config.vars == {"trust_domain": "123"}
    assert list(config.trust.domains) == ["b.example"]


def test_an_unknown_variable_is_refused(tmp_path: Path) -> None:
    """A typo must not leave a door open."""
    env = {"AUTHZ_LISTENERS_METRICS_ADRESS": "x"}

    assert refusals(tmp_path, GOOD, env) == [
        (
            "AUTHZ_LISTENERS_METRICS_ADRESS: names no key of the configuration. "
            "Did you mean `AUTHZ_LISTENERS_METRICS_ADDRESS`?"
        )
    ]


def test_a_key_of_an_earlier_version_says_what_to_do(tmp_path: Path) -> None:
    """In the file and as a variable."""
    said = (
        "`limits.processor` is not a key of this version any more. "
        "Remove it: Authz no longer binds threads to a processor."
    )
    old = GOOD + "limits: {processor: 0}\n"
    assert refusals(tmp_path, old) == [f"config.yaml:18: {said}"]
    variable = {"AUTHZ_LIMITS_PROCESSOR": "0"}
    assert refusals(tmp_path, GOOD, variable) == [f"AUTHZ_LIMITS_PROCESSOR: {said}"]


def test_the_variables_of_the_command_are_no_keys(tmp_path: Path) -> None:
    """`authz serve` starts where they are set for `authz status` and `authz task`, for example in a container."""
    env = dict.fromkeys(("AUTHZ_ADMIN", "AUTHZ_SERVER"), "unix:///run/authz/x.sock")

    assert read(tmp_path, GOOD, env | {"AUTHZ_CONFIG": "x"}) == read(tmp_path, GOOD)


def test_the_variables_that_kubernetes_sets_are_no_keys(tmp_path: Path) -> None:
    """It sets them in every pod beside a service named `authz`."""
    env = {
        "AUTHZ_SERVICE_HOST": "10.0.0.1",
        "AUTHZ_PORT": "tcp://10.0.0.1:9191",
        "AUTHZ_PORT_9191_TCP_ADDR": "10.0.0.1",
        "AUTHZ_ADMIN_SERVICE_PORT_GRPC": "9191",
    }

    assert read(tmp_path, GOOD, env) == read(tmp_path, GOOD)


def test_a_quoted_name_may_have_dots(tmp_path: Path) -> None:
    """As trust domains do."""
    config = read(tmp_path, GOOD, sets=('trust.domains."a.example".bundle.file=/x.json',))

    assert config.trust.domains["a.example"].bundle.file == "/x.json"


@pytest.mark.parametrize("text", ["", "a", "=1", "a.=1", ".a=1", "a..b=1", "a[0]=1"])
def test_what_is_no_assignment_is_refused(text: str) -> None:
    """`--set` takes `key=value`."""
    with pytest.raises(ConfigError):
        parse_assignment(text)


def test_secrets_are_hidden_when_printed(tmp_path: Path) -> None:
    """By the name of a variable, and in every URL."""
    sets = ("vars.db_password=hunter2", "vars.home=https://user:hunter2@host/x", "vars.region=eu")

    shown = redacted(read(tmp_path, GOOD, sets=sets))

    assert "hunter2" not in str(shown)
    assert shown["vars"] == {
        "db_password": REDACTED,
        "home": f"https://{REDACTED}@host/x",
        "region": "eu",
    }


def test_a_field_that_is_marked_as_secret_is_hidden_whatever_its_name(tmp_path: Path) -> None:
    """Paths of files with secrets are shown."""
    dsn = "postgresql://authz@db/authz?password=hunter2&sslmode=disable"
    credentials = (
        "credentials:\n"
        "  issuer: https://a.example\n"
        "  static_secrets: {erp: {systems: [erp], header: x-api-key, secret_file: /s/key}}\n"
    )
    sets = ("state.engine=postgresql", f"state.dsn={dsn}")
    shown: Any = redacted(read(tmp_path, GOOD + credentials, sets=sets))
    assert "hunter2" not in str(shown)
    assert shown["state"]["dsn"] == REDACTED
    assert shown["credentials"]["static_secrets"]["erp"]["secret_file"] == "/s/key"


def test_a_mark_of_a_secret_stands_where_it_is_seen() -> None:
    """Inside a union it would be lost: `Annotated[Text, Secret()] | None` hides nothing."""
    seen: set[type[BaseModel]] = set()
    marks: list[str] = []

    def walk(model: type[BaseModel]) -> None:
        if model in seen:
            return
        seen.add(model)
        for name, field in model.model_fields.items():
            assert "Secret(" not in str(field.annotation), f"{model.__name__}.{name}"
            if any(isinstance(mark, Secret | SecretEntries) for mark in field.metadata):
                marks.append(f"{model.__name__}.{name}")
            for inner in models_in(field.annotation):
                walk(inner)

    walk(Config)
    assert sorted(marks) == ["Config.vars", "State.dsn"]


SPEAKS_OF_A_SECRET = re.compile(
    r"(?:^|_)(?:password|passwd|passphrase|secret|token|key|credential|dsn|pin|cookie|bearer)s?(?:_|$)"
)
NO_SECRETS = {
    "ApprovalLogin.client_secret_file": "the path of a file, which print must show",
    "ApprovalWebhook.secret_file": "the path of a file, which print must show",
    "Ciba.client_secret_file": "the path of a file, which print must show",
    "Bundle.keys": "keys of a later version, which is refused now",
    "Config.credentials": "a section, whose fields are walked",
    "Credentials.keys": "a section, whose fields are walked",
    "Credentials.static_secrets": "a section, whose fields are walked",
    "Dpop.max_proofs_per_key": "a number",
    "SharedSignals.token_lifetime": "a duration",
    "SignalActions.credential_changed": "a reaction",
    "SignalActions.credential_revoked": "a reaction",
    "SignalActions.token_claims_changed": "a reaction",
    "StaticSecret.secret_file": "the path of a file, which print must show",
    "Guard.keys": "the path of a file of public keys",
    "Limits.max_token_bytes": "a number",
    "Limits.token_cache": "a number",
    "Pkcs11.key_label": "a name inside of the token",
    "Pkcs11.pin_file": "the path of a file, which print must show",
    "Pkcs11.token_label": "the name of the token",
    "Audit.head_key": "the path of a file, which print must show",
    "AuditPostgresql.dsn_file": "the path of a file, which print must show",
    "AuditS3.credentials_file": "the path of a file, which print must show",
    "Broker.dsn_file": "the path of a file, which print must show",
    "Tls.key_file": "the path of a file, which print must show",
}


def test_a_field_whose_name_speaks_of_a_secret_is_marked_or_listed() -> None:
    """A new `password` without a mark would be printed by `config print`, in the log, and in a report."""
    unmarked: set[str] = set()

    def walk(model: type[BaseModel]) -> None:
        for name, field in model.model_fields.items():
            path = f"{model.__name__}.{name}"
            is_marked = any(isinstance(mark, Secret | SecretEntries) for mark in field.metadata)
            if SPEAKS_OF_A_SECRET.search(name) and not is_marked:
                unmarked.add(path)
            for inner in models_in(field.annotation):
                walk(inner)

    walk(Config)
    assert sorted(unmarked) == sorted(NO_SECRETS), "mark the field with Secret(), or list it here"


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """Return the models inside an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in models_in(inner)]


def test_what_is_printed_can_be_read_again(tmp_path: Path) -> None:
    """The effective configuration is a configuration."""
    config = read(tmp_path, GOOD)

    assert read(tmp_path, yaml.safe_dump(redacted(config))) == config


def test_deep_and_endless_files_are_refused(tmp_path: Path) -> None:
    """Neither depth nor aliases may cost memory."""
    deep = "a: " + "[" * 100 + "]" * 100
    bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 10)}]\n" for n in range(8)
    )

    for text in (deep, bomb):
        assert "too large or too deep" in refusals(tmp_path, text)[0]


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """With its name."""
    with pytest.raises(ConfigError, match=r"nothing\.yaml: cannot be read"):
        load(tmp_path / "nothing.yaml", {}, working_folder=tmp_path)


def test_the_schema_requires_what_the_rules_require() -> None:
    """An editor says it before the server does."""
    schema = json_schema()

    assert set(schema["$defs"]["Issuer"]["required"]) == {
        "issuer",
        "audience",
        "algorithms",
    }
    assert schema["additionalProperties"] is False


def test_a_key_names_its_variable() -> None:
    """Dashes and dots are underscores."""
    assert environment_name(("limits", "threads")) == "AUTHZ_LIMITS_THREADS"


BUNDLE = "{file: keys/a.json}"
JWKS = "{file: keys/jwks.json}"
SPIFFE = "url: 'https://a.example/b', profile: https_spiffe"


def test_how_recipient_lists_are_fetched(tmp_path: Path) -> None:
    """By default from public addresses alone."""
    told = read(tmp_path, GOOD).recipient_lists
    assert (told.allow_private, told.allow_networks, told.ca_file) == (False, (), None)
    said = "recipient_lists: {allow_networks: [10.1.0.0/16], refresh: {min: 5s, max: 10s}}\n"
    assert read(tmp_path, GOOD + said).recipient_lists.allow_networks == ("10.1.0.0/16",)
    for wrong, what in [
        ("{allow_networks: [10.1.2.3/16]}", "`10.1.2.3/16` is not a network."),
        ("{refresh: {min: 2h}}", "`refresh.min` is longer than `refresh.max`. Swap them."),
        ("{insecure_dev: true}", "unknown key `insecure_dev`"),
    ]:
        with pytest.raises(ConfigError) as refused:
            read(tmp_path, f"{GOOD}recipient_lists: {wrong}\n")
        assert what in str(refused.value)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (JWKS, "{url: 'https://idp.example/keys?tenant=1'}"),
        (JWKS, "{discovery: true}"),
        (JWKS, "{}"),
        ("      jwks: {file: keys/jwks.json}\n", ""),
        (JWKS, "{url: 'http://127.0.0.1:1/keys', insecure_dev: true}"),
        (
            JWKS,
            "{url: 'https://idp.example/k', ca_file: ca.pem, allow_networks: [10.1.0.0/16, 'fd00::/8']}",
        ),
        (JWKS, "{allow_private: true, refresh: {min: 5s, max: 10s, max_staleness: 1m}}"),
        (BUNDLE, "{url: 'https://b.example/bundle', profile: https_web}"),
        (BUNDLE, "{workload_api: 'unix:run/agent.sock', refresh: {min: 5s}}"),
        (
            BUNDLE,
            f"{{{SPIFFE}, endpoint_spiffe_id: 'spiffe://a.example/s', bootstrap_file: b.json}}",
        ),
        (
            BUNDLE,
            f"{{{SPIFFE}, endpoint_spiffe_id: 'spiffe://b.example/s'}}}}\n    b.example: {{bundle: {BUNDLE}",
        ),
    ],
)
def test_a_source_of_keys_is_taken(tmp_path: Path, old: str, new: str) -> None:
    """A file, a URL, or discovery."""
    read(tmp_path, change(old, new))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            JWKS,
            "{file: keys/jwks.json, url: 'https://idp.example/keys'}",
            "config.yaml:10: issuer `corp` has `file` and `url`. Keep one: which keys count would be chance.",
        ),
        (
            JWKS,
            "{url: 'https://idp.example/keys', discovery: true}",
            "config.yaml:10: issuer `corp` has `url` and `discovery`. Keep one: which keys count would be chance.",
        ),
        (
            JWKS,
            "{discovery: false}",
            (
                "config.yaml:10: issuer `corp` has no keys: every token of this issuer would be refused. "
                "Give file, url or discovery: true."
            ),
        ),
        (
            JWKS,
            "{url: 'http://idp.example/keys'}",
            (
                "config.yaml:10: the keys of issuer `corp` cannot be fetched: their URL is not https. "
                "Use an https URL."
            ),
        ),
        (
            JWKS,
            "{url: 'http://idp.example/keys', insecure_dev: true}",
            (
                "config.yaml:10: the keys of issuer `corp` cannot be fetched: their URL is http, and its "
                "host is not loopback. Use an https URL."
            ),
        ),
        (
            JWKS,
            "{url: 'https://me:pw@idp.example/keys'}",
            "config.yaml:10: the keys of issuer `corp` cannot be fetched: their URL carries a user or password. Use an https URL.",
        ),
        (
            "https://idp.example\n",
            "idp\n",
            None,
        ),
        (
            JWKS,
            "{url: 'https://idp.example/keys', insecure_dev: true}",
            "config.yaml:10: issuer `corp` has https and `insecure_dev`. Remove insecure_dev.",
        ),
        (
            JWKS,
            "{file: keys/jwks.json, allow_private: true}",
            "config.yaml:10: issuer `corp` has `allow_private`, and is read from a file. Remove allow_private.",
        ),
        (
            JWKS,
            "{file: keys/jwks.json, refresh: {min: 5s}}",
            "config.yaml:10: issuer `corp` has `refresh`, and is read from a file. Remove refresh.",
        ),
        (
            JWKS,
            "{allow_networks: [10.1.2.3/16]}",
            "config.yaml:10: `10.1.2.3/16` is not a network. Write it as `10.1.0.0/16`, without bits of a host.",
        ),
        (
            JWKS,
            "{refresh: {min: 2h}}",
            "config.yaml:10: of issuer `corp`, `refresh.min` is longer than `refresh.max`. Swap them.",
        ),
        (
            JWKS,
            "{refresh: {max_staleness: 1h}}",
            (
                "config.yaml:10: of issuer `corp`, `refresh.max_staleness` is not longer than `refresh.max` and `timeout` "
                "together: keys would be dropped between two fetches. Give a longer max_staleness, or a shorter max."
            ),
        ),
        (
            JWKS,
            "{urls: x}",
            "config.yaml:10: unknown key `urls` under `trust.issuers.corp.jwks`. Did you mean `url`?",
        ),
        (
            BUNDLE,
            "{}",
            (
                "config.yaml:4: trust domain `a.example` has no bundle: every credential of this domain would be refused. "
                "Give one of file, url, workload_api."
            ),
        ),
        (
            BUNDLE,
            "{url: 'https://a.example/b', endpoint_spiffe_id: 'spiffe://a.example/s'}",
            (
                "config.yaml:4: trust domain `a.example` has `endpoint_spiffe_id`, which the profile `https_web` does not "
                "look at. Write profile: https_spiffe, or remove endpoint_spiffe_id."
            ),
        ),
        (
            BUNDLE,
            "{file: keys/a.json, endpoint_spiffe_id: 'spiffe://a.example/s'}",
            (
                "config.yaml:4: trust domain `a.example` has `endpoint_spiffe_id`, and no endpoint at a url. "
                "Remove endpoint_spiffe_id, or give url."
            ),
        ),
        (
            BUNDLE,
            f"{{{SPIFFE}}}",
            (
                "config.yaml:4: trust domain `a.example` has the profile `https_spiffe` without `endpoint_spiffe_id`. "
                "Any workload could give the bundle. Add endpoint_spiffe_id, for example "
                "spiffe://example.org/spire/server."
            ),
        ),
        (
            BUNDLE,
            f"{{{SPIFFE}, endpoint_spiffe_id: 'spiffe://a.example'}}",
            (
                "config.yaml:4: `spiffe://a.example` is not the SPIFFE ID of a workload. "
                "Write spiffe://<trust domain>/<path>."
            ),
        ),
        (
            BUNDLE,
            f"{{{SPIFFE}, endpoint_spiffe_id: 'spiffe://a.example/s'}}",
            (
                "config.yaml:4: trust domain `a.example` gives its bundle itself, and has no `bootstrap_file`. "
                "Nothing would verify the first fetch. Add bootstrap_file: a copy of its bundle that came another way."
            ),
        ),
        (
            BUNDLE,
            f"{{{SPIFFE}, endpoint_spiffe_id: 'spiffe://b.example/s'}}",
            (
                "config.yaml:4: the endpoint of trust domain `a.example` is of the trust domain `b.example`, which is "
                "not trusted. Add it under trust.domains, or name an endpoint of `a.example`."
            ),
        ),
        (
            BUNDLE,
            f"{{{SPIFFE}, endpoint_spiffe_id: 'spiffe://a.example/s', bootstrap_file: b.json, ca_file: ca.pem}}",
            (
                "config.yaml:4: trust domain `a.example` has `ca_file`, which the profile `https_spiffe` does not look "
                "at. Remove ca_file: the endpoint shows an X.509-SVID."
            ),
        ),
        (
            BUNDLE,
            "{file: keys/a.json, workload_api: 'unix:run/agent.sock'}",
            (
                "config.yaml:4: trust domain `a.example` has `file` and `workload_api`. "
                "Keep one: which keys count would be chance."
            ),
        ),
        (
            BUNDLE,
            "{workload_api: 'tcp://127.0.0.1:8000'}",
            (
                "config.yaml:4: the Workload API of trust domain `a.example` is not a unix socket: nothing proves who "
                "answers. Use `unix:///path`."
            ),
        ),
        (
            BUNDLE,
            "{workload_api: 'unix:run/agent.sock', allow_private: true}",
            (
                "config.yaml:4: trust domain `a.example` has `allow_private`, and is read from the Workload API. "
                "Remove allow_private."
            ),
        ),
        (
            "trust:\n",
            "trust:\n  refresh: {min: 1h, max: 10m}\n",
            "config.yaml:3: of `trust.refresh`, `refresh.min` is longer than `refresh.max`. Swap them.",
        ),
    ],
)
def test_a_source_of_keys_that_is_half_said_is_refused(
    tmp_path: Path, old: str, new: str, message: str | None
) -> None:
    """Where it stands, and how to fix it."""
    if message is None:
        text = change(old, new).replace("      jwks: {file: keys/jwks.json}\n", "")
        message = (
            "config.yaml:7: issuer `corp` has neither `jwks.file` nor `jwks.url`, and its `issuer` is not a URL with a "
            "host, so that its keys cannot be discovered. Give jwks: {file: ...} or {url: ...}."
        )
    else:
        text = change(old, new)

    assert refusals(tmp_path, text) == [message]


CREDENTIALS = GOOD + "credentials: {issuer: 'https://authz.example'}\n"
HTTP = '  http: {address: "127.0.0.1:8181", tls: {cert_file: c.pem, key_file: k.pem}}\n'


def test_credentials_have_defaults_for_all_but_the_issuer(tmp_path: Path) -> None:
    """The stricter the tier, the shorter the life."""
    config = read(tmp_path, CREDENTIALS.replace("listeners:\n", "listeners:\n" + HTTP))

    assert config.credentials is not None
    assert list(dict(config.credentials.lifetime).values()) == [900.0, 300.0, 120.0, 60.0]
    assert config.credentials.keys.algorithm == "ES256"
    assert config.listeners.http is not None
    assert config.listeners.http.tls is not None
    assert config.listeners.http.tls.cert_file == str(tmp_path / "c.pem")
    assert "http" not in config.listeners.decisions


def test_without_credentials_there_are_none(tmp_path: Path) -> None:
    """Nothing about them is served by default."""
    config = read(tmp_path, GOOD)

    assert config.credentials is None
    assert config.listeners.http is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            "{}",
            "config.yaml:18: `credentials` has no `issuer`. Add `issuer`: `iss` of the credentials",
        ),
        ("{issuer: 'http://authz.example'}", "the issuer of task credentials is not https."),
        ("{issuer: 'https://authz.example/'}", "the issuer of task credentials ends in a slash."),
        ("{issuer: 'https://authz.example?x=1'}", "the issuer of task credentials has a query."),
        ("{issuer: 'https://authz.example#x'}", "the issuer of task credentials has a fragment."),
        ("{issuer: 'https://u:p@authz.example'}", "the issuer of task credentials carries a user"),
        ("{issuer: authz}", "the issuer of task credentials is not a URL with a host."),
        ("{issuer: 'https://idp.example'}", "issuer `corp` has the same `iss` as our own"),
        (
            "{issuer: 'https://a.example', audiences: {crm: authz}}",
            "the audience of `crm` is one of our own",
        ),
        (
            "{issuer: 'https://a.example', audiences: {crm: x, erp: x}}",
            "systems `crm` and `erp` have one audience.",
        ),
        ("{issuer: 'https://a.example', audiences: {'*': x}}", "`*` is not the id of a system."),
        ("{issuer: 'https://a.example', audiences: {a.b: x}}", "`a.b` is not the id of a system."),
        ("{issuer: 'https://a.example', lifetime: {high: 0s}}", "`credentials.lifetime.high`: "),
        ("{issuer: 'https://a.example', lifetime: {lowest: 1m}}", "unknown key `lowest`"),
        (
            "{issuer: 'https://a.example', keys: {algorithm: RS256}}",
            "`credentials.keys.algorithm`: ",
        ),
        (
            "{issuer: 'https://a.example', keys: {rotation: 10m, jwks_max_age: 5m}}",
            "`rotation` is not longer than twice `jwks_max_age`",
        ),
        (
            "{issuer: 'https://a.example', keys: {folder: k, pkcs11: {module: m, token_label: t, pin_file: p}}}",
            "signing keys have `folder` and `pkcs11`",
        ),
        (
            "{issuer: 'https://a.example', keys: {pkcs11: {module: m, token_label: t}}}",
            "`credentials.keys.pkcs11` has no `pin_file`.",
        ),
        ("{issuer: 'https://a.example', dpop: {window: 1h}}", "`credentials.dpop.window`: "),
    ],
)
def test_credentials_that_are_half_configured_are_refused(
    tmp_path: Path, settings: str, message: str
) -> None:
    """At the key that is wrong."""
    (said, *_) = refusals(tmp_path, GOOD + f"credentials: {settings}\n")

    assert message in said


@pytest.mark.parametrize(
    ("listener", "message"),
    [
        ("{address: '127.0.0.1:8181'}", "listener `http` is TCP without `tls`."),
        (
            "{address: '0.0.0.0:8181', insecure_dev: true}",
            "listener `http` is `insecure_dev` on `0.0.0.0`, which is not loopback. Tokens would travel",
        ),
        (
            "{address: 'unix:run/http.sock', insecure_dev: true}",
            "is a unix socket and has `insecure_dev`",
        ),
        ("{address: '127.0.0.1:8181', tls: {cert_file: c.pem}}", "has a certificate without a key"),
        ("{address: '127.0.0.1:9191', insecure_dev: true}", "have the same address"),
        ("{address: '127.0.0.1:8181', insecure_dev: true, lane: fast}", "unknown key `lane`"),
    ],
)
def test_an_http_listener_that_is_half_configured_is_refused(
    tmp_path: Path, listener: str, message: str
) -> None:
    """As listeners of decisions are."""
    text = CREDENTIALS.replace("listeners:\n", f"listeners:\n  http: {listener}\n")

    assert any(message in said for said in refusals(tmp_path, text))


def test_listeners_of_the_fast_lane_have_a_bounded_number_of_threads(tmp_path: Path) -> None:
    """Each listener has threads of its own, so the bound is over all of them."""

    def text(count: int) -> str:
        fast = "".join(
            f"  fast{number}: {{address: 'unix:run/fast{number}.sock', lane: fast}}\n"
            for number in range(count)
        )
        limits = "limits: {fast_threads: 256}\n"
        return GOOD.replace("listeners:\n", f"listeners:\n{fast}") + limits

    read(tmp_path, text(4))
    assert any(
        "5 listeners of the fast lane with 256 threads each have 1280 threads." in said
        for said in refusals(tmp_path, text(5))
    )


def test_an_http_listener_without_credentials_is_refused(tmp_path: Path) -> None:
    """It would serve nothing."""
    (said,) = refusals(tmp_path, GOOD.replace("listeners:\n", "listeners:\n" + HTTP))

    assert said.startswith(
        "config.yaml:13: listener `http` is given, but neither `credentials` nor `shared_signals` is: it would serve nothing."
    )


def test_credentials_without_a_trust_domain_are_refused(tmp_path: Path) -> None:
    """Nobody could be given one."""
    text = "bundle: {path: b}\nlisteners: {main: {address: '127.0.0.1:9191', insecure_dev: true}}\n"

    said = refusals(
        tmp_path, text + "audit: {path: a}\ncredentials: {issuer: 'https://a.example'}\n"
    )

    assert "no trust domain: no agent could be given one" in said[0]


def test_what_is_shown_of_credentials_is_not_hidden(tmp_path: Path) -> None:
    """Names and paths are no secrets; the PIN is in a file."""
    keys = "{pkcs11: {module: m, token_label: mine, pin_file: p}}"
    config = read(tmp_path, GOOD + f"credentials: {{issuer: 'https://a.example', keys: {keys}}}\n")

    shown = redacted(config)["credentials"]

    assert isinstance(shown, dict)
    assert REDACTED not in str(shown)


@pytest.mark.parametrize(
    ("name", "is_key"),
    [
        ("AUTHZ_LOG_LEVEL", True),
        ("AUTHZ_NOT_A_KEY", True),
        ("AUTHZ_ADMIN", False),
        ("AUTHZ_SERVER", False),
        ("AUTHZ_SERVICE_HOST", False),
        ("AUTHZ_PORT_9191_TCP_ADDR", False),
        ("OTHER", False),
    ],
)
def test_which_variables_mean_keys(name: str, *, is_key: bool) -> None:
    """Those of the client and of Kubernetes' services do not; a typo does, and is refused."""
    assert is_key_variable(name) is is_key


APPROVALS = """\
approvals:
  url: https://authz.corp.example/
  login: {issuer: corp, client_id: authz-page, client_secret_file: secret}
  passkeys: {rp_id: corp.example, name: Corp}
  people: [{uid: 1000, issuer: corp, sub: alice}]
  webhooks: [{name: chat, url: "https://chat.example/hook", secret_file: key, queues: ["approve:finance"]}]
  ciba: {client_id: authz-phone, issuer: corp, client_secret_file: phone, acr_values: [phr]}
"""
PAGE = "  approvals: {address: '127.0.0.1:8383', insecure_dev: true}\n  admin: {address: 'unix:run/admin.sock'}\n"


def with_approvals(old: str = "", new: str = "") -> str:
    """The good configuration with approvals, with one change."""
    text = GOOD.replace("listeners:\n", f"listeners:\n{PAGE}") + APPROVALS
    assert old in text
    return text.replace(old, new) if old else text


def test_approvals_are_off_by_default(tmp_path: Path) -> None:
    """Nobody is asked, and no page is served."""
    config = read(tmp_path, GOOD)

    assert config.listeners.approvals is None
    assert config.approvals.people == ()
    assert config.approvals.engine_settings() == {"url": ""}


def test_approvals_have_a_page_people_and_webhooks(tmp_path: Path) -> None:
    """The paths of secrets start at the folder of the file, and the base URL has no slash at its end."""
    config = read(tmp_path, with_approvals())

    approvals = config.approvals
    assert approvals.login is not None
    assert approvals.passkeys is not None
    assert approvals.engine_settings() == {"url": "https://authz.corp.example"}
    assert approvals.login.client_secret_file == str(tmp_path / "secret")
    assert approvals.login.scopes == ("openid",)
    assert approvals.webhooks[0].secret_file == str(tmp_path / "key")
    assert approvals.ciba is not None
    assert approvals.ciba.client_secret_file == str(tmp_path / "phone")
    assert (approvals.ciba.login_hint, approvals.ciba.tier_cap) == ("{sub}", "standard")
    assert config.listeners.approvals is not None
    assert config.listeners.approvals.max_connections == 256
    assert "approvals" not in config.listeners.decisions
    assert read(tmp_path, yaml.safe_dump(redacted(config))) == config


@pytest.mark.parametrize(
    "url",
    ["https://authz.corp.example:8443/people", "http://localhost:8383"],
)
def test_a_url_of_approvals_is_taken(tmp_path: Path, url: str) -> None:
    """Https, or http on loopback."""
    host = urlsplit(url).hostname
    text = with_approvals("https://authz.corp.example/", url).replace(
        "rp_id: corp.example", f"rp_id: {host}"
    )

    assert read(tmp_path, text).approvals.base_url == url


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("https://authz.corp.example/", "http://authz.corp.example", "and its host is not loopback"),
        ("https://authz.corp.example/", "https://authz.corp.example/?a=b", "`approvals.url` has a query"),
        ("  url: https://authz.corp.example/\n", "", "but `approvals.url` is not: the page would not know"),
        (PAGE.splitlines(keepends=True)[0], "", "`approvals.login` is given, but `listeners.approvals` is not"),
        (PAGE.splitlines(keepends=True)[1], "", "there is no socket over which they could answer"),
        ("insecure_dev: true}\n  admin", "}\n  admin", "listener `approvals` is TCP without `tls`."),
        ("127.0.0.1:8383", "127.0.0.1:9191", "have the same address"),
        ("login: {issuer: corp", "login: {issuer: crop", "names issuer `crop`, which is not configured. Use an alias of trust.issuers; there: corp."),
        ("client_id: authz-page", "client_id: authz", "is also an audience of issuer `corp`"),
        ("client_id: authz-page", "client_id: authz-page, scopes: [profile]", "lacks `openid`"),
        ("algorithms: [ES256]", "algorithms: [ES256]\n      subject: service", "whose subjects are services. Only a person can answer."),
        ("rp_id: corp.example", "rp_id: other.example", "is not the host of `approvals.url`, or a domain above it"),
        ("rp_id: corp.example", "rp_id: orp.example", "is not the host of `approvals.url`, or a domain above it"),
        ("https://authz.corp.example/", "http://127.0.0.1:8383", "has the IP address `127.0.0.1`"),
        ("sub: alice}", "sub: alice}, {uid: 1000, issuer: corp, sub: bob}", "user 1000 is both `corp/alice` and `corp/bob`"),
        ("issuer: corp, sub: alice", "issuer: crop, sub: alice", "`crop/alice` names issuer `crop`"),
        ("uid: 1000", "uid: -1", "greater than or equal to 0"),
        ('asks: ["system:*"]}', 'asks: ["system:*"], uids: [1000]}', "user 1000 answers as `corp/alice` and also runs enforcer `envoy`"),
        ("sub: alice", "sub: alice, claims: {groups: [managers]}", "`corp/alice` has the claim `groups`, which the bundle may not read. Add it to trust.issuers.corp.claims"),
        (", secret_file: key", "", "webhook `chat` has no `secret_file`"),
        ("https://chat.example/hook", "http://chat.example/hook", "the URL of webhook `chat` is http"),
        ('"approve:finance"', "finance", "`finance` is not a queue."),
        ("secret_file: key", "secret_file: key, format: fax", "approvals.webhooks"),
        ("authz-phone, issuer: corp", "authz-phone, issuer: crop", "`approvals.ciba` names issuer `crop`, which is not configured."),
        ("client_id: authz-phone", "client_id: authz", "a token of a confirmation would be accepted from agents"),
        (", client_secret_file: phone", "", "`approvals.ciba` has no `client_secret_file`"),
        ("[phr]", "[phr], login_hint: '{name}'", "`{name}` is not a login hint: it must have `{sub}` once"),
        ("[phr]", "[phr], login_hint: '{sub}{sub}'", "Use {sub}, or for example {sub}@corp.example."),
        ("[phr]", "[phr phrh]", "`phr phrh` is not an authentication context"),
        ("[phr]", "[phr], tier_cap: high", "approvals.ciba.tier_cap"),
    ],
)  # fmt: skip
def test_approvals_that_are_half_configured_are_refused(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    """Each refusal says what, where and how to fix it."""
    told = refusals(tmp_path, with_approvals(old, new))

    assert any(message in said for said in told), told


def test_a_page_on_which_nobody_could_answer_is_refused(tmp_path: Path) -> None:
    """Neither login nor passkey."""
    text = with_approvals().replace(APPROVALS, "approvals: {url: 'https://authz.corp.example'}\n")

    (said,) = refusals(tmp_path, text)

    assert said.startswith(
        "config.yaml:13: listener `approvals` is given, but neither `approvals.login` nor `approvals.passkeys` is"
    )


def test_a_shadow_bundle_is_another_folder(tmp_path: Path) -> None:
    """A shadow of the bundle that serves would compare it with itself."""
    config = read(tmp_path, f"{GOOD}shadow: {{bundle: next}}\n")
    assert config.shadow is not None
    assert config.shadow.bundle == str(tmp_path / "next")
    with pytest.raises(
        ConfigError, match=r"`shadow\.bundle` is the folder of the bundle that serves"
    ):
        read(tmp_path, f"{GOOD}shadow: {{bundle: bundle}}\n")
