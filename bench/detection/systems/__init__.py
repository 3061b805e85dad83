"""The simulated systems, and which domain has which."""

from collections.abc import Mapping
from typing import Final

from bench.detection.systems.bank import Bank
from bench.detection.systems.forge import Issues, Pipelines, Pulls, Repos
from bench.detection.systems.office import Calendar, Contacts, Files, Mail, Notes, Web
from bench.detection.systems.retail import Shop, Stock, Tickets
from bench.detection.systems.talk import Chat, Site
from bench.detection.systems.trips import Booking, Expenses
from bench.detection.world import System

SYSTEMS: Final[Mapping[str, tuple[type[System], ...]]] = {
    "mail": (Mail, Calendar, Contacts, Files, Notes, Web),
    "banking": (Bank, Files, Mail, Notes, Web),
    "chat": (Chat, Site, Files, Notes, Web),
    "code": (Repos, Issues, Pulls, Pipelines, Mail, Notes, Web),
    "travel": (Booking, Expenses, Calendar, Contacts, Mail, Files, Web),
    "shop": (Shop, Stock, Tickets, Mail, Files, Notes),
}
