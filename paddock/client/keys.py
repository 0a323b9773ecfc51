"""The caller's ephemeral key: made for one connection, never stored, never sent."""

import base64

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from paddock.contracts.streams import Proof, words_to_sign


class CallerKey:
    """An Ed25519 key whose public half a spec or an `attach` update carries."""

    __slots__ = ("_private", "public")

    def __init__(self) -> None:
        self._private = Ed25519PrivateKey.generate()
        self.public = base64.b64encode(self._private.public_key().public_bytes_raw()).decode()

    def prove(self, sandbox_id: str, host: str, nonce: bytes) -> Proof:
        """The answer to a host's nonce; good for that host, that sandbox and that connection alone."""
        signature = self._private.sign(words_to_sign(sandbox_id, host, nonce))
        return Proof(sandbox_id=sandbox_id, key=self.public, signature=base64.b64encode(signature).decode())
