"""`authz catalog …`: from the `tools/list` of an MCP server to reviewed operations."""

from pathlib import Path
from typing import Annotated, Any

import typer

from authz.bundle import read_folder
from authz.cli.options import Vars, offline_variables
from authz.cli.render import CommandExit, Terminal
from authz.engine import Plan
from authz.errors import UsageError
from authz.tools.catalog.changes import Change, changes
from authz.tools.catalog.edited import EditedBundle
from authz.tools.catalog.fetch import Source, fetch_listing
from authz.tools.catalog.files import catalog_path, flow, read_catalog
from authz.tools.catalog.propose import TIERS
from authz.tools.catalog.review import (
    Catalog,
    Item,
    changed,
    import_listing,
    read_csv,
    write_csv,
)
from authz.tools.catalog.tool import Listing, plain, read_listing

__all__ = ["register"]

_DIFFERS = 2
_MAX_FILE = 16 * 1024 * 1024

System = Annotated[str, typer.Argument(help="The system, as operations begin: `github`.")]
BundleOption = Annotated[
    Path, typer.Option("--bundle", "-b", help="Folder of the bundle.", file_okay=False)
]
File = Annotated[
    Path | None, typer.Option("--file", help="JSON: an answer to tools/list.", dir_okay=False)
]
Stdio = Annotated[
    str, typer.Option("--stdio", metavar="CMD", help="Command of a server that speaks over stdio.")
]
Url = Annotated[str, typer.Option("--url", help="MCP endpoint of a server (streamable HTTP).")]
Env = Annotated[
    list[str] | None,
    typer.Option("--env", metavar="NAME[=VALUE]", help="Variable for the command. Repeatable."),
]
Header = Annotated[
    list[str] | None,
    typer.Option(
        "--header", metavar="NAME=VALUE", help="For the URL; env:VARIABLE as value. Repeatable."
    ),
]
Timeout = Annotated[float, typer.Option("--timeout", help="Seconds.", min=1, max=600)]


def register(app: typer.Typer) -> None:
    """Add the group of verbs to the command."""
    group = typer.Typer(
        help="Catalogs of MCP servers: import, propose, review, accept, compare.",
        no_args_is_help=True,
    )
    for name, verb, example in (
        ("import-mcp", import_mcp, "import-mcp github --stdio 'npx -y some-server' --env TOKEN"),
        ("classify", classify, "classify github --bundle policy"),
        ("split", split, "split github github.issue_write --on method"),
        ("review", review, "review github --csv-out todo.csv"),
        ("accept", accept, "accept github github.list_issues github.get_issue"),
        ("diff", diff, "diff github --url https://mcp.github.example/mcp"),
        ("drift", drift, "drift"),
    ):
        group.command(name, epilog=f"Example: authz catalog {example}")(verb)
    app.add_typer(group, name="catalog")


def import_mcp(
    *,
    system: System,
    bundle: BundleOption = Path(),
    file: File = None,
    stdio: Stdio = "",
    url: Url = "",
    env: Env = None,
    header: Header = None,
    timeout: Timeout = 30,
    var: Vars = None,
) -> None:
    """Write catalog/SYSTEM.mcp.yaml from a server's tools/list; what was reviewed and has changed is refused until reviewed again."""
    terminal = Terminal()
    path = catalog_path(bundle, system)
    listing = _listing(file, Source(stdio, url, env or (), header or (), timeout))
    edited = _open(bundle, var)
    _changes(terminal, import_listing(edited, system, listing))
    terminal.line(
        f"{path}: {len(listing.tools)} tools of "
        f"{plain(listing.name, 80)} {plain(listing.version, 40)}"
    )
    _worklist(terminal, edited.plan, system)


def classify(*, system: System, bundle: BundleOption = Path(), var: Vars = None) -> None:
    """Propose what the tools do, by the verbs in their names, their hints and arguments; decides nothing."""
    terminal = Terminal()
    catalog = _catalog(bundle, system, var)
    found = catalog.classify()
    if found:
        terminal.table(
            ("operation", "effects", "tier", "why"),
            [
                (
                    item.operation,
                    " ".join(proposal.effects) if proposal else "-",
                    proposal.tier if proposal else "-",
                    proposal.why if proposal else "name says nothing, or hints contradict it",
                )
                for item, proposal in found
            ],
        )
    proposed = sum(1 for _, proposal in found if proposal)
    terminal.line(f"{proposed} of {len(found)} tools without a rule have a proposal")
    terminal.note(f"Next: authz catalog split {system}; authz catalog review {system}")


