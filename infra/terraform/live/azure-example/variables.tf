variable "controller" {
  description = "Name of the Paddock control plane; the same in all of its environments."
  type        = string
}

variable "region" {
  description = "Where the ground is."
  type        = string
  default     = "westeurope"
}

variable "image" {
  description = "Resource id of the image that infra/image made."
  type        = string
}

variable "worker_principals" {
  description = "Who may act as this environment's worker: the object id of an identity."
  type        = set(string)
}

variable "subscription" {
  description = "Id of the subscription."
  type        = string
}
