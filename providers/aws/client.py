"""The SDK's clients, one for each region: no retries of their own, and every failure in the contract's words."""

import os
import threading
from collections.abc import Iterator, Mapping
from typing import Any, Final

import boto3
import botocore.session
from botocore.config import Config

from providers.aws.errors import classify
from providers.aws.ground import AwsGround

CONNECT_S: Final = 5
READ_S: Final = 60
# Clients are made under a lock, as sessions are not safe between threads; the clients themselves are.
_Answer = Mapping[str, Any]


class Clients:
    """Calls EC2 in a region. Safe between threads; blocks at most CONNECT_S + READ_S. Raises ProviderError."""

    def __init__(self, ground: AwsGround) -> None:
        self._ground = ground
        self._made: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._secrets = ground.keys.secrets if ground.keys else ()

    def call(self, region: str, operation: str, **arguments: object) -> _Answer:
        """One request, sent once."""
        try:
            answer: _Answer = getattr(self._of(region), operation)(**arguments)
        except Exception as error:
            raise classify(error, f"{operation} in {region}", self._secrets) from None
        return answer

    def pages(self, region: str, operation: str, **arguments: object) -> Iterator[_Answer]:
        """All pages of a listing."""
        try:
            client = self._of(region)
            if not client.can_paginate(operation):
                yield getattr(client, operation)(**arguments)
                return
            yield from client.get_paginator(operation).paginate(**arguments)
        except Exception as error:
            raise classify(error, f"{operation} in {region}", self._secrets) from None

    def _of(self, region: str) -> Any:
        with self._lock:
            if region not in self._made:
                self._made[region] = self._session(region).client(
                    "ec2", endpoint_url=self._ground.endpoint_url or None, config=self._config()
                )
            return self._made[region]

    def _session(self, region: str) -> boto3.session.Session:
        keys = self._ground.keys
        if keys is None:
            return boto3.session.Session(region_name=region)
        # What the settings say is all that counts: no file and no profile of the user who runs this.
        core = botocore.session.Session(
            session_vars={
                "profile": (None, None, None, None),
                "config_file": (None, None, os.devnull, None),
                "credentials_file": (None, None, os.devnull, None),
            }
        )
        return boto3.session.Session(
            aws_access_key_id=keys.access_key_id,
            aws_secret_access_key=keys.secret_access_key,
            aws_session_token=keys.session_token or None,
            region_name=region,
            botocore_session=core,
        )

    def _config(self) -> Config:
        # An emulator is on loopback, where no proxy stands; elsewhere the SDK looks for one as always.
        proxies: dict[str, dict[str, str]] = {"proxies": {}} if self._ground.endpoint_url else {}
        return Config(
            retries={"mode": "standard", "total_max_attempts": 1},
            connect_timeout=CONNECT_S,
            read_timeout=READ_S,
            user_agent_extra="paddock",
            **proxies,
        )
