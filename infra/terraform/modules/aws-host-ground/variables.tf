# The same file in every module of a host ground; tests/infra holds them equal.

variable "controller" {
  description = "Name of the Paddock control plane that owns the hosts: the tag paddock-controller of all that it makes."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][-_a-z0-9]{0,62}$", var.controller))
    error_message = "controller must be a lower-case letter and at most 62 more lower-case letters, digits, hyphens or underscores: it is a label on every cloud, and Google's rule is the narrowest."
  }
}

variable "environment" {
  description = "Name of the environment as its worker knows it: the tag paddock-environment."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][-_a-z0-9]{0,62}$", var.environment))
    error_message = "environment must be a lower-case letter and at most 62 more lower-case letters, digits, hyphens or underscores."
  }
}

variable "region" {
  description = "Where the ground is, in the cloud's own words: eu-central-1, westeurope, europe-west4."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][-a-z0-9]{2,39}$", var.region))
    error_message = "region must be the cloud's own short name for a region, such as eu-central-1."
  }
}

variable "zones" {
  description = "Where hosts may be, in the cloud's own words: eu-central-1a; 1; europe-west4-b."
  type        = list(string)
  nullable    = false

  validation {
    condition     = length(var.zones) >= 1 && length(var.zones) <= 8 && length(distinct(var.zones)) == length(var.zones)
    error_message = "zones must name one to eight different zones."
  }
}

variable "network_cidr" {
  description = "Address range of the hosts' network, /16 to /22."
  type        = string
  nullable    = false

  validation {
    condition     = can(cidrnetmask(var.network_cidr)) && try(tonumber(split("/", var.network_cidr)[1]) >= 16 && tonumber(split("/", var.network_cidr)[1]) <= 22, false)
    error_message = "network_cidr must be an IPv4 range of /16 to /22, such as 10.40.0.0/20."
  }

  validation {
    condition     = try(cidrhost(var.network_cidr, 0) == split("/", var.network_cidr)[0], false)
    error_message = "network_cidr must begin at its first address: bits behind the prefix are set."
  }
}

variable "egress_mode" {
  description = "nat: out to the internet through the cloud's address translation. none: no way out but what is joined to this network by hand."
  type        = string
  default     = "nat"
  nullable    = false

  validation {
    condition     = contains(["nat", "none"], var.egress_mode)
    error_message = "egress_mode must be nat or none."
  }
}

variable "egress_cidrs" {
  description = "Ranges that a host may open TCP connections to. What guests may reach is decided by their policy, never wider than this."
  type        = list(string)
  default     = ["0.0.0.0/0"]
  nullable    = false

  validation {
    condition     = length(var.egress_cidrs) >= 1 && length(var.egress_cidrs) <= 20 && alltrue([for cidr in var.egress_cidrs : can(cidrnetmask(cidr))])
    error_message = "egress_cidrs must be one to twenty IPv4 ranges; without the control plane's a host can never join."
  }

  validation {
    condition     = var.egress_mode == "nat" || !contains(var.egress_cidrs, "0.0.0.0/0")
    error_message = "egress_cidrs must name the ranges of the networks that you join to this one when egress_mode is none; 0.0.0.0/0 leads nowhere there."
  }
}

variable "host_size" {
  description = "The size that a host has unless an order names another: m8i.2xlarge, Standard_D8s_v5, n2-standard-8."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[A-Za-z][-._A-Za-z0-9]{1,63}$", var.host_size))
    error_message = "host_size must be the cloud's own name of a machine size."
  }
}

variable "image" {
  description = "The host image, made by infra/image: ami-…, a resource id or publisher:offer:sku:version, projects/…/global/images/…."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[-._/:A-Za-z0-9]{5,400}$", var.image))
    error_message = "image must be the cloud's own name of one image."
  }
}

variable "disk_gib" {
  description = "Size of a host's disk in GiB: image, base images, templates, output and audit of its sandboxes."
  type        = number
  default     = 100
  nullable    = false

  validation {
    condition     = var.disk_gib >= 20 && var.disk_gib <= 16384 && floor(var.disk_gib) == var.disk_gib
    error_message = "disk_gib must be a whole number from 20 to 16384."
  }
}

variable "worker_principals" {
  description = "Who may act as the environment's worker: ARNs of roles or users (AWS), object ids (Azure), members such as serviceAccount:… (Google Cloud)."
  type        = set(string)
  nullable    = false

  validation {
    condition     = length(var.worker_principals) >= 1 && !contains([for one in var.worker_principals : length(trimspace(one)) > 0 && one != "*" && one != "allUsers" && one != "allAuthenticatedUsers"], false)
    error_message = "worker_principals must name at least one principal, and never everybody."
  }
}

variable "tags" {
  description = "More tags for the ground and its launch template, by the narrowest cloud's rule; paddock-… is Paddock's own."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition     = length(var.tags) <= 40 && alltrue([for key, value in var.tags : can(regex("^[a-z][-_a-z0-9]{0,62}$", key)) && can(regex("^[-_a-z0-9]{0,63}$", value))])
    error_message = "tags must be at most 40, with keys of a lower-case letter and at most 62 more of [-_a-z0-9], and values of at most 63 of those."
  }

  validation {
    condition     = alltrue([for key in keys(var.tags) : !startswith(key, "paddock-")])
    error_message = "tags must not begin with paddock-: by those Paddock knows what is its own."
  }
}
