# What hosts stand on, and never a host: those are made and ended by workflows, each with an owner and a receipt.

data "azurerm_subscription" "here" {}

locals {
  # Short, and the same for the same ground.
  name = "paddock-${substr(sha256("${var.controller}/${var.environment}"), 0, 8)}"

  # Of the ground itself. `protect` keeps the sweep away.
  tags = merge(var.tags, {
    paddock-controller  = var.controller
    paddock-environment = var.environment
    paddock-protect     = "ground"
  })

  nat = var.egress_mode == "nat" ? 1 : 0
}

# Two groups: the worker makes and ends things in the one, and may only use the other.
resource "azurerm_resource_group" "ground" {
  name     = "${local.name}-ground"
  location = var.region
  tags     = local.tags

  lifecycle {
    precondition {
      condition     = alltrue([for zone in var.zones : contains(["1", "2", "3"], zone)])
      error_message = "zones are 1, 2 or 3 on Azure: ${join(", ", var.zones)}."
    }
  }
}

resource "azurerm_resource_group" "hosts" {
  name     = "${local.name}-hosts"
  location = var.region
  tags     = local.tags
}

resource "azurerm_virtual_network" "ground" {
  name                = local.name
  location            = azurerm_resource_group.ground.location
  resource_group_name = azurerm_resource_group.ground.name
  address_space       = [var.network_cidr]
  tags                = local.tags
}

# A subnet spans its region's zones here: every zone has the same one.
resource "azurerm_subnet" "hosts" {
  name                            = "${local.name}-hosts"
  resource_group_name             = azurerm_resource_group.ground.name
  virtual_network_name            = azurerm_virtual_network.ground.name
  address_prefixes                = [cidrsubnet(var.network_cidr, 1, 0)]
  default_outbound_access_enabled = false
}

# Nobody opens a connection to a host, and each host dials out. Azure's own rules let a network's members and a load
# balancer in and everything out; the ones here stand before them. DNS and metadata are not filtered.
resource "azurerm_network_security_group" "host" {
  name                = "${local.name}-host"
  location            = azurerm_resource_group.ground.location
  resource_group_name = azurerm_resource_group.ground.name
  tags                = local.tags
}

resource "azurerm_network_security_rule" "nothing_in" {
  name                        = "nothing-in"
  description                 = "Nothing comes in to Paddock hosts"
  resource_group_name         = azurerm_resource_group.ground.name
  network_security_group_name = azurerm_network_security_group.host.name
  direction                   = "Inbound"
  access                      = "Deny"
  priority                    = 100
  protocol                    = "*"
  source_address_prefix       = "*"
  source_port_range           = "*"
  destination_address_prefix  = "*"
  destination_port_range      = "*"
}

resource "azurerm_network_security_rule" "out" {
  name                         = "out"
  description                  = "What Paddock hosts may reach"
  resource_group_name          = azurerm_resource_group.ground.name
  network_security_group_name  = azurerm_network_security_group.host.name
  direction                    = "Outbound"
  access                       = "Allow"
  priority                     = 200
  protocol                     = "Tcp"
  source_address_prefix        = "*"
  source_port_range            = "*"
  destination_address_prefixes = var.egress_cidrs
  destination_port_range       = "*"
}

resource "azurerm_network_security_rule" "nothing_else_out" {
  name                        = "nothing-else-out"
  description                 = "All else stays inside"
  resource_group_name         = azurerm_resource_group.ground.name
  network_security_group_name = azurerm_network_security_group.host.name
  direction                   = "Outbound"
  access                      = "Deny"
  priority                    = 300
  protocol                    = "*"
  source_address_prefix       = "*"
  source_port_range           = "*"
  destination_address_prefix  = "*"
  destination_port_range      = "*"
}

resource "azurerm_subnet_network_security_group_association" "hosts" {
  subnet_id                 = azurerm_subnet.hosts.id
  network_security_group_id = azurerm_network_security_group.host.id
}

# The way out. A subnet has one translation, which is in one zone of Azure's choice: with that zone, hosts of all zones
# lose the way out, and their guests' connections fail until it is back.

resource "azurerm_public_ip" "out" {
  count = local.nat

  name                = "${local.name}-out"
  location            = azurerm_resource_group.ground.location
  resource_group_name = azurerm_resource_group.ground.name
  allocation_method   = "Static"
  sku                 = "Standard"
  tags                = local.tags
}

resource "azurerm_nat_gateway" "out" {
  count = local.nat

  name                = "${local.name}-out"
  location            = azurerm_resource_group.ground.location
  resource_group_name = azurerm_resource_group.ground.name
  sku_name            = "Standard"
  tags                = local.tags
}

resource "azurerm_nat_gateway_public_ip_association" "out" {
  count = local.nat

  nat_gateway_id       = azurerm_nat_gateway.out[0].id
  public_ip_address_id = azurerm_public_ip.out[0].id
}

resource "azurerm_subnet_nat_gateway_association" "hosts" {
  count = local.nat

  subnet_id      = azurerm_subnet.hosts.id
  nat_gateway_id = azurerm_nat_gateway.out[0].id
}
