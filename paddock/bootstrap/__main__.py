"""`python -m paddock.bootstrap CONFIG`: a machine's first program gets its credentials, before its host starts.

Exit code: 0 they are in their places · 1 refused, or not had within the patience · 2 the configuration is wrong.
"""

import logging
import sys
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from paddock.bootstrap.aws import Aws
from paddock.bootstrap.enrol import ByIdentity, ByJoinToken, EnrolConfig, Enrolment, Opener
from paddock.bootstrap.identity import LINK_LOCAL, Azure, Gcp
from paddock.contracts.errors import ErrorKind, PaddockError


class MachineConfig(EnrolConfig):
    """What an image or user data says to a machine, with the way to prove itself. No secret is in it.

    `metadata` and `sts` are for emulators; `join_file` holds the join token of a machine of one's own.
    """

    identity: Literal["aws", "azure", "gcp", "join"]
    azure_client_id: str = Field("", max_length=64)
    join_file: Path | None = None
    metadata: str = LINK_LOCAL
    sts: str = ""

    def opener(self) -> Opener:
        """The way to the grant. Raises PaddockError SET_UP for a join without its file."""
        match self.identity:
            case "aws":
                return ByIdentity(Aws(self.metadata, self.sts))
            case "azure":
                return ByIdentity(Azure(self.azure_client_id, self.metadata))
            case "gcp":
                return ByIdentity(Gcp(self.metadata))
        if not self.join_file:
            raise PaddockError(ErrorKind.SET_UP, "identity is 'join', and join_file is not set", field="join_file")
        return ByJoinToken(self.join_file)


def load(file: Path) -> MachineConfig:
    """The configuration in `file`; raises PaddockError SET_UP that names the field which is wrong."""
    try:
        config = MachineConfig.model_validate_json(file.read_bytes())
    except OSError as wrong:
        raise PaddockError(ErrorKind.SET_UP, f"cannot be read: {wrong.strerror}", field=str(file)) from None
    except ValidationError as wrong:
        first = wrong.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise PaddockError(ErrorKind.SET_UP, f"{where}: {first['msg']}", field=str(file)) from None
    config.check()
    return config


def main(argv: list[str]) -> int:
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    log = logging.getLogger("paddock.bootstrap")
    if len(argv) != 1:
        log.error("usage: python -m paddock.bootstrap CONFIG")
        return 2
    try:
        config = load(Path(argv[0]))
        opener = config.opener()
    except PaddockError as wrong:
        log.error("%s", wrong)
        return 2
    try:
        done = Enrolment(config, opener).run()
    except PaddockError as wrong:
        log.error("%s", wrong)
        return 1
    log.info("%s has its credentials%s", done.name, " already" if done.already else "")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
