#!/opt/paddock/bin/python -I
"""Enrols a host by what its cloud says it is, before it starts: `join.py [--wait] JOIN.json`.

JOIN.json comes with the machine's user data and holds no secret: `cloud`, `client_id` where a machine on Azure has
several identities, and `enrol`, the settings of paddock.bootstrap.enrol, which does all of the work.

Exit code 1: it failed for now, which --wait tries again for as long as it takes; 2: JOIN.json is wrong; 3: refused.
"""

import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from paddock.bootstrap.aws import Aws
from paddock.bootstrap.enrol import ByIdentity, EnrolConfig, Enrolment
from paddock.bootstrap.errors import NotYet
from paddock.bootstrap.identity import LINK_LOCAL, Azure, Gcp, Identity
from paddock.contracts.base import Strict
from paddock.contracts.errors import PaddockError

LATER, WRONG, REFUSED = 1, 2, 3


class Join(Strict):
    """Which cloud this machine is in, and where it enrols."""

    cloud: Literal["aws", "azure", "gcp"]
    client_id: str = ""
    enrol: EnrolConfig


def identity(join: Join, metadata: str) -> Identity:
    """What proves which machine this is."""
    match join.cloud:
        case "aws":
            return Aws(metadata)
        case "azure":
            return Azure(join.client_id, metadata)
        case "gcp":
            return Gcp(metadata)


def attempt(file: Path, metadata: str = LINK_LOCAL) -> int:
    """One enrolment, as patient as its settings say."""
    try:
        join = Join.model_validate_json(file.read_bytes())
        join.enrol.check()
    except (OSError, ValidationError) as wrong:
        return _say(WRONG, f"{file}: {wrong}")
    except PaddockError as wrong:
        return _say(WRONG, f"{file}: {wrong}")
    try:
        done = Enrolment(join.enrol, ByIdentity(identity(join, metadata))).run()
    except NotYet as wrong:
        return _say(LATER, str(wrong))
    except PaddockError as wrong:
        return _say(REFUSED, str(wrong))
    sys.stderr.write(f"paddock: this host is {done.name}\n")
    return 0


def insist(once: Callable[[], int]) -> int:
    """Attempts until one ends in another way than for now: a store that is down comes back, and each one waits."""
    while (code := once()) == LATER:
        pass
    return code


def main(words: Sequence[str]) -> int:
    match words:
        case ["--wait", file]:
            return insist(lambda: attempt(Path(file)))
        case [file] if not file.startswith("-"):
            return attempt(Path(file))
    return _say(WRONG, "usage: join.py [--wait] JOIN.json")


def _say(code: int, words: str) -> int:
    sys.stderr.write(f"paddock: {words}\n")
    return code


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s %(message)s")
    sys.exit(main(sys.argv[1:]))
