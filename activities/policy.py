"""Policies of the control plane: documents stored by revision, compiled and signed for one sandbox."""

import dataclasses
from dataclasses import dataclass
from datetime import timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from temporalio import activity
from temporalio.exceptions import ApplicationError

from paddock.contracts.errors import PaddockError
from paddock.contracts.hosts import PolicyRequest, ResolvedPolicy
from paddock.contracts.policies import PolicyApplied, PolicyDocument
from paddock.policy import signed
from paddock.policy.store import PolicyStore

# A lease may be extended; the policy stays good for as long as the longest extension of a day.
VALID_BEYOND = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class PolicyActivities:
    """The control plane's policy store and the key that hosts trust."""

    store: PolicyStore
    key: Ed25519PrivateKey = dataclasses.field(repr=False)

    @activity.defn
    async def resolve_policy(self, request: PolicyRequest) -> ResolvedPolicy:
        """The policy that a sandbox asked for, signed for it alone."""
        try:
            policy = self.store.get(request.policy)
        except PaddockError as wrong:
            raise _final(wrong) from None
        return ResolvedPolicy(
            name=policy.name,
            revision=policy.revision,
            digest=policy.digest,
            signed=signed.sign(policy, request.ref.sandbox_id, request.lease_end + VALID_BEYOND, self.key),
            has_secrets=bool(policy.secret_refs),
        )

    @activity.defn
    async def store_policy(self, document: PolicyDocument) -> PolicyApplied:
        """Check and keep a document; the same text again answers the revision that is there."""
        try:
            name, revision, digest = self.store.apply(document.text, document.file, document.author)
        except PaddockError as wrong:
            raise _final(wrong) from None
        return PolicyApplied(name=name, revision=revision, digest=digest)


def _final(wrong: PaddockError) -> ApplicationError:
    info = wrong.info
    return ApplicationError(info.message, info.model_dump(mode="json"), type=info.kind.value, non_retryable=True)
