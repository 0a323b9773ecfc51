"""What the report counts as denied survives a flood of names that were only asked for."""

from paddock.egress.http.message import Refused, Why
from paddock.egress.record import Recorder, Subject
from tests.servers.shim import MemoryAudit

DENIAL = Refused(403, Why.POLICY, "no")


def subject(host: str) -> Subject:
    return Subject(host, 443, "https", "GET", "/")


async def test_a_flood_of_names_does_not_hide_the_connections_that_were_denied() -> None:
    recorder = Recorder(MemoryAudit())
    for number in range(5000):
        recorder.dns_denied(f"junk-{number}.example", 1, float(number))
    await recorder.denied("a", "", subject("tried.example"), DENIAL)
    await recorder.denied("b", "no-posts", subject("api.example"), DENIAL)
    rows = recorder.counts()
    assert ("", "tried.example", 1) in rows
    assert ("no-posts", "api.example", 1) in rows
    assert rows[0] == ("", "(others)", 5000 - 1024)
    assert len(rows) == 1024 + 1 + 2


async def test_a_name_that_was_asked_for_and_tried_is_one_row() -> None:
    recorder = Recorder(MemoryAudit())
    recorder.dns_denied("evil.example", 1, 0.0)
    recorder.dns_denied("evil.example", 1, 0.0)
    await recorder.denied("a", "", subject("evil.example"), DENIAL)
    assert recorder.counts() == [("", "evil.example", 3)]
