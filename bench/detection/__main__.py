"""Prints the tools of a system as an answer to MCP's `tools/list`: `python -m bench.detection mail files`."""

import json
import sys

from bench.detection.systems import SYSTEMS


def main(arguments: list[str]) -> int:
    """Prints the tools, or which systems there are.

    Args:
        arguments: domain and system.

    Returns:
        Exit status.
    """
    match arguments:
        case [domain, system] if domain in SYSTEMS:
            for one in SYSTEMS[domain]:
                if one.name == system:
                    server = {"name": f"{domain}-{system}", "version": "1"}
                    print(json.dumps({"server": server, "tools": one.listing()}, indent=1))
                    return 0
    for domain, systems in SYSTEMS.items():
        print(domain, *(one.name for one in systems), file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
