"""A stand-in provider plugin for Terraform (protocol 6): it knows one real schema and makes nothing.

Run by Terraform as `terraform-provider-…`, in the tools' own environment. It answers what `validate` and `test` with
mocked providers ask: the schema, and that a configuration which fits it is fine. Anything else is refused in words.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import tf.provider
import tf.runner
from tf.gen import tfplugin_pb2 as pb

Block = dict[str, Any]


def block(said: Block) -> pb.Schema.Block:
    attributes = [
        pb.Schema.Attribute(
            name=name,
            type=json.dumps(one["type"]).encode(),
            **{flag: one.get(flag, False) for flag in ("required", "optional", "computed")},
        )
        for name, one in sorted(said["attributes"].items())
    ]
    nested = [
        pb.Schema.NestedBlock(
            type_name=name,
            block=block(one["block"]),
            nesting=getattr(pb.Schema.NestedBlock.NestingMode, one["nesting"].upper()),
            min_items=one["min"],
            max_items=one["max"],
        )
        for name, one in sorted(said["blocks"].items())
    ]
    return pb.Schema.Block(attributes=attributes, block_types=nested)


class StandIn:
    """The service that Terraform calls; it is made by tf.runner, with a provider that it does not need."""

    def __init__(self, _provider: object) -> None:
        schema = json.loads(Path(os.environ["PADDOCK_STANDIN_SCHEMA"]).read_text())
        self.provider = pb.Schema(block=block(schema["provider"]))
        self.resources = {name: pb.Schema(block=block(one)) for name, one in schema["resources"].items()}
        self.data = {name: pb.Schema(block=block(one)) for name, one in schema["data"].items()}

    def GetMetadata(self, _request: Any, _context: Any) -> pb.GetMetadata.Response:
        return pb.GetMetadata.Response(
            resources=[pb.GetMetadata.ResourceMetadata(type_name=name) for name in self.resources],
            data_sources=[pb.GetMetadata.DataSourceMetadata(type_name=name) for name in self.data],
        )

    def GetProviderSchema(self, _request: Any, _context: Any) -> pb.GetProviderSchema.Response:
        return pb.GetProviderSchema.Response(
            provider=self.provider, resource_schemas=self.resources, data_source_schemas=self.data
        )

    def ValidateProviderConfig(self, _request: Any, _context: Any) -> pb.ValidateProviderConfig.Response:
        return pb.ValidateProviderConfig.Response()

    def ValidateResourceConfig(self, _request: Any, _context: Any) -> pb.ValidateResourceConfig.Response:
        return pb.ValidateResourceConfig.Response()

    def ValidateDataResourceConfig(self, _request: Any, _context: Any) -> pb.ValidateDataResourceConfig.Response:
        return pb.ValidateDataResourceConfig.Response()

    def StopProvider(self, _request: Any, _context: Any) -> pb.StopProvider.Response:
        return pb.StopProvider.Response()

    def __getattr__(self, name: str) -> Callable[[Any, grpc.ServicerContext], None]:
        if name.startswith("_"):
            raise AttributeError(name)

        def refuse(_request: Any, context: grpc.ServicerContext) -> None:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, f"the stand-in provider makes nothing, so it refuses {name}")

        return refuse


if __name__ == "__main__":
    tf.provider.ProviderServicer = StandIn
    tf.runner.run_provider(None, sys.argv)
