"""`authz catalog …`: from the `tools/list` of an MCP server to reviewed operations."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from authz.bundle import read_folder
from authz.cli.options import Header, Vars, offline_variables, output_path
from authz.cli.render import CommandExit, Terminal
from authz.engine import effect_table
from authz.errors import UsageError
from authz.tools.catalog.changes import Change, changes
from authz.tools.catalog.edited import EditedBundle
from authz.tools.catalog.fetch import ListingSource, fetch_listing
from authz.tools.catalog.files import catalog_path, flow, read_catalog
from authz.tools.catalog.propose import Proposal
from authz.tools.catalog.review import Catalog, WorklistItem, changed, import_listing
from authz.tools.catalog.sheet import read_csv, write_csv
from authz.tools.catalog.templates import draft_templates
from authz.tools.catalog.tool import Listing, plain, read_listing
from authz.tools.catalog.values import VALUE_KEYS

__all__ = ["register"]

_DIFFERS = 2
_MAX_FILE = 16 * 1024 * 1024
_MAX_DIFFERENCES = 20

System = Annotated[
    str,
    typer.Argument(
        help="System, for example `github`: the part of an operation id before the first dot."
    ),
]
BundleOption = Annotated[
    Path, typer.Option("--bundle", "-b", help="Folder of the bundle.", file_okay=False)
]
File = Annotated[
    Path | None,
    typer.Option("--file", help="JSON file with the answer to tools/list.", dir_okay=False),
]
Stdio = Annotated[
    str,
    typer.Option(
        "--stdio",
        metavar="CMD",
        help="Command of an MCP server that speaks over standard input and output.",
    ),
]
Url = Annotated[
    str,
    typer.Option(
        "--url",
        help="MCP endpoint of a server (streamable HTTP), for example https://mcp.corp.example/mcp.",
    ),
]
Env = Annotated[
    list[str] | None,
    typer.Option(
        "--env",
        metavar="NAME[=VALUE]",
        help="Environment variable for the command; without a value, that of this process. Repeatable.",
    ),
]
Timeout = Annotated[
    float,
    typer.Option(
        "--timeout", help="Seconds until the server must have listed its tools.", min=1, max=600
    ),
]


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
        ("templates", templates, "templates github --output policy/github-tasks.yaml"),
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
    """Write catalog/SYSTEM.mcp.yaml from a server's tools/list. Authz refuses calls of a reviewed tool that changed until the tool is reviewed again."""
    terminal = Terminal()
    path = catalog_path(bundle, system)
    listing = _listing(file, ListingSource(stdio, url, env or (), header or (), timeout))
    edited = _open(bundle, var)
    _changes(terminal, import_listing(edited, system, listing))
    terminal.line(
        f"{path}: {len(listing.tools)} tools of "
        f"{plain(listing.name, 80)} {plain(listing.version, 40)}"
    )
    _worklist(terminal, edited, system)


def classify(*, system: System, bundle: BundleOption = Path(), var: Vars = None) -> None:
    """Propose effects and a tier for each tool, from the verb in its name, its hints and its arguments. Proposals decide nothing."""
    terminal = Terminal()
    catalog = _catalog(bundle, system, var)
    proposals = catalog.classify()
    if proposals:
        terminal.table(
            ("operation", "effects", "tier", "why"),
            [
                (
                    item.operation,
                    " ".join(proposal.effects) if proposal else "-",
                    proposal.tier if proposal else "-",
                    proposal.why if proposal else "name says nothing, or hints contradict it",
                )
                for item, proposal in proposals
            ],
        )
    proposed = sum(1 for _, proposal in proposals if proposal)
    terminal.line(f"{proposed} of {len(proposals)} tools without a rule have a proposal")
    _next(terminal, bundle, f"split {system}", f"review {system}")


def split(
    *,
    system: System,
    operation: Annotated[
        str, typer.Argument(help="Operation to split. Default: each that can be split.")
    ] = "",
    on: Annotated[
        str,
        typer.Option(
            "--on",
            help="Argument whose values become operations. Default: an argument whose values are verbs.",
        ),
    ] = "",
    bundle: BundleOption = Path(),
    var: Vars = None,
) -> None:
    """Propose one operation for each value of an argument, for example of `method: create | delete`."""
    terminal = Terminal()
    catalog = _catalog(bundle, system, var)
    proposals = catalog.split(operation, on)
    for name, proposal in proposals:
        terminal.line(f"{name}: {proposal.why}")
        for value, case in proposal.cases:
            said = f"{' '.join(case.effects)}, {case.tier}" if case else "execute, high (unknown)"
            terminal.line(f"  {plain(value, 60)}: {said}")
    terminal.line(
        f"{len(proposals)} of {len(catalog.listing.tools)} tools have a proposal to be split"
    )


