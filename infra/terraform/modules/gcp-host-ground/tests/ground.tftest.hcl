# Against the provider's real schema, with nothing made.

mock_provider "google" {
  mock_data "google_client_config" {
    defaults = { project = "paddock-prod" }
  }
  mock_resource "google_service_account" {
    defaults = {
      email  = "one@paddock-prod.iam.gserviceaccount.com"
      name   = "projects/paddock-prod/serviceAccounts/one@paddock-prod.iam.gserviceaccount.com"
      member = "serviceAccount:one@paddock-prod.iam.gserviceaccount.com"
    }
  }
  mock_resource "google_compute_subnetwork" {
    defaults = { id = "projects/paddock-prod/regions/europe-west4/subnetworks/hosts" }
  }
}

variables {
  controller        = "prod"
  environment       = "gcp-1"
  region            = "europe-west4"
  zones             = ["europe-west4-a", "europe-west4-b"]
  network_cidr      = "10.40.0.0/20"
  host_size         = "n2-standard-8"
  image             = "projects/paddock-prod/global/images/paddock-host-1"
  worker_principals = ["serviceAccount:control@paddock-prod.iam.gserviceaccount.com"]
  tags              = { cost-centre = "agents" }
}

run "ground" {
  command = apply

  assert {
    condition     = google_compute_instance_template.host.advanced_machine_features[0].enable_nested_virtualization && google_compute_instance_template.host.min_cpu_platform == "Intel Cascade Lake"
    error_message = "a virtual machine without nested virtualization has no KVM"
  }
  assert {
    condition     = length(google_compute_instance_template.host.network_interface[0].access_config) == 0
    error_message = "a host has no address of its own on the internet"
  }
  assert {
    condition     = google_compute_instance_template.host.disk[0].auto_delete && google_compute_instance_template.host.disk[0].disk_size_gb == 100
    error_message = "a host's disk must go with it"
  }
  assert {
    condition     = alltrue([for labels in [google_compute_instance_template.host.labels, google_compute_instance_template.host.disk[0].labels] : labels["paddock-controller"] == "prod" && labels["paddock-environment"] == "gcp-1" && labels["cost-centre"] == "agents"])
    error_message = "launched things must say whose they are"
  }
  assert {
    condition     = google_compute_firewall.nothing_in.direction == "INGRESS" && length(google_compute_firewall.nothing_in.allow) == 0 && tolist(google_compute_firewall.nothing_in.deny)[0].protocol == "all"
    error_message = "nothing comes in"
  }
  assert {
    condition     = google_compute_firewall.out.priority < google_compute_firewall.nothing_else_out.priority && [for one in google_compute_firewall.out.allow : one.protocol] == ["tcp"]
    error_message = "only TCP goes out, and what is not allowed is denied"
  }
  assert {
    condition     = google_compute_network.ground.delete_default_routes_on_create && !google_compute_network.ground.auto_create_subnetworks && length(google_compute_router_nat.out) == 1 && length(google_compute_route.out) == 1
    error_message = "the only way out is the translation"
  }
  assert {
    condition     = output.network_id == google_compute_network.ground.id && keys(output.subnet_ids) == ["europe-west4-a", "europe-west4-b"] && output.launch_settings.ground.subnetworks["europe-west4"] == output.subnet_ids["europe-west4-a"]
    error_message = "outputs name the network and a subnet for each zone"
  }
  assert {
    condition     = length(google_service_account.host.account_id) <= 30 && length(google_service_account.worker.account_id) <= 30
    error_message = "an account's id has at most 30 characters"
  }
  assert {
    condition     = google_project_iam_member.make.condition[0].expression == "((resource.type == \"compute.googleapis.com/Disk\" && resource.name.extract(\"/disks/{name}\").startsWith(\"ph-\")) || (resource.type == \"compute.googleapis.com/Instance\" && resource.name.extract(\"/instances/{name}\").startsWith(\"ph-\"))) && resource.name.extract(\"/zones/{zone}/\").startsWith(\"europe-west4-\")"
    error_message = "the worker must make and end only what has a name that Paddock gives, here"
  }
  assert {
    condition     = length(setintersection(google_project_iam_custom_role.look.permissions, google_project_iam_custom_role.make.permissions)) == 0 && alltrue([for one in google_project_iam_custom_role.look.permissions : can(regex("[.](get|list|useReadOnly)$|^compute[.]zoneOperations[.]delete$", one))])
    error_message = "what holds everywhere may only look"
  }
}

run "no_way_out" {
  command = apply

  variables {
    egress_mode  = "none"
    egress_cidrs = ["10.8.0.0/16", "10.9.0.0/16"]
  }

  assert {
    condition     = length(google_compute_route.out) + length(google_compute_router.out) + length(google_compute_router_nat.out) == 0
    error_message = "without egress there must be no route and no translation"
  }
  assert {
    condition     = google_compute_firewall.out.destination_ranges == toset(["10.8.0.0/16", "10.9.0.0/16"])
    error_message = "hosts reach what was named and nothing else"
  }
}

run "bare_metal_has_kvm_by_itself" {
  command = apply

  variables {
    host_size = "c3-standard-192-metal"
  }

  assert {
    condition     = length(google_compute_instance_template.host.advanced_machine_features) == 0
    error_message = "bare metal refuses the option for nested virtualization"
  }
}

run "zones_of_another_region" {
  command = plan

  variables {
    zones = ["europe-west1-b"]
  }

  expect_failures = [google_compute_network.ground]
}
