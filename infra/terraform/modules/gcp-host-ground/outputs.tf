output "network_id" {
  description = "The hosts' network."
  value       = google_compute_network.ground.id
}

output "subnet_ids" {
  description = "The hosts' subnet of each zone."
  value       = { for zone in var.zones : zone => google_compute_subnetwork.hosts.id }
}

output "host_identity" {
  description = "What a host is to this cloud: its secret store's role is bound to this."
  value       = google_service_account.host.email
}

output "worker_identity" {
  description = "What the environment's worker acts as."
  value       = google_service_account.worker.email
}

output "launch_settings" {
  description = "What the worker's configuration file takes: whose hosts these are, and the settings of the provider gcp."
  value = {
    provider    = "gcp"
    controller  = var.controller
    environment = var.environment
    zones       = var.zones
    size        = var.host_size
    ground = {
      project         = local.project
      zones           = var.zones
      subnetworks     = { (var.region) = google_compute_subnetwork.hosts.id }
      image           = var.image
      service_account = google_service_account.host.email
      disk_gib        = var.disk_gib
    }
  }
}
