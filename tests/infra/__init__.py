"""Terraform and the host image, checked offline: real schemas, a stand-in provider plugin, policies, cloud-init."""
