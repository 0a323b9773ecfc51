"""The observer: sees the machine from outside (/proc, mounts, cgroups, bytes) and shares no code with the product."""

from tests.observer.leftovers import Allowed, leftovers, settle
from tests.observer.processes import adopt_orphans, guests, processes, reap_orphans
from tests.observer.secrets import Finding, Places, Scan, find_secret, find_secrets
from tests.observer.snapshot import Snapshot, Trace, snapshot

__all__ = [
    "Allowed",
    "Finding",
    "Places",
    "Scan",
    "Snapshot",
    "Trace",
    "adopt_orphans",
    "find_secret",
    "find_secrets",
    "guests",
    "leftovers",
    "processes",
    "reap_orphans",
    "settle",
    "snapshot",
]
