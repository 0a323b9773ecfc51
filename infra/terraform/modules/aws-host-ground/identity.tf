# Two roles: hosts have one that may do nothing but say who they are, the environment's worker one that may make and end
# hosts which carry our tags, and nothing else.

locals {
  arn = "arn:${data.aws_partition.here.partition}:ec2:${var.region}:${data.aws_caller_identity.here.account_id}"

  # What one launch makes. An address is never among it: hosts have none of their own.
  made = [for kind in ["instance", "volume", "network-interface", "spot-instances-request"] : "${local.arn}:${kind}/*"]

  ours_asked = {
    "aws:RequestTag/paddock-controller"  = var.controller
    "aws:RequestTag/paddock-environment" = var.environment
  }
  ours_there = {
    "aws:ResourceTag/paddock-controller"  = var.controller
    "aws:ResourceTag/paddock-environment" = var.environment
  }
  # A tag without which a thing is nobody's host: the ground itself has none, and half-tagged things stay untouched.
  of_a_host = { asked = { "aws:RequestTag/paddock-host" = "false" }, there = { "aws:ResourceTag/paddock-host" = "false" } }
}

resource "aws_iam_role" "host" {
  name                 = "${local.name}-host"
  description          = "Paddock hosts of ${var.controller}/${var.environment}: only who they are"
  max_session_duration = 3600
  tags                 = local.tags

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "InstancesOnly"
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "ec2.${data.aws_partition.here.dns_suffix}" }
    }]
  })
}

# A token by which STS says which instance this is opens the host's grant at the secret store; it is good for nothing
# here. The deny holds even where somebody attaches a policy to this role later.
resource "aws_iam_role_policy" "host" {
  name = "only-who-it-is"
  role = aws_iam_role.host.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid      = "SayWhoItIs"
        Effect   = "Allow"
        Action   = "sts:GetWebIdentityToken"
        Resource = "*"
      },
      {
        Sid       = "NothingElse"
        Effect    = "Deny"
        NotAction = ["sts:GetCallerIdentity", "sts:GetWebIdentityToken"]
        Resource  = "*"
      },
    ]
  })
}

resource "aws_iam_instance_profile" "host" {
  name = "${local.name}-host"
  role = aws_iam_role.host.name
  tags = local.tags
}

resource "aws_iam_role" "worker" {
  name                 = "${local.name}-worker"
  description          = "Paddock environment worker of ${var.controller}/${var.environment}"
  max_session_duration = 3600
  tags                 = local.tags

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "WhoActsAsTheWorker"
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { AWS = sort(var.worker_principals) }
    }]
  })
}

resource "aws_iam_role_policy" "worker" {
  name = "hosts"
  role = aws_iam_role.worker.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        # None of these can be limited to a resource; the region is what can.
        Sid    = "Look"
        Effect = "Allow"
        Action = [
          "ec2:DescribeAddresses",
          "ec2:DescribeImages",
          "ec2:DescribeInstances",
          "ec2:DescribeInstanceTypeOfferings",
          "ec2:DescribeInstanceTypes",
          "ec2:DescribeNetworkInterfaces",
          "ec2:DescribeVolumes",
        ]
        Resource  = "*"
        Condition = { StringEquals = { "aws:RequestedRegion" = var.region } }
      },
      {
        Sid      = "LaunchOnlyWhatIsTaggedOurs"
        Effect   = "Allow"
        Action   = "ec2:RunInstances"
        Resource = ["${local.arn}:volume/*", "${local.arn}:spot-instances-request/*"]
        Condition = {
          StringEquals = local.ours_asked
          Null         = local.of_a_host.asked
        }
      },
      {
        # Only instances that keep their metadata to themselves, and only with the identity that may do nothing.
        Sid      = "LaunchInstances"
        Effect   = "Allow"
        Action   = "ec2:RunInstances"
        Resource = "${local.arn}:instance/*"
        Condition = {
          StringEquals  = merge(local.ours_asked, { "ec2:MetadataHttpTokens" = "required" })
          NumericEquals = { "ec2:MetadataHttpPutResponseHopLimit" = "1" }
          ArnEquals     = { "ec2:InstanceProfile" = aws_iam_instance_profile.host.arn }
          Null          = local.of_a_host.asked
        }
      },
      {
        Sid      = "LaunchInterfacesOnOurSubnets"
        Effect   = "Allow"
        Action   = "ec2:RunInstances"
        Resource = "${local.arn}:network-interface/*"
        Condition = {
          StringEquals = local.ours_asked
          ArnEquals    = { "ec2:Subnet" = [for subnet in aws_subnet.hosts : subnet.arn] }
          BoolIfExists = { "ec2:AssociatePublicIpAddress" = "false" }
          Null         = local.of_a_host.asked
        }
      },
      {
        Sid    = "LaunchFromOurGround"
        Effect = "Allow"
        Action = "ec2:RunInstances"
        Resource = concat(
          [for subnet in aws_subnet.hosts : subnet.arn],
          [
            aws_security_group.host.arn,
            "arn:${data.aws_partition.here.partition}:ec2:${var.region}::image/${var.image}",
          ],
        )
      },
      {
        # Tags are put on while something is made, and never changed after: nothing foreign can be made ours.
        Sid      = "TagOnlyWhileLaunching"
        Effect   = "Allow"
        Action   = "ec2:CreateTags"
        Resource = local.made
        Condition = {
          StringEquals = merge(local.ours_asked, { "ec2:CreateAction" = "RunInstances" })
        }
      },
      {
        Sid    = "EndOnlyWhatIsTaggedOurs"
        Effect = "Allow"
        Action = [
          "ec2:DeleteNetworkInterface",
          "ec2:DeleteVolume",
          "ec2:ReleaseAddress",
          "ec2:TerminateInstances",
        ]
        Resource = [for kind in ["elastic-ip", "instance", "network-interface", "volume"] : "${local.arn}:${kind}/*"]
        Condition = {
          StringEquals = local.ours_there
          Null         = local.of_a_host.there
        }
      },
      {
        Sid      = "GiveHostsTheirIdentity"
        Effect   = "Allow"
        Action   = "iam:PassRole"
        Resource = aws_iam_role.host.arn
        Condition = {
          StringEquals = { "iam:PassedToService" = "ec2.${data.aws_partition.here.dns_suffix}" }
        }
      },
    ]
  })
}
