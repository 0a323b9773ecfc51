# The same in every module but for the name of the provider: what no module takes.

mock_provider "azurerm" {}

variables {
  controller        = "prod"
  environment       = "one"
  region            = "eu-central-1"
  zones             = ["1"]
  network_cidr      = "10.40.0.0/20"
  host_size         = "m8i.2xlarge"
  image             = "ami-0123456789abcdef0"
  worker_principals = ["arn:aws:iam::123456789012:role/control-plane"]
}

run "names_that_are_no_labels" {
  command = plan

  variables {
    controller  = "Prod"
    environment = "1-env"
  }

  expect_failures = [var.controller, var.environment]
}

run "ranges_that_do_not_fit" {
  command = plan

  variables {
    network_cidr = "10.40.1.0/20"
    egress_mode  = "none"
  }

  expect_failures = [var.network_cidr, var.egress_cidrs]
}

run "everybody_as_the_worker" {
  command = plan

  variables {
    worker_principals = ["*"]
    disk_gib          = 8
    egress_mode       = "open"
  }

  expect_failures = [var.worker_principals, var.disk_gib, var.egress_mode]
}

run "nobody_as_the_worker" {
  command = plan

  variables {
    worker_principals = []
    disk_gib          = 50.5
    egress_cidrs      = []
    network_cidr      = "10.40.0.0/24"
  }

  expect_failures = [var.worker_principals, var.disk_gib, var.egress_cidrs, var.network_cidr]
}

run "tags_that_are_not_yours" {
  command = plan

  variables {
    tags  = { paddock-host = "h1" }
    zones = ["1", "1"]
  }

  expect_failures = [var.tags, var.zones]
}