def split(
    *,
    system: System,
    operation: Annotated[str, typer.Argument(help="Only this one.")] = "",
    on: Annotated[str, typer.Option("--on", help="The argument that says what is done.")] = "",
    bundle: BundleOption = Path(),
    var: Vars = None,
) -> None:
    """Propose to make one operation of each value of an argument that says what is done."""
    terminal = Terminal()
    catalog = _catalog(bundle, system, var)
    found = catalog.split(operation, on)
    for name, proposal in found:
        terminal.line(f"{name}: {proposal.why}")
        for value, case in proposal.cases:
            said = f"{' '.join(case.effects)}, {case.tier}" if case else "execute, high (unknown)"
            terminal.line(f"  {plain(value, 60)}: {said}")
    terminal.line(f"{len(found)} of {len(catalog.listing.tools)} tools have a proposal to be split")


def review(
    *,
    system: System,
    bundle: BundleOption = Path(),
    csv_out: Annotated[
        Path | None,
        typer.Option(help="Write the worklist here, for a spreadsheet.", dir_okay=False),
    ] = None,
    csv_in: Annotated[
        Path | None,
        typer.Option(help="Accept the rows whose `decision` is `accept`.", dir_okay=False),
    ] = None,
    var: Vars = None,
) -> None:
    """Go through the tools that nobody has reviewed, or that changed since, the riskiest first: asks in a terminal, or takes a CSV."""
    terminal = Terminal()
    if csv_out is not None and csv_in is not None:
        raise UsageError("give --csv-out or --csv-in")
    catalog = _catalog(bundle, system, var)
    items = [item for item in catalog.items() if item.state != "reviewed"]
    if csv_out is not None:
        csv_out.write_text(write_csv(items))
        terminal.line(f"{csv_out}: {len(items)} tools to review")
        return
    if csv_in is not None:
        chosen = read_csv(_text(csv_in), items)
    elif not items:
        chosen = {}
    else:
        terminal.note("accept as shown: a   other effects or tier: e   skip: Enter   stop: q")
        chosen = _ask(terminal, items)
    if chosen:
        catalog.accept(chosen)
    terminal.line(f"{len(chosen)} accepted, {len(items) - len(chosen)} left")


def accept(
    *,
    system: System,
    operations: Annotated[list[str] | None, typer.Argument(help="Operations.")] = None,
    every: Annotated[
        bool, typer.Option("--all", help="All that a rule or proposal speaks of.")
    ] = False,
    most: Annotated[
        str, typer.Option("--max-tier", help="With --all: none above this tier.")
    ] = "critical",
    bundle: BundleOption = Path(),
    var: Vars = None,
) -> None:
    """Pin tools as they are now; a proposal becomes a rule."""
    terminal = Terminal()
    if every == bool(operations):
        raise UsageError("name operations, or say --all")
    if most not in TIERS:
        raise UsageError(f"--max-tier {plain(most)}: {', '.join(TIERS)}")
    catalog = _catalog(bundle, system, var)
    chosen: dict[str, dict[str, Any] | None] = dict.fromkeys(operations or ())
    if every:
        chosen = {
            item.operation: None
            for item in catalog.items()
            if item.state != "reviewed"
            and (item.has_rule or item.rule)
            and TIERS.index(item.tier) <= TIERS.index(most)
        }
    if chosen:
        catalog.accept(chosen)
    for operation in sorted(chosen):
        terminal.line(f"accepted {operation}")
    _worklist(terminal, catalog.bundle.plan, system)


def diff(
    *,
    system: System,
    bundle: BundleOption = Path(),
    file: File = None,
    stdio: Stdio = "",
    url: Url = "",
    env: Env = None,
    header: Header = None,
    timeout: Timeout = 30,
) -> None:
    """Compare the catalog with what the server lists now; exits with 2 where they differ."""
    terminal = Terminal()
    old = read_catalog(bundle, system)
    if old is None:
        raise UsageError(f"there is no {catalog_path(bundle, system)}")
    new = _listing(file, Source(stdio, url, env or (), header or (), timeout))
    found = changes(old, new)
    _changes(terminal, found)
    if found:
        raise CommandExit(_DIFFERS)
    terminal.line(f"no difference: {len(new.tools)} tools")


