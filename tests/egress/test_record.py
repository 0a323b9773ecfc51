"""What the fence writes down can't be forged by what a guest says, and stays bounded."""

from paddock.egress.record import Recorder, Subject, printable
from tests.servers.shim import MemoryAudit


def test_84_hostile_text_is_plain_and_short() -> None:
    assert printable('a\r\n\x1b[31m{"x"}\u202e' + "b" * 400, 20) == 'a???[31m{"x"}?bbbbbb'


def test_action_ids_are_never_the_same() -> None:
    first, second = Recorder(MemoryAudit()), Recorder(MemoryAudit())
    assert len({r.action_id() for r in (first, second) for _ in range(100)}) == 200


def test_names_that_stopped_being_asked_for_are_noted_again_in_the_next_window() -> None:
    audit = MemoryAudit()
    recorder = Recorder(audit)
    for now in (0.0, 1.0, 2.0, 11.0):
        recorder.dns_denied("evil.example", 1, now)
    assert [e.detail["asked"] for e in audit.events] == [1, 4]


def test_an_event_about_a_stream_has_no_method_or_path() -> None:
    assert Subject("a.example", 1, "tcp").detail(x=1) == {"host": "a.example", "port": 1, "protocol": "tcp", "x": 1}