def templates(
    *,
    system: System,
    bundle: BundleOption = Path(),
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            callback=output_path,
            help="File to write to. Default: print.",
            dir_okay=False,
        ),
    ] = None,
    var: Vars = None,
) -> None:
    """Propose a first set of templates: one that only reads, and for each kind of object one that changes it. They permit nothing until you edit them."""
    terminal = Terminal()
    catalog = _catalog(bundle, system, var)
    text = draft_templates(catalog)
    if output is None:
        print(text, end="")
        return
    try:
        with output.open("x") as stream:
            stream.write(text)
    except FileExistsError as error:
        raise UsageError(f"{output} is there already; remove it, or name another file") from error
    except OSError as error:
        raise UsageError(f"{output} cannot be written: {error.strerror}") from error
    terminal.line(str(output))


def review(
    *,
    system: System,
    bundle: BundleOption = Path(),
    csv_out: Annotated[
        Path | None,
        typer.Option(
            help="File to write the worklist to, as CSV for a spreadsheet.", dir_okay=False
        ),
    ] = None,
    csv_in: Annotated[
        Path | None,
        typer.Option(
            help="Such a file to read: each row with `accept` in the column `decision` is accepted.",
            dir_okay=False,
        ),
    ] = None,
    values: Annotated[
        bool,
        typer.Option(
            "--values",
            help="Review reviewed tools again whose rule says nothing of origins of values, such as `objects`: the rule before and after.",
        ),
    ] = False,
    var: Vars = None,
) -> None:
    """Review the tools that are new or changed, the riskiest first: in the terminal, or with a CSV file."""
    terminal = Terminal()
    if (csv_out is not None) + (csv_in is not None) + values > 1:
        raise UsageError("give one of --csv-out, --csv-in and --values")
    catalog = _catalog(bundle, system, var)
    if values:
        _review_values(terminal, catalog)
        return
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
        chosen = _ask(terminal, catalog, items)
    if chosen:
        catalog.accept(chosen)
    terminal.line(f"{len(chosen)} accepted, {len(items) - len(chosen)} left")


def accept(
    *,
    system: System,
    operations: Annotated[list[str] | None, typer.Argument(help="Operations to accept.")] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Accept every operation that has a rule or a proposal.")
    ] = False,
    most: Annotated[
        str, typer.Option("--max-tier", help="With --all: highest tier to accept.")
    ] = "critical",
    bundle: BundleOption = Path(),
    var: Vars = None,
) -> None:
    """Accept tools as they are now. The proposal of a tool without a rule becomes its rule."""
    terminal = Terminal()
    if every == bool(operations):
        raise UsageError("name operations, or give --all")
    table = effect_table()
    if most not in table.tiers:
        raise UsageError(f"--max-tier {plain(most)}: {', '.join(table.tiers)}")
    catalog = _catalog(bundle, system, var)
    chosen: dict[str, dict[str, Any] | None] = dict.fromkeys(operations or ())
    if every:
        chosen = {
            item.operation: None
            for item in catalog.items()
            if item.state != "reviewed"
            and (item.has_rule or item.rule)
            and table.rank(item.tier) <= table.rank(most)
        }
    unseen = catalog.accept(chosen, is_shown=False) if chosen else []
    for operation in sorted(chosen):
        terminal.line(f"accepted {operation}")
    for operation in unseen:
        terminal.note(
            f"{operation}: accepted without its proposed `coerces`, which only its description says; `authz catalog classify` and `review` show it"
        )
    _worklist(terminal, catalog.bundle, system)


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
    """Compare the catalog with the current tools of the server. Exit code 2 if they differ."""
    terminal = Terminal()
    old = read_catalog(bundle, system)
    if old is None:
        raise UsageError(f"there is no {catalog_path(bundle, system)}")
    new = _listing(file, ListingSource(stdio, url, env or (), header or (), timeout))
    differences = changes(old, new)
    _changes(terminal, differences)
    if differences:
        raise CommandExit(_DIFFERS)
    terminal.line(f"no difference: {len(new.tools)} tools")


def drift(
    *,
    system: Annotated[str, typer.Argument(help="System to list. Default: all.")] = "",
    bundle: BundleOption = Path(),
    var: Vars = None,
) -> None:
    """List the tools that changed since they were accepted. Exit code 2 if there are any."""
    terminal = Terminal()
    tools = [
        tool for tool in _open(bundle, var).plan.tools() if system in {"", str(tool["system"])}
    ]
    if system and not tools:
        raise UsageError(f"the bundle has no MCP system `{plain(system, 80)}`")
    drifted = [tool for tool in tools if tool["accepted"] not in {None, tool["digest"]}]
    for tool in drifted:
        terminal.line(
            f"{tool['operation']} changed since it was accepted ({tool['file']}:{tool['line']})"
        )
    if drifted:
        raise CommandExit(_DIFFERS)
    terminal.line(f"no drift: {len(tools)} tools")


def _listing(file: Path | None, source: ListingSource) -> Listing:
    if (file is not None) + bool(source.command) + bool(source.url) != 1:
        raise UsageError("give one of --file, --stdio and --url")
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


