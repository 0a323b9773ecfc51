output "worker_configuration" {
  description = "What the worker of this environment takes: terraform output -raw worker_configuration > ground.json"
  value       = jsonencode(module.ground.launch_settings)
}

output "host_identity" {
  description = "What the secret store's role for hosts is bound to."
  value       = module.ground.host_identity
}

output "worker_identity" {
  description = "What the worker acts as."
  value       = module.ground.worker_identity
}
