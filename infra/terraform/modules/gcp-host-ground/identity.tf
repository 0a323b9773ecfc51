# Two accounts: hosts have one without any role, the environment's worker one that may make and end hosts.
#
# Labels are no condition that this cloud's IAM knows. What stands in for them: the names that Paddock gives (`ph-…`), the
# region, and a project of its own for each controller.

locals {
  role = replace(local.name, "-", "_")

  named = join(" || ", [
    for kind, folder in { "Instance" = "instances", "Disk" = "disks" } :
    "(resource.type == \"compute.googleapis.com/${kind}\" && resource.name.extract(\"/${folder}/{name}\").startsWith(\"ph-\"))"
  ])
  here = "resource.name.extract(\"/zones/{zone}/\").startsWith(\"${var.region}-\")"
}

resource "google_service_account" "host" {
  account_id   = "${local.name}-host"
  display_name = "Paddock hosts of ${var.controller}/${var.environment}"
  description  = "Has no role: it only says who a host is"
}

resource "google_service_account" "worker" {
  account_id   = "${local.name}-work"
  display_name = "Paddock worker of ${var.controller}/${var.environment}"
  description  = "Makes and ends hosts"
}

resource "google_service_account_iam_member" "acts_as_worker" {
  for_each = var.worker_principals

  service_account_id = google_service_account.worker.name
  role               = "roles/iam.serviceAccountTokenCreator"
  member             = each.value
}

# The one account that the worker may give to what it makes.
resource "google_service_account_iam_member" "gives_host" {
  service_account_id = google_service_account.host.name
  role               = "roles/iam.serviceAccountUser"
  member             = google_service_account.worker.member
}

resource "google_project_iam_custom_role" "look" {
  role_id     = "${local.role}_look"
  title       = "Paddock ${var.controller}/${var.environment}: look"
  description = "See what is there"
  permissions = [
    "compute.addresses.list",
    "compute.globalAddresses.list",
    "compute.disks.get",
    "compute.disks.list",
    "compute.images.get",
    "compute.images.useReadOnly",
    "compute.instances.get",
    "compute.instances.list",
    "compute.machineTypes.get",
    "compute.machineTypes.list",
    "compute.zoneOperations.delete", # the record of a failure that was read; it undoes nothing
    "compute.zoneOperations.get",
    "compute.zoneOperations.list",
    "compute.zones.get",
    "compute.zones.list",
  ]
}

resource "google_project_iam_member" "look" {
  project = local.project
  role    = google_project_iam_custom_role.look.name
  member  = google_service_account.worker.member
}

resource "google_project_iam_custom_role" "make" {
  role_id     = "${local.role}_make"
  title       = "Paddock ${var.controller}/${var.environment}: make and end"
  description = "Hosts and their disks; labels and metadata only as a part of making"
  permissions = [
    "compute.disks.create",
    "compute.disks.delete",
    "compute.disks.setLabels",
    "compute.instances.create",
    "compute.instances.delete",
    "compute.instances.setLabels",
    "compute.instances.setMetadata",
    "compute.instances.setServiceAccount",
  ]
}

resource "google_project_iam_member" "make" {
  project = local.project
  role    = google_project_iam_custom_role.make.name
  member  = google_service_account.worker.member

  condition {
    title       = "hosts of Paddock in ${var.region}"
    description = "By the names that Paddock gives"
    expression  = "(${local.named}) && ${local.here}"
  }
}

# On this one subnet; without useExternalIp no host can have an address of its own.
resource "google_project_iam_custom_role" "join" {
  role_id     = "${local.role}_join"
  title       = "Paddock ${var.controller}/${var.environment}: join"
  description = "Put hosts on the subnet of this ground"
  permissions = ["compute.subnetworks.use"]
}

resource "google_compute_subnetwork_iam_member" "join" {
  project    = local.project
  region     = var.region
  subnetwork = google_compute_subnetwork.hosts.name
  role       = google_project_iam_custom_role.join.name
  member     = google_service_account.worker.member
}
