variable "controller" {
  description = "Name of the Paddock control plane; the same in all of its environments."
  type        = string
}

variable "region" {
  description = "Where the ground is."
  type        = string
  default     = "europe-west4"
}

variable "image" {
  description = "projects/…/global/images/… that infra/image made."
  type        = string
}

variable "worker_principals" {
  description = "Who may act as this environment's worker: serviceAccount:…."
  type        = set(string)
}

variable "project" {
  description = "The project: best one of its own for each controller."
  type        = string
}
