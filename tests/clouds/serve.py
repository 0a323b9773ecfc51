"""An emulated cloud as a process of its own: its instances are real hosts. `python -m tests.clouds.serve CLOUD ...`.

It writes one line of JSON: `settings` of its provider, `environ` for the worker that uses them, and `observe`, where
`GET /held` and `GET /calls` answer what exists and what was asked. It ends at SIGTERM, with every host; and however it
ends, no host outlives it.
"""

import argparse
import dataclasses
import importlib
import json
import os
import signal
import sys
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from providers.registry import EMULATED_AZURE_TOKEN
from tests.clouds.cloud import Cloud
from tests.clouds.host import Hosts

CLOUDS = {"aws": "ec2:Ec2", "gcp": "gce:Gce", "azure": "arm:Arm", "onprem": "redfish:Redfish"}


def start(name: str) -> Cloud:
    """A running emulator of this cloud."""
    module, _, kind = CLOUDS[name].partition(":")
    cloud: Cloud = getattr(importlib.import_module(f"tests.clouds.{module}"), kind)()
    return cloud


def settings(ground: Any) -> dict[str, Any]:
    """A provider's settings as a configuration file has them: nothing secret, nothing unset."""
    return {
        field.name: _plain(value)
        for field in dataclasses.fields(ground)
        if field.name not in {"keys", "credential", "credentials"}
        and (value := getattr(ground, field.name)) not in (None, "")
    }


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return settings(value)
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, Path) else value


def environ(name: str, cloud: Cloud) -> dict[str, str]:
    """What the worker of an environment on this emulator has in its environment, as a real one has credentials."""
    if name == "aws":
        keys = cloud.provider.ground.keys  # type: ignore[attr-defined]
        return {
            "AWS_ACCESS_KEY_ID": keys.access_key_id,
            "AWS_SECRET_ACCESS_KEY": keys.secret_access_key,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        }
    if name == "azure":
        return {EMULATED_AZURE_TOKEN: cloud.provider.ground.credential.get_token().token}  # type: ignore[attr-defined]
    return {}


class _Observe(BaseHTTPRequestHandler):
    cloud: Cloud
    hosts: Hosts

    def do_GET(self) -> None:
        answers = {
            "/held": lambda: [dataclasses.asdict(one) | {"tags": dict(one.tags)} for one in self.cloud.held()],
            "/calls": lambda: dict(self.cloud.calls()),
            "/hosts": lambda: self.hosts.pids(),
        }
        if self.path not in answers:
            self.send_error(404)
            return
        body = json.dumps(answers[self.path]()).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.clouds.serve", description=__doc__)
    parser.add_argument("cloud", choices=sorted(CLOUDS))
    parser.add_argument("--home", type=Path, required=True, help="directory of its machines")
    parser.add_argument("--uids", type=int, required=True, help="first user id of its machines' sandboxes")
    parser.add_argument("--template", type=Path, required=True, help="JSON: what its machines' configurations must say")
    parser.add_argument("--say", type=Path, default=Path("/dev/stdout"), help="where the line goes")
    given = parser.parse_args(argv)
    if os.geteuid() != 0:
        parser.error("its machines are namespaces of process ids: run it as root")
    hosts = Hosts(given.home, given.uids, json.loads(given.template.read_text()))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: hosts.over())
    cloud = start(given.cloud)
    cloud.on_boot, cloud.on_end = hosts.boot, hosts.end
    _Observe.cloud, _Observe.hosts = cloud, hosts
    observe = ThreadingHTTPServer(("127.0.0.1", 0), _Observe)
    threading.Thread(target=observe.serve_forever, daemon=True).start()
    ground = getattr(cloud.provider, "ground", None) or cloud.provider._ground  # type: ignore[attr-defined]
    said = {
        "endpoint": cloud.endpoint,
        "settings": settings(ground),
        "environ": environ(given.cloud, cloud),
        "zones": list(cloud.zones),
        "size": cloud.size,
        "observe": f"http://127.0.0.1:{observe.server_port}",
    }
    given.say.write_text(json.dumps(said) + "\n")
    try:
        hosts.run()  # here, as a machine ends with the thread that started it
    finally:
        cloud.on_boot = cloud.on_end = None
        hosts.close()
        observe.shutdown()
        cloud.close()


if __name__ == "__main__":
    main(sys.argv[1:])
