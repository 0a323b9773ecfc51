# One environment on one cloud. Copy this folder for each environment; what differs is in its terraform.tfvars.

terraform {
  required_version = ">= 1.11"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 6.33.0, < 7.0.0"
    }
  }

  # State names every network and role. Keep it where it is encrypted and locked, and name that here, for example
  # backend "s3" { … } with use_lockfile, "azurerm" or "gcs"; without one it is a file in this folder.
}

provider "aws" {
  region = var.region
}

module "ground" {
  source = "../../modules/aws-host-ground"

  controller        = var.controller
  environment       = "aws-example"
  region            = var.region
  zones             = ["eu-central-1a", "eu-central-1b"]
  network_cidr      = "10.40.0.0/20"
  egress_mode       = "nat"
  egress_cidrs      = ["0.0.0.0/0"]
  host_size         = "m8i.2xlarge"
  image             = var.image
  disk_gib          = 200
  worker_principals = var.worker_principals
  tags              = { owner = "agents" }
}
