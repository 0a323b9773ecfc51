"""How the token of each cloud names a machine, from what its provider calls it."""

import re
from typing import Final

from paddock.contracts.errors import ErrorKind, PaddockError

_AWS_REGION: Final = re.compile(r"[a-z]{2,}(?:-[a-z]+)+?-[0-9]{1,2}")
_AWS_ID: Final = re.compile(r"i-[0-9a-f]{8,17}")
_GCP_NAME: Final = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_AZURE_ID: Final = re.compile(
    r"/subscriptions/([0-9a-fA-F-]{36})/resourceGroups/([^/]{1,90})"
    r"/providers/Microsoft\.Compute/virtualMachines/([^/]{1,80})",
    re.IGNORECASE,
)


def aws_instance(id: str, zone: str, account: str, partition: str = "aws") -> str:
    """The claim `ec2_source_instance_arn` of an instance in a zone. Raises PaddockError BAD_SPEC."""
    region = _AWS_REGION.match(zone)
    if not region or not _AWS_ID.fullmatch(id) or not re.fullmatch(r"[0-9]{12}", account):
        raise _wrong(f"{id!r} in zone {zone!r} of account {account!r}", "an instance of AWS")
    return f"arn:{partition}:ec2:{region[0]}:{account}:instance/{id}"


def azure_instance(id: str) -> str:
    """The claim `xms_az_rid` of a virtual machine by its resource id. Raises PaddockError BAD_SPEC."""
    found = _AZURE_ID.fullmatch(id)
    if not found:
        raise _wrong(repr(id), "a virtual machine's resource id")
    # Resource ids ignore case, the store does not. Tokens have been seen to spell the group's word so.
    return (
        f"/subscriptions/{found[1].lower()}/resourcegroups/{found[2]}"
        f"/providers/Microsoft.Compute/virtualMachines/{found[3]}"
    )


def gcp_instance(name: str) -> str:
    """The claim `instance_name`; project and zone are bound by the store's role. Raises PaddockError BAD_SPEC."""
    if not _GCP_NAME.fullmatch(name):
        raise _wrong(repr(name), "the name of a Google instance")
    return name


def _wrong(what: str, wanted: str) -> PaddockError:
    return PaddockError(ErrorKind.BAD_SPEC, f"{what} is not {wanted}", field="instance")
