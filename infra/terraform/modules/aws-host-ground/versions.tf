terraform {
  required_version = ">= 1.11"

  required_providers {
    aws = {
      source = "hashicorp/aws"
      # 6.33 is the first that knows nested virtualization in a launch template.
      version = ">= 6.33.0, < 7.0.0"
    }
  }
}