def _changes(terminal: Terminal, differences: list[Change]) -> None:
    for change in differences:
        what = f": {plain(', '.join(change.what), 400)}" if change.what else ""
        terminal.line(f"{change.kind} {plain(change.tool, 128)}{what}")


def _next(terminal: Terminal, bundle: Path, *verbs: str) -> None:
    """Name the next commands, for the same bundle."""
    more = "" if bundle == Path() else f" -b {shlex.quote(str(bundle))}"
    terminal.note("Next: " + "; ".join(f"authz catalog {verb}{more}" for verb in verbs))


def _worklist(terminal: Terminal, bundle: EditedBundle, system: str) -> None:
    tools = [tool for tool in bundle.plan.tools() if tool["system"] == system]
    changed_since = sum(1 for tool in tools if tool["drifted"])
    left = sum(1 for tool in tools if not tool["reviewed"] and not tool["drifted"])
    terminal.line(
        f"{len(tools) - left - changed_since} reviewed, {left} not reviewed, {changed_since} changed since review"
    )
    if left or changed_since:
        _next(terminal, bundle.folder, f"classify {system}", f"review {system}")


def _show(terminal: Terminal, catalog: Catalog, item: WorklistItem) -> None:
    """Show a tool to its reviewer: what its server says, what changed, and its rule or proposal."""
    terminal.line(f"  says: {plain(item.tool.description or 'nothing', 400)}")
    terminal.line(f"  arguments: {plain(', '.join(item.tool.properties), 400) or 'none'}")
    hints = [f"{k}={v}" for k, v in (item.tool.annotations or {}).items() if k.endswith("Hint")]
    terminal.line(f"  hints: {plain(', '.join(hints)) or 'none'}")
    differences = item.differences
    for part, before, after in differences[:_MAX_DIFFERENCES]:
        terminal.line(f"  {plain(part, 80)} before: {plain(before, 400)}")
        terminal.line(f"  {plain(part, 80)} after:  {plain(after, 400)}")
    if len(differences) > _MAX_DIFFERENCES:
        terminal.line(f"  and {len(differences) - _MAX_DIFFERENCES} more differences")
    if item.has_rule:
        terminal.line(f"  your rule: {' '.join(item.effects)}, {item.tier}")
        if item.state == "changed":
            now = catalog.proposed_now(item)
            said = f"{' '.join(now.effects)}, {now.tier} ({now.why})" if now else "nothing"
            terminal.line(f"  would be proposed now: {plain(said)}")
            _show_values(terminal, item, now)
    elif item.rule:
        terminal.line(f"  proposed: {flow(item.rule)}")
        terminal.line(f"  because: {plain(item.why, 800)}")
    else:
        terminal.line("  proposed: nothing; take it for execute, high")


def _show_values(terminal: Terminal, item: WorklistItem, now: Proposal | None) -> None:
    """Show the rule of a changed tool about origins of values, and the rule that would be proposed now."""
    if not item.present:
        return
    before = {key: item.present[key] for key in VALUE_KEYS if key in item.present}
    after = now.values.rule() if now is not None else {}
    for key in VALUE_KEYS:
        if before.get(key) != after.get(key):
            terminal.line(f"  {key} in your rule: {plain(flow(before.get(key, [])), 800)}")
            terminal.line(f"  {key} proposed now: {plain(flow(after.get(key, [])), 800)}")


def _review_values(terminal: Terminal, catalog: Catalog) -> None:
    """Ask for each reviewed tool whether its rule gets the proposed keys about origins of values."""
    items = catalog.without_values()
    chosen: dict[str, dict[str, Any] | None] = {}
    if items:
        terminal.note("accept the rule after: a   skip: Enter   stop: q")
    for number, (item, rule) in enumerate(items, 1):
        terminal.line(f"\n{number}/{len(items)}  {item.operation}")
        terminal.line(f"  arguments: {plain(', '.join(item.tool.properties), 400) or 'none'}")
        terminal.line(f"  before: {plain(flow(item.present), 2_000)}")
        terminal.line(f"  after:  {plain(flow(rule), 2_000)}")
        proposal = catalog.proposed_now(item)
        for remark in proposal.values.remarks if proposal is not None else ():
            terminal.line(f"  note: {plain(remark, 400)}")
        answer = typer.prompt("  a, Enter, q", default="", show_default=False).strip().lower()
        if answer == "q":
            break
        if answer == "a":
            chosen[item.operation] = rule
    if chosen:
        catalog.accept(chosen)
    terminal.line(f"{len(chosen)} accepted, {len(items) - len(chosen)} left")


def _ask(
    terminal: Terminal, catalog: Catalog, items: list[WorklistItem]
) -> dict[str, dict[str, Any] | None]:
    chosen: dict[str, dict[str, Any] | None] = {}
    for number, item in enumerate(items, 1):
        terminal.line(f"\n{number}/{len(items)}  {item.operation}  ({item.state})")
        _show(terminal, catalog, item)
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