def drift(
    *,
    system: Annotated[str, typer.Argument(help="Only this system.")] = "",
    bundle: BundleOption = Path(),
    var: Vars = None,
) -> None:
    """List the tools that changed since they were accepted; exits with 2 where there are any."""
    terminal = Terminal()
    tools = [
        tool for tool in _open(bundle, var).plan.tools() if system in {"", str(tool["system"])}
    ]
    if system and not tools:
        raise UsageError(f"`{plain(system, 80)}` is no MCP system of the bundle")
    drifted = [tool for tool in tools if tool["accepted"] not in {None, tool["digest"]}]
    for tool in drifted:
        terminal.line(
            f"{tool['operation']} changed since it was accepted ({tool['file']}:{tool['line']})"
        )
    if drifted:
        raise CommandExit(_DIFFERS)
    terminal.line(f"no drift: {len(tools)} tools")


def _listing(file: Path | None, source: Source) -> Listing:
    if (file is not None) + bool(source.command) + bool(source.url) != 1:
        raise UsageError("say where the tools are: one of --file, --stdio, --url")
    return read_listing(_text(file)) if file is not None else fetch_listing(source)


def _text(file: Path) -> str:
    with file.open("rb") as stream:
        content = stream.read(_MAX_FILE + 1)
    if len(content) > _MAX_FILE:
        raise UsageError(f"{file} is larger than {_MAX_FILE} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is not UTF-8") from error


def _open(folder: Path, var: list[str] | None) -> EditedBundle:
    files = read_folder(folder)
    return EditedBundle(folder, files, offline_variables(files, var, lambda _: None))


def _catalog(folder: Path, system: str, var: list[str] | None) -> Catalog:
    catalog_path(folder, system)
    return Catalog(_open(folder, var), system)


def _changes(terminal: Terminal, found: list[Change]) -> None:
    for change in found:
        what = f": {plain(', '.join(change.what), 400)}" if change.what else ""
        terminal.line(f"{change.kind} {plain(change.tool, 128)}{what}")


def _worklist(terminal: Terminal, plan: Plan, system: str) -> None:
    tools = [tool for tool in plan.tools() if tool["system"] == system]
    changed_since = sum(1 for tool in tools if tool["drifted"])
    left = sum(1 for tool in tools if not tool["reviewed"] and not tool["drifted"])
    terminal.line(
        f"{len(tools) - left - changed_since} reviewed, {left} not reviewed, {changed_since} changed since review"
    )
    if left or changed_since:
        terminal.note(f"Next: authz catalog classify {system}; authz catalog review {system}")


def _ask(terminal: Terminal, items: list[Item]) -> dict[str, dict[str, Any] | None]:
    chosen: dict[str, dict[str, Any] | None] = {}
    for number, item in enumerate(items, 1):
        terminal.line(f"\n{number}/{len(items)}  {item.operation}  ({item.state})")
        terminal.line(f"  says: {plain(item.tool.description or 'nothing', 400)}")
        terminal.line(f"  arguments: {plain(', '.join(item.tool.properties), 400) or 'none'}")
        hints = [f"{k}={v}" for k, v in (item.tool.annotations or {}).items() if k.endswith("Hint")]
        terminal.line(f"  hints: {plain(', '.join(hints)) or 'none'}")
        if item.has_rule:
            terminal.line(f"  your rule: {' '.join(item.effects)}, {item.tier}")
        elif item.rule:
            terminal.line(f"  proposed: {flow(item.rule)}")
            terminal.line(f"  because: {plain(item.why)}")
        else:
            terminal.line("  proposed: nothing; take it for execute, high")
        while True:
            answer = (
                typer.prompt("  a, e, Enter, q", default="", show_default=False).strip().lower()
            )
            if answer == "q":
                return chosen
            if answer == "":
                break
            try:
                if answer == "a":
                    effects = item.effects or ("execute",)
                    chosen[item.operation] = changed(item, effects, item.tier, "here")
                    break
                if answer == "e":
                    effects_said = typer.prompt("  effects", default=" ".join(item.effects))
                    tier = typer.prompt("  tier", default=item.tier)
                    words = effects_said.replace(",", " ").split()
                    chosen[item.operation] = changed(item, words, tier.strip(), "here")
                    break
            except UsageError as error:
                terminal.note(f"  {error}")
    return chosen
