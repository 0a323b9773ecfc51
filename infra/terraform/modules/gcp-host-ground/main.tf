# What hosts stand on, and never a host: those are made and ended by workflows, each with an owner and a receipt.

data "google_client_config" "here" {}

locals {
  # Short, and the same for the same ground: an account may have no more than 30 characters, and no underscore.
  name    = "paddock-${substr(sha256("${var.controller}/${var.environment}"), 0, 8)}"
  project = data.google_client_config.here.project

  # Of what is launched on it; an order adds pool, host, attempt and deadline.
  launch_tags = merge(var.tags, {
    paddock-controller  = var.controller
    paddock-environment = var.environment
  })

  nat   = var.egress_mode == "nat" ? 1 : 0
  metal = endswith(var.host_size, "-metal")
  # The families of these generations take no older disk than this.
  hyperdisk = can(regex("^(n4|c4|m4)", var.host_size))
  # N2 is two generations of processor, and only what is named has nested virtualization for certain.
  processor = startswith(var.host_size, "n2-") ? "Intel Cascade Lake" : null
}

resource "google_compute_network" "ground" {
  name                            = local.name
  description                     = "Paddock hosts of ${var.controller}/${var.environment}"
  auto_create_subnetworks         = false
  delete_default_routes_on_create = true
  routing_mode                    = "REGIONAL"

  lifecycle {
    precondition {
      condition     = alltrue([for zone in var.zones : startswith(zone, "${var.region}-")])
      error_message = "zones must lie in region ${var.region}: ${join(", ", var.zones)}."
    }
  }
}

# A subnet spans its region here: every zone has the same one.
resource "google_compute_subnetwork" "hosts" {
  #checkov:skip=CKV_GCP_26:Each connection of a guest is in its audit chain; flow logs are the project's to turn on
  #checkov:skip=CKV_GCP_74:Google's services are a way out like any other, and egress_cidrs says which there are
  name                     = "${local.name}-hosts"
  description              = "Paddock hosts of ${var.controller}/${var.environment}"
  region                   = var.region
  network                  = google_compute_network.ground.id
  ip_cidr_range            = var.network_cidr
  private_ip_google_access = false
}

# Nobody opens a connection to a host, and each host dials out. The network's own rules would say the same of what
# comes in; this one stands before every rule that somebody adds with a larger number.
resource "google_compute_firewall" "nothing_in" {
  name                    = "${local.name}-nothing-in"
  description             = "Nothing comes in to Paddock hosts"
  network                 = google_compute_network.ground.id
  direction               = "INGRESS"
  priority                = 100
  source_ranges           = ["0.0.0.0/0"]
  target_service_accounts = [google_service_account.host.email]

  deny {
    protocol = "all"
  }
}

resource "google_compute_firewall" "out" {
  name                    = "${local.name}-out"
  description             = "What Paddock hosts may reach; DNS and metadata are not filtered"
  network                 = google_compute_network.ground.id
  direction               = "EGRESS"
  priority                = 200
  destination_ranges      = var.egress_cidrs
  target_service_accounts = [google_service_account.host.email]

  allow {
    protocol = "tcp"
  }
}

resource "google_compute_firewall" "nothing_else_out" {
  name               = "${local.name}-nothing-else-out"
  description        = "All else stays inside"
  network            = google_compute_network.ground.id
  direction          = "EGRESS"
  priority           = 300
  destination_ranges = ["0.0.0.0/0"]

  deny {
    protocol = "all"
  }
}

resource "google_compute_route" "out" {
  count = local.nat

  name             = "${local.name}-out"
  description      = "The way out, by translation: hosts have no address of their own"
  network          = google_compute_network.ground.id
  dest_range       = "0.0.0.0/0"
  next_hop_gateway = "default-internet-gateway"
}

resource "google_compute_router" "out" {
  count = local.nat

  name    = "${local.name}-out"
  region  = var.region
  network = google_compute_network.ground.id
}

resource "google_compute_router_nat" "out" {
  count = local.nat

  name                               = "${local.name}-out"
  region                             = var.region
  router                             = google_compute_router.out[0].name
  nat_ip_allocate_option             = "AUTO_ONLY"
  source_subnetwork_ip_ranges_to_nat = "LIST_OF_SUBNETWORKS"
  # Many sandboxes behind few addresses need many ports to the same registry.
  enable_dynamic_port_allocation = true
  min_ports_per_vm               = 256
  max_ports_per_vm               = 32768

  subnetwork {
    name                    = google_compute_subnetwork.hosts.id
    source_ip_ranges_to_nat = ["PRIMARY_IP_RANGE"]
  }
}

# The same settings as the worker's, for a host that a person starts by hand; the worker's orders carry their own.
resource "google_compute_instance_template" "host" {
  name_prefix      = "${local.name}-"
  description      = "Paddock hosts of ${var.controller}/${var.environment}"
  region           = var.region
  machine_type     = var.host_size
  min_cpu_platform = local.processor
  can_ip_forward   = false
  labels           = local.launch_tags

  # The flag is taken silently where it does nothing (E2): only a guest that ran proves KVM.
  dynamic "advanced_machine_features" {
    for_each = local.metal ? [] : [true]
    content {
      enable_nested_virtualization = advanced_machine_features.value
    }
  }

  disk {
    source_image = var.image
    boot         = true
    auto_delete  = true
    disk_size_gb = var.disk_gib
    disk_type    = local.hyperdisk ? "hyperdisk-balanced" : "pd-balanced"
    labels       = local.launch_tags
  }

  # No access_config: no address of its own.
  network_interface {
    subnetwork = google_compute_subnetwork.hosts.id
  }

  service_account {
    email  = google_service_account.host.email
    scopes = ["userinfo-email"]
  }

  scheduling {
    automatic_restart   = false
    on_host_maintenance = "TERMINATE"
    provisioning_model  = "STANDARD"
  }

  dynamic "shielded_instance_config" {
    for_each = local.metal ? [] : [true]
    content {
      enable_secure_boot          = true
      enable_vtpm                 = true
      enable_integrity_monitoring = true
    }
  }

  metadata = {
    block-project-ssh-keys = "true"
    enable-oslogin         = "true"
    serial-port-enable     = "false"
  }

  lifecycle {
    create_before_destroy = true
  }
}
