variable "controller" {
  description = "Name of the Paddock control plane; the same in all of its environments."
  type        = string
}

variable "region" {
  description = "Where the ground is."
  type        = string
  default     = "eu-central-1"
}

variable "image" {
  description = "The AMI that infra/image made."
  type        = string
}

variable "worker_principals" {
  description = "Who may act as this environment's worker: arn:aws:iam::123456789012:role/control-plane."
  type        = set(string)
}
