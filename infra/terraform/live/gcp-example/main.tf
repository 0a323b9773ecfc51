# One environment on one cloud. Copy this folder for each environment; what differs is in its terraform.tfvars.

terraform {
  required_version = ">= 1.11"

  required_providers {
    google = {
      source  = "hashicorp/google"
      version = "~> 6.50"
    }
  }

  # State names every network and role. Keep it where it is encrypted and locked, and name that here, for example
  # backend "s3" { … } with use_lockfile, "azurerm" or "gcs"; without one it is a file in this folder.
}

provider "google" {
  project = var.project
  region  = var.region
}

module "ground" {
  source = "../../modules/gcp-host-ground"

  controller        = var.controller
  environment       = "gcp-example"
  region            = var.region
  zones             = ["europe-west4-a", "europe-west4-b"]
  network_cidr      = "10.40.0.0/20"
  egress_mode       = "nat"
  egress_cidrs      = ["0.0.0.0/0"]
  host_size         = "n2-standard-8"
  image             = var.image
  disk_gib          = 200
  worker_principals = var.worker_principals
  tags              = { owner = "agents" }
}
