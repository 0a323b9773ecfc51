# What hosts stand on, and never a host: those are made and ended by workflows, each with an owner and a receipt.

data "aws_partition" "here" {}

data "aws_caller_identity" "here" {}

data "aws_ami" "host" {
  filter {
    name   = "image-id"
    values = [var.image]
  }
}

locals {
  # Short, and the same for the same ground: some names may have no more than 30 characters, and no underscore.
  name = "paddock-${substr(sha256("${var.controller}/${var.environment}"), 0, 8)}"

  # Of the ground itself. `protect` keeps the sweep away; no paddock-host, so the worker's role cannot touch it either.
  tags = merge(var.tags, {
    paddock-controller  = var.controller
    paddock-environment = var.environment
    paddock-protect     = "ground"
  })

  # Of what is launched on it; an order adds pool, host, attempt and deadline.
  launch_tags = merge(var.tags, {
    paddock-controller  = var.controller
    paddock-environment = var.environment
  })

  zones = { for index, zone in var.zones : zone => index }
  nat   = var.egress_mode == "nat" ? local.zones : {}
  # Bare metal has KVM by itself, and refuses the option.
  nested = !strcontains(var.host_size, "metal")
}

resource "aws_vpc" "ground" {
  #checkov:skip=CKV2_AWS_11:Each connection of a guest is in its audit chain; flow logs are the account's to turn on
  cidr_block           = var.network_cidr
  region               = var.region
  enable_dns_support   = true
  enable_dns_hostnames = false
  tags                 = merge(local.tags, { Name = local.name })

  lifecycle {
    precondition {
      condition     = alltrue([for zone in var.zones : startswith(zone, var.region)])
      error_message = "zones must lie in region ${var.region}: ${join(", ", var.zones)}."
    }
  }
}

# Every network has one that lets its members talk to each other: taken over, and emptied.
resource "aws_default_security_group" "nobody" {
  vpc_id = aws_vpc.ground.id
  region = var.region
  tags   = merge(local.tags, { Name = "${local.name}-nobody" })
}

# The lower half of the range is for hosts, a part for each zone; the upper half for the ways out.
resource "aws_subnet" "hosts" {
  for_each = local.zones

  vpc_id                  = aws_vpc.ground.id
  region                  = var.region
  availability_zone       = each.key
  cidr_block              = cidrsubnet(var.network_cidr, 4, each.value)
  map_public_ip_on_launch = false
  tags                    = merge(local.tags, { Name = "${local.name}-hosts-${each.key}" })
}

resource "aws_route_table" "hosts" {
  for_each = local.zones

  vpc_id = aws_vpc.ground.id
  region = var.region
  tags   = merge(local.tags, { Name = "${local.name}-hosts-${each.key}" })
}

resource "aws_route_table_association" "hosts" {
  for_each = local.zones

  region         = var.region
  subnet_id      = aws_subnet.hosts[each.key].id
  route_table_id = aws_route_table.hosts[each.key].id
}

# The way out: one translation in each zone, so that the loss of a zone takes nobody else's.

resource "aws_internet_gateway" "out" {
  count = var.egress_mode == "nat" ? 1 : 0

  vpc_id = aws_vpc.ground.id
  region = var.region
  tags   = merge(local.tags, { Name = local.name })
}

resource "aws_subnet" "out" {
  for_each = local.nat

  vpc_id                  = aws_vpc.ground.id
  region                  = var.region
  availability_zone       = each.key
  cidr_block              = cidrsubnet(var.network_cidr, 6, 32 + each.value)
  map_public_ip_on_launch = false
  tags                    = merge(local.tags, { Name = "${local.name}-out-${each.key}" })
}

resource "aws_route_table" "out" {
  count = var.egress_mode == "nat" ? 1 : 0

  vpc_id = aws_vpc.ground.id
  region = var.region
  tags   = merge(local.tags, { Name = "${local.name}-out" })
}

