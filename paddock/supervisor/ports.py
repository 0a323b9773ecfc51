"""The fence's secrets, answered by this sandbox's own client of the broker."""

from paddock.egress.ports import Secret
from paddock.secrets.client import SecretsClient


class FenceSecrets:
    """`paddock.egress.ports.SecretsPort` over the secrets client; both raise PaddockError when there is no value."""

    def __init__(self, client: SecretsClient) -> None:
        self._client = client

    async def fetch(self, ref: str, *, rule: str, host: str, port: int, method: str, path: str) -> Secret:
        got = await self._client.fetch(ref, rule=rule, host=host, port=port, method=method, path=path)
        return Secret(got.value, got.expires_at)
