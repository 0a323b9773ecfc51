# Against the provider's real schema, with nothing made. What IAM would decide by the roles is tried in tests/infra.

mock_provider "aws" {
  mock_data "aws_partition" {
    defaults = {
      partition  = "aws"
      dns_suffix = "amazonaws.com"
    }
  }
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
  mock_data "aws_ami" {
    defaults = { root_device_name = "/dev/xvda" }
  }
  mock_resource "aws_subnet" {
    defaults = {
      arn = "arn:aws:ec2:eu-central-1:123456789012:subnet/subnet-0123456789abcdef0"
      id  = "subnet-0123456789abcdef0"
    }
  }
  mock_resource "aws_security_group" {
    defaults = {
      arn = "arn:aws:ec2:eu-central-1:123456789012:security-group/sg-0123456789abcdef0"
      id  = "sg-0123456789abcdef0"
    }
  }
  mock_resource "aws_launch_template" {
    defaults = { arn = "arn:aws:ec2:eu-central-1:123456789012:launch-template/lt-0123456789abcdef0" }
  }
  mock_resource "aws_iam_instance_profile" {
    defaults = { arn = "arn:aws:iam::123456789012:instance-profile/paddock-host" }
  }
  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::123456789012:role/paddock" }
  }
}

variables {
  controller        = "prod"
  environment       = "aws-1"
  region            = "eu-central-1"
  zones             = ["eu-central-1a", "eu-central-1b"]
  network_cidr      = "10.40.0.0/20"
  host_size         = "m8i.2xlarge"
  image             = "ami-0123456789abcdef0"
  worker_principals = ["arn:aws:iam::123456789012:role/control-plane"]
  tags              = { cost-centre = "agents" }
}

run "ground" {
  command = apply

  assert {
    condition     = aws_launch_template.host.cpu_options[0].nested_virtualization == "enabled"
    error_message = "a virtual machine without nested virtualization has no KVM"
  }
  assert {
    condition     = aws_launch_template.host.metadata_options[0].http_tokens == "required" && aws_launch_template.host.metadata_options[0].http_put_response_hop_limit == 1
    error_message = "the metadata service must ask for a token, and its answers must not leave the host"
  }
  assert {
    condition     = aws_launch_template.host.instance_initiated_shutdown_behavior == "terminate"
    error_message = "a host that shuts down must be gone, not stopped and paid for"
  }
  assert {
    condition     = aws_launch_template.host.block_device_mappings[0].ebs[0].delete_on_termination == "true" && aws_launch_template.host.block_device_mappings[0].ebs[0].encrypted == "true"
    error_message = "a host's disk must be encrypted, and go with it"
  }
  assert {
    condition     = toset([for one in aws_launch_template.host.tag_specifications : one.resource_type]) == toset(["instance", "volume", "network-interface"])
    error_message = "all that a launch makes must carry tags from its first moment"
  }
  assert {
    condition     = alltrue([for one in aws_launch_template.host.tag_specifications : one.tags["paddock-controller"] == "prod" && one.tags["paddock-environment"] == "aws-1" && one.tags["cost-centre"] == "agents"])
    error_message = "launched things must say whose they are"
  }
  assert {
    condition     = alltrue([for subnet in aws_subnet.hosts : !subnet.map_public_ip_on_launch])
    error_message = "a host has no address of its own on the internet"
  }
  assert {
    condition     = length(aws_security_group.host.ingress) == 0 && length(aws_nat_gateway.out) == 2 && length(aws_route.hosts) == 2
    error_message = "nothing comes in, and each zone has its own way out"
  }
  assert {
    condition     = aws_vpc.ground.tags["paddock-protect"] == "ground" && !contains(keys(aws_eip.out["eu-central-1a"].tags), "paddock-host")
    error_message = "the ground must not look like a host's"
  }
  assert {
    condition     = output.network_id == aws_vpc.ground.id && keys(output.subnet_ids) == ["eu-central-1a", "eu-central-1b"] && output.launch_settings.ground.regions[0].subnets == output.subnet_ids
    error_message = "outputs name the network and a subnet for each zone"
  }
  assert {
    condition     = length(distinct([for subnet in concat(values(aws_subnet.hosts), values(aws_subnet.out)) : subnet.cidr_block])) == 4
    error_message = "each subnet has a range of its own"
  }
}

run "no_way_out" {
  command = apply

  variables {
    egress_mode  = "none"
    egress_cidrs = ["10.8.0.0/16", "10.9.0.0/16"]
  }

  assert {
    condition     = length(aws_nat_gateway.out) + length(aws_internet_gateway.out) + length(aws_eip.out) + length(aws_route.hosts) + length(aws_route.out) + length(aws_subnet.out) == 0
    error_message = "without egress there must be no gateway, no address and no route"
  }
  assert {
    condition     = toset([for rule in aws_vpc_security_group_egress_rule.host : rule.cidr_ipv4]) == toset(["10.8.0.0/16", "10.9.0.0/16"])
    error_message = "hosts reach what was named and nothing else"
  }
}

run "bare_metal_has_kvm_by_itself" {
  command = apply

  variables {
    host_size = "m5zn.metal"
  }

  assert {
    condition     = length(aws_launch_template.host.cpu_options) == 0
    error_message = "bare metal refuses the option for nested virtualization"
  }
}

run "zones_of_another_region" {
  command = plan

  variables {
    zones = ["eu-west-1a"]
  }

  expect_failures = [aws_vpc.ground]
}
