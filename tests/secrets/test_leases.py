"""The broker says whose access is out, and since when: what a sweep compares with the sandboxes that there are."""

import time

from paddock.secrets.client import SecretsClient
from tests.secrets.rig import Keeper, policy, until


async def test_access_is_listed_from_its_beginning_to_its_proved_end(embedded: Keeper) -> None:
    assert embedded.ask("leases") == {"leases": {}, "more": 0}
    before = time.time()
    client = SecretsClient(embedded.adopt())
    await client.open(policy())
    [(sandbox, since)] = embedded.ask("leases")["leases"].items()
    assert sandbox == "sb-1"
    assert before - 1 <= since <= time.time()
    assert embedded.revoke()["gone"] == "proved"
    assert embedded.ask("leases")["leases"] == {}


async def test_access_of_a_supervisor_that_died_is_still_out(embedded: Keeper) -> None:
    end = embedded.adopt()
    client = SecretsClient(end)
    await client.open(policy())
    end.close()
    until(lambda: list(embedded.ask("leases")["leases"]) == ["sb-1"])
