"""The roles that the modules define: what the provider asks is allowed, and everything near it is refused."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from providers.aws import AwsGround, AwsRegion, launch
from providers.contract import HostOrder
from tests.infra import rig
from tests.infra.iam import Context, allowed

EC2 = "arn:aws:ec2:eu-central-1:123456789012"
SUBNET, GROUP = f"{EC2}:subnet/subnet-0123456789abcdef0", f"{EC2}:security-group/sg-0123456789abcdef0"
IMAGE = "arn:aws:ec2:eu-central-1::image/ami-0123456789abcdef0"
PROFILE = "arn:aws:iam::123456789012:instance-profile/paddock-host"
OURS = {"paddock-controller": "prod", "paddock-environment": "aws-1", "paddock-host": "h1"}
KINDS = ("instance", "volume", "network-interface")
EVERYTHING = {"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}


@pytest.fixture(scope="module")
def worker(ground: Callable[[str], rig.Ground]) -> list[Any]:
    return [json.loads(ground("aws-host-ground").resources["aws_iam_role_policy.worker"]["policy"])]


@pytest.fixture(scope="module")
def host(ground: Callable[[str], rig.Ground]) -> list[Any]:
    return [json.loads(ground("aws-host-ground").resources["aws_iam_role_policy.host"]["policy"])]


@pytest.fixture
def order() -> HostOrder:
    return HostOrder("prod", "aws-1", "h1", 1, "m8i.2xlarge", "eu-central-1a", datetime(2026, 12, 1, tzinfo=UTC))


def asked_tags(tags: dict[str, str]) -> Context:
    return {f"aws:RequestTag/{key}": value for key, value in tags.items()}


def there(tags: dict[str, str]) -> Context:
    return {f"aws:ResourceTag/{key}": value for key, value in tags.items()}


def launched(order: HostOrder, **changes: object) -> Iterator[tuple[str, str, Context]]:
    """What IAM is asked when our provider launches: each action, resource and its condition keys."""
    region = AwsRegion("eu-central-1", "ami-0123456789abcdef0", {order.zone: SUBNET[-24:]}, (GROUP[-20:],))
    ground = AwsGround((region,), instance_profile=PROFILE)
    said: dict[str, Any] = launch.request(order, region, ground, [], nested=True) | changes
    specs = {one["ResourceType"]: {t["Key"]: t["Value"] for t in one["Tags"]} for one in said["TagSpecifications"]}
    metadata = said["MetadataOptions"]
    keys = {
        "instance": {
            "ec2:InstanceProfile": said["IamInstanceProfile"]["Arn"],
            "ec2:MetadataHttpTokens": metadata["HttpTokens"],
            "ec2:MetadataHttpPutResponseHopLimit": str(metadata["HttpPutResponseHopLimit"]),
        },
        "volume": {},
        "network-interface": {"ec2:Subnet": f"{EC2}:subnet/{said['NetworkInterfaces'][0]['SubnetId']}"},
    }
    if "InstanceMarketOptions" in said:
        keys["spot-instances-request"] = {}
    for kind, more in keys.items():
        context = {**more, **asked_tags(specs.get(kind, {}))}
        yield "ec2:RunInstances", f"{EC2}:{kind}/*", context
        if kind in specs:
            yield "ec2:CreateTags", f"{EC2}:{kind}/*", {**context, "ec2:CreateAction": "RunInstances"}
    yield "ec2:RunInstances", f"{EC2}:subnet/{said['NetworkInterfaces'][0]['SubnetId']}", {}
    for group in said["NetworkInterfaces"][0]["Groups"]:
        yield "ec2:RunInstances", f"{EC2}:security-group/{group}", {}
    yield "ec2:RunInstances", f"arn:aws:ec2:eu-central-1::image/{said['ImageId']}", {}
    yield "iam:PassRole", "arn:aws:iam::123456789012:role/paddock", {"iam:PassedToService": "ec2.amazonaws.com"}


def may(policies: list[Any], asked: Iterator[tuple[str, str, Context]]) -> bool:
    return all(allowed(policies, *one) for one in asked)


# The worker's role


@pytest.mark.parametrize("spot", [False, True])
def test_the_worker_may_launch_what_our_provider_asks(worker: list[Any], order: HostOrder, spot: bool) -> None:
    asked = HostOrder(**{name: getattr(order, name) for name in order.__slots__} | {"spot": spot})
    refused = [one for one in launched(asked) if not allowed(worker, *one)]
    assert refused == []


def test_the_worker_may_call_every_operation_of_our_provider(worker: list[Any]) -> None:
    source = "".join(path.read_text() for path in (rig.ROOT / "providers" / "aws").glob("*.py"))
    calls = set(re.findall(r'"((?:describe|run|terminate|delete|release|create|modify)_[a-z_]+)"', source))
    assert len(calls) >= 8, "how the provider names its calls has changed"
    kinds = {"terminate_instances": "instance", "delete_volume": "volume", "release_address": "elastic-ip"}
    for call in calls - {"run_instances"}:
        action = f"ec2:{''.join(word.title() for word in call.split('_'))}"
        resource = "*" if call.startswith("describe") else f"{EC2}:{kinds.get(call, 'network-interface')}/i-1"
        context = {"aws:RequestedRegion": "eu-central-1", **there(OURS)}
        assert allowed(worker, action, resource, context), call


def _without(tags: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    return [{**one, "Tags": [tag for tag in one["Tags"] if tag["Key"] != key]} for one in tags]


@pytest.mark.parametrize("key", OURS)
def test_nothing_is_launched_without_our_tags(worker: list[Any], order: HostOrder, key: str) -> None:
    tags = [{"ResourceType": kind, "Tags": [{"Key": k, "Value": v} for k, v in OURS.items()]} for kind in KINDS]
    assert may(worker, launched(order, TagSpecifications=tags))
    assert not may(worker, launched(order, TagSpecifications=_without(tags, key)))
    for kind in KINDS:
        some = [one for one in tags if one["ResourceType"] != kind]
        assert not may(worker, launched(order, TagSpecifications=some)), kind


@pytest.mark.parametrize(
    "change",
    [
        {"ImageId": "ami-0fffffffffffffff0"},
        {"IamInstanceProfile": {"Arn": "arn:aws:iam::123456789012:instance-profile/admin"}},
        {"NetworkInterfaces": [{"SubnetId": "subnet-0fffffffffffffff0", "Groups": [GROUP[-20:]]}]},
        {"NetworkInterfaces": [{"SubnetId": SUBNET[-24:], "Groups": ["sg-0fffffffffffffff0"]}]},
        {"MetadataOptions": {"HttpTokens": "optional", "HttpPutResponseHopLimit": 1}},
        {"MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 2}},
    ],
)
def test_nothing_is_launched_from_other_ground_or_with_open_metadata(
    worker: list[Any], order: HostOrder, change: dict[str, object]
) -> None:
    assert not may(worker, launched(order, **change))


def test_no_interface_has_an_address_of_its_own(worker: list[Any]) -> None:
    context = {"ec2:Subnet": SUBNET, **asked_tags(OURS)}
    for public, fine in (("true", False), ("false", True)):
        asked = {**context, "ec2:AssociatePublicIpAddress": public}
        assert allowed(worker, "ec2:RunInstances", f"{EC2}:network-interface/*", asked) == fine


ENDS = [
    ("ec2:TerminateInstances", "instance/i-1"),
    ("ec2:DeleteVolume", "volume/vol-1"),
    ("ec2:DeleteNetworkInterface", "network-interface/eni-1"),
    ("ec2:ReleaseAddress", "elastic-ip/eipalloc-1"),
]


@pytest.mark.parametrize(("action", "what"), ENDS)
@pytest.mark.parametrize(
    "tags",
    [
        {},
        OURS | {"paddock-controller": "staging"},
        OURS | {"paddock-environment": "aws-2"},
        {key: OURS[key] for key in ("paddock-controller", "paddock-environment")},  # the ground's own
        {"paddock-host": "h1"},
    ],
)
def test_the_worker_cannot_end_what_is_not_ours(
    worker: list[Any], action: str, what: str, tags: dict[str, str]
) -> None:
    assert allowed(worker, action, f"{EC2}:{what}", there(OURS))
    assert not allowed(worker, action, f"{EC2}:{what}", there(tags))


@pytest.mark.parametrize("context", [{}, {"ec2:CreateAction": "CreateVolume"}])
def test_nothing_that_exists_can_be_tagged_ours(worker: list[Any], context: Context) -> None:
    for kind in KINDS:
        assert not allowed(worker, "ec2:CreateTags", f"{EC2}:{kind}/x", {**context, **asked_tags(OURS), **there({})})
        assert not allowed(worker, "ec2:DeleteTags", f"{EC2}:{kind}/x", there(OURS))


NEVER = [
    ("iam:PassRole", "arn:aws:iam::123456789012:role/admin", {"iam:PassedToService": "ec2.amazonaws.com"}),
    ("iam:PassRole", "arn:aws:iam::123456789012:role/paddock", {"iam:PassedToService": "lambda.amazonaws.com"}),
    ("iam:CreateRole", "arn:aws:iam::123456789012:role/x", {}),
    ("iam:PutRolePolicy", "arn:aws:iam::123456789012:role/paddock", {}),
    ("ec2:StopInstances", f"{EC2}:instance/i-1", there(OURS)),
    ("ec2:ModifyInstanceAttribute", f"{EC2}:instance/i-1", there(OURS)),
    ("ec2:ModifyInstanceMetadataOptions", f"{EC2}:instance/i-1", there(OURS)),
    ("ec2:GetPasswordData", f"{EC2}:instance/i-1", there(OURS)),
    ("ec2:AuthorizeSecurityGroupIngress", GROUP, {}),
    ("ec2:DeleteSubnet", SUBNET, {}),
    ("ec2:CreateSnapshot", f"{EC2}:volume/vol-1", there(OURS)),
    ("ec2:DescribeInstances", "*", {"aws:RequestedRegion": "us-east-1"}),
    ("ssm:SendCommand", f"{EC2}:instance/i-1", there(OURS)),
    ("s3:GetObject", "arn:aws:s3:::any/thing", {}),
    ("sts:AssumeRole", "arn:aws:iam::123456789012:role/admin", {}),
]


@pytest.mark.parametrize(("action", "resource", "context"), NEVER)
def test_the_worker_may_do_nothing_else(worker: list[Any], action: str, resource: str, context: Context) -> None:
    assert allowed([EVERYTHING], action, resource, context)
    assert not allowed(worker, action, resource, context)


# The hosts' role


@pytest.mark.parametrize(("action", "what"), ENDS)
def test_a_host_may_do_nothing_even_with_a_policy_that_allows_all(host: list[Any], action: str, what: str) -> None:
    for policies in (host, [*host, EVERYTHING]):
        assert not allowed(policies, action, f"{EC2}:{what}", there(OURS))
        assert not any(allowed(policies, *one) for one in NEVER)
    assert allowed([*host, EVERYTHING], "sts:GetCallerIdentity", "*")


def test_a_host_may_have_sts_say_which_instance_it_is(host: list[Any]) -> None:
    assert allowed(host, "sts:GetWebIdentityToken", "*")
    assert not allowed(host, "sts:AssumeRole", "*")


# AWS's own list of actions and condition keys


def findings(policy: Path, document: object) -> list[str]:
    """What parliament has to say, but for two things that it cannot know.

    A launch may be allowed in several statements, and GetWebIdentityToken is newer than its list.
    """
    argv = [str(policy / "bin" / "parliament"), "--json"]
    done = subprocess.run(argv, input=json.dumps(document), capture_output=True, text=True, timeout=60)
    said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert done.returncode in (0, 1), done.stderr
    known = ("RESOURCE_MISMATCH ec2:RunInstances", "UNKNOWN_ACTION sts:GetWebIdentityToken")
    found = [f"{one['issue']} {_about(one['detail'])}" for one in said]
    return [line for line in found if line not in known]


def _about(detail: Any) -> str:
    """The actions of a finding, or its own words without their beginning."""
    if isinstance(detail, list):
        return " ".join(sorted({one["action"] for one in detail}))
    return str(detail).removeprefix("Unknown action ")


def test_aws_knows_every_action_and_condition(policy: Path, worker: list[Any], host: list[Any]) -> None:
    assert findings(policy, worker[0]) + findings(policy, host[0]) == []


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("ec2:DeleteVolume", "ec2:DeleteVolum", "UNKNOWN_ACTION"),
        ("ec2:MetadataHttpTokens", "ec2:MetaHttpTokens", "UNKNOWN_CONDITION"),
        ("NumericEquals", "NumberEquals", "OPERATOR"),
    ],
)
def test_a_misspelt_action_or_condition_is_named(
    policy: Path, worker: list[Any], old: str, new: str, words: str
) -> None:
    text = json.dumps(worker[0])
    assert old in text
    assert any(words in line for line in findings(policy, json.loads(text.replace(old, new))))
