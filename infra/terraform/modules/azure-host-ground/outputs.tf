output "network_id" {
  description = "The hosts' network."
  value       = azurerm_virtual_network.ground.id
}

output "subnet_ids" {
  description = "The hosts' subnet of each zone."
  value       = { for zone in var.zones : zone => azurerm_subnet.hosts.id }
}

output "host_identity" {
  description = "What a host is to this cloud: its secret store's role is bound to this."
  value       = azurerm_user_assigned_identity.host.id
}

output "worker_identity" {
  description = "What the environment's worker acts as."
  value       = azurerm_user_assigned_identity.worker.id
}

output "launch_settings" {
  description = "What the worker's configuration file takes: whose hosts these are, and the settings of the provider azure."
  value = {
    provider    = "azure"
    controller  = var.controller
    environment = var.environment
    zones       = var.zones
    size        = var.host_size
    ground = {
      subscription   = data.azurerm_subscription.here.subscription_id
      resource_group = azurerm_resource_group.hosts.name
      region         = var.region
      zones          = var.zones
      subnet         = azurerm_subnet.hosts.id
      image          = var.image
      identity       = azurerm_user_assigned_identity.host.id
      disk_gib       = var.disk_gib
    }
  }
}
