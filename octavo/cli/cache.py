"""`octavo cache`: what a running server has cached, and what it is to keep, over its admin socket."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from octavo.cli.admin_client import AdminClient
from octavo.cli.config_flags import flag_type
from octavo.cli.prompt_text import add_prompt_arguments, read_prompt

# Wide enough for every column where nobody's terminal says how wide it is.
_PIPE_COLUMNS = 160


def fill(parser: argparse.ArgumentParser) -> None:
    """The flags of this command."""
    parser.description = "Asks a server that runs with --admin-socket about its prefix cache."
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = _add_action(actions, "list", run_list, "show what is cached and pinned")
    listing.add_argument("--json", action="store_true", help="print the server's answer as it is")
    pin = _add_action(actions, "pin", run_pin, "compute a prompt and keep its KV")
    add_prompt_arguments(pin)
    pin.add_argument(
        "--ttl", type=flag_type(float), metavar="SECONDS", help="how long to keep it (default: an hour)"
    )
    pin.add_argument("--cache-salt", metavar="SALT", help="keep it for requests with this cache_salt")
    unpin = _add_action(actions, "unpin", run_unpin, "give up a pin")
    unpin.add_argument("pin_id", type=flag_type(int), metavar="PIN", help="its number, as `list` shows it")
    _add_action(actions, "drop", run_drop, "forget everything that is cached, pins included")


def run_list(arguments: argparse.Namespace) -> int:
    listing = AdminClient(arguments.socket).ask("GET", "/cache")
    if arguments.json:
        sys.stdout.write(json.dumps(listing, ensure_ascii=False) + "\n")
    else:
        _print_listing(listing)
    return 0


def run_pin(arguments: argparse.Namespace) -> int:
    body: dict[str, Any] = {"prompt": read_prompt(arguments.prompt, arguments.file)}
    if arguments.ttl is not None:
        body["ttl_seconds"] = arguments.ttl
    if arguments.cache_salt is not None:
        body["cache_salt"] = arguments.cache_salt
    pin = AdminClient(arguments.socket).ask("POST", "/cache/pins", body)
    sys.stdout.write(
        f"pin {pin['pin_id']}: {pin['num_tokens']} tokens in {pin['num_blocks']} blocks, kept for "
        f"{_duration(pin['expires_in_seconds'])}\n"
    )
    return 0


def run_unpin(arguments: argparse.Namespace) -> int:
    AdminClient(arguments.socket).ask("DELETE", f"/cache/pins/{arguments.pin_id}")
    sys.stdout.write(f"pin {arguments.pin_id} given up\n")
    return 0


def run_drop(arguments: argparse.Namespace) -> int:
    dropped = AdminClient(arguments.socket).ask("DELETE", "/cache")
    sys.stdout.write(f"{dropped['num_blocks']} blocks forgotten\n")
    return 0


def _add_action(actions: Any, name: str, run: Any, help_text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(
        name, help=help_text, allow_abbrev=False, description=help_text[0].upper() + help_text[1:] + "."
    )
    parser.add_argument("--socket", required=True, metavar="PATH", help="the server's --admin-socket")
    parser.set_defaults(run=run, parser=parser)
    return parser


def _print_listing(listing: dict[str, Any]) -> None:
    from rich.console import Console  # noqa: PLC0415  (only where something is drawn)
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console(width=None if sys.stdout.isatty() else _PIPE_COLUMNS, highlight=False)
    pins, prefixes = listing["pins"], listing["prefixes"]
    if pins:
        table = Table("pin", "tokens", "blocks", "kept for", title="Pins", title_justify="left")
        for pin in pins:
            kept = _duration(pin["expires_in_seconds"])
            table.add_row(*map(str, (pin["pin_id"], pin["num_tokens"], pin["num_blocks"])), kept)
        console.print(table)
    if prefixes:
        table = Table("tokens", "blocks", "in use", "salt", title="Cached prefixes", title_justify="left")
        table.add_column("begins", no_wrap=True, overflow="ellipsis")
        for prefix in prefixes:
            table.add_row(
                str(prefix["num_tokens"]),
                str(prefix["num_blocks"]),
                "yes" if prefix["is_in_use"] else "",
                Text(_on_one_line(prefix["cache_salt"])),
                Text(_on_one_line(prefix.get("text_start", ""))),
            )
        console.print(table)
    console.print(f"{listing['num_cached_blocks']} blocks cached, {len(pins)} pins")


def _on_one_line(text: str) -> str:
    """Text of others, with whatever moves a cursor spelled out."""
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)


def _duration(seconds: float) -> str:
    """90 -> '1 min 30 s'."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (rest, "s")]
    return " ".join(f"{number} {unit}" for number, unit in parts if number) or "0 s"
