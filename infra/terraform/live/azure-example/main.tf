# One environment on one cloud. Copy this folder for each environment; what differs is in its terraform.tfvars.

terraform {
  required_version = ">= 1.11"

  required_providers {
    azurerm = {
      source  = "hashicorp/azurerm"
      version = "~> 4.73"
    }
  }

  # State names every network and role. Keep it where it is encrypted and locked, and name that here, for example
  # backend "s3" { … } with use_lockfile, "azurerm" or "gcs"; without one it is a file in this folder.
}

provider "azurerm" {
  subscription_id = var.subscription

  features {}
}

module "ground" {
  source = "../../modules/azure-host-ground"

  controller        = var.controller
  environment       = "azure-example"
  region            = var.region
  zones             = ["1", "2"]
  network_cidr      = "10.40.0.0/20"
  egress_mode       = "nat"
  egress_cidrs      = ["0.0.0.0/0"]
  host_size         = "Standard_D8s_v5"
  image             = var.image
  disk_gib          = 200
  worker_principals = var.worker_principals
  tags              = { owner = "agents" }
}
