output "network_id" {
  description = "The hosts' network."
  value       = aws_vpc.ground.id
}

output "subnet_ids" {
  description = "The hosts' subnet of each zone."
  value       = { for zone, subnet in aws_subnet.hosts : zone => subnet.id }
}

output "host_identity" {
  description = "What a host is to this cloud: its secret store's role is bound to this."
  value       = aws_iam_role.host.arn
}

output "worker_identity" {
  description = "What the environment's worker acts as."
  value       = aws_iam_role.worker.arn
}

output "launch_settings" {
  description = "What the worker's configuration file takes: whose hosts these are, and the settings of the provider aws."
  value = {
    provider    = "aws"
    controller  = var.controller
    environment = var.environment
    zones       = var.zones
    size        = var.host_size
    ground = {
      regions = [{
        name            = var.region
        image           = var.image
        subnets         = { for zone, subnet in aws_subnet.hosts : zone => subnet.id }
        security_groups = [aws_security_group.host.id]
      }]
      instance_profile = aws_iam_instance_profile.host.arn
      volume_gib       = var.disk_gib
    }
  }
}
