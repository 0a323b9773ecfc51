"""Machines on EC2, through boto3: settings, errors, sizes with KVM, and the provider itself."""

from providers.aws.ground import AwsGround, AwsKeys, AwsRegion
from providers.aws.provider import Aws

__all__ = ["Aws", "AwsGround", "AwsKeys", "AwsRegion"]