resource "aws_route" "out" {
  count = var.egress_mode == "nat" ? 1 : 0

  region                 = var.region
  route_table_id         = aws_route_table.out[0].id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.out[0].id
}

resource "aws_route_table_association" "out" {
  for_each = local.nat

  region         = var.region
  subnet_id      = aws_subnet.out[each.key].id
  route_table_id = aws_route_table.out[0].id
}

resource "aws_eip" "out" {
  for_each = local.nat

  domain = "vpc"
  region = var.region
  tags   = merge(local.tags, { Name = "${local.name}-out-${each.key}" })
}

resource "aws_nat_gateway" "out" {
  for_each = local.nat

  region        = var.region
  allocation_id = aws_eip.out[each.key].id
  subnet_id     = aws_subnet.out[each.key].id
  tags          = merge(local.tags, { Name = "${local.name}-out-${each.key}" })

  depends_on = [aws_internet_gateway.out]
}

resource "aws_route" "hosts" {
  for_each = local.nat

  region                 = var.region
  route_table_id         = aws_route_table.hosts[each.key].id
  destination_cidr_block = "0.0.0.0/0"
  nat_gateway_id         = aws_nat_gateway.out[each.key].id
}

# Nobody opens a connection to a host: there is no rule for that, and each host dials out. DNS and time come from the
# network's own addresses, which no group filters; all else is TCP.
resource "aws_security_group" "host" {
  name        = "${local.name}-host"
  description = "Paddock hosts of ${var.controller}/${var.environment}: nothing in, TCP out"
  vpc_id      = aws_vpc.ground.id
  region      = var.region
  tags        = merge(local.tags, { Name = "${local.name}-host" })
}

resource "aws_vpc_security_group_egress_rule" "host" {
  for_each = toset(var.egress_cidrs)

  region            = var.region
  security_group_id = aws_security_group.host.id
  description       = "what hosts may reach"
  cidr_ipv4         = each.value
  ip_protocol       = "tcp"
  from_port         = 1
  to_port           = 65535
  tags              = local.tags
}

# The same settings as the worker's, for a host that a person starts by hand; the worker's orders carry their own.
resource "aws_launch_template" "host" {
  name                                 = "${local.name}-host"
  description                          = "Paddock hosts of ${var.controller}/${var.environment}"
  region                               = var.region
  update_default_version               = true
  image_id                             = var.image
  instance_type                        = var.host_size
  instance_initiated_shutdown_behavior = "terminate"
  ebs_optimized                        = true
  vpc_security_group_ids               = [aws_security_group.host.id]
  tags                                 = local.tags

  iam_instance_profile {
    arn = aws_iam_instance_profile.host.arn
  }

  dynamic "cpu_options" {
    for_each = local.nested ? ["enabled"] : []
    content {
      nested_virtualization = cpu_options.value
    }
  }

  # One hop: the answer of the metadata service never leaves the host itself.
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
    instance_metadata_tags      = "disabled"
  }

  block_device_mappings {
    device_name = data.aws_ami.host.root_device_name

    ebs {
      volume_size           = var.disk_gib
      volume_type           = "gp3"
      encrypted             = true
      delete_on_termination = true
    }
  }

  dynamic "tag_specifications" {
    for_each = ["instance", "volume", "network-interface"]
    content {
      resource_type = tag_specifications.value
      tags          = local.launch_tags
    }
  }
}

# All that carries our tags in one view.
resource "aws_resourcegroups_group" "all" {
  name        = local.name
  description = "All of Paddock's ${var.controller}/${var.environment}"
  region      = var.region
  tags        = local.tags

  resource_query {
    query = jsonencode({
      ResourceTypeFilters = ["AWS::AllSupported"]
      TagFilters = [
        { Key = "paddock-controller", Values = [var.controller] },
        { Key = "paddock-environment", Values = [var.environment] },
      ]
    })
  }
}
