# Against the provider's real schema, with nothing made.

mock_provider "azurerm" {
  mock_data "azurerm_subscription" {
    defaults = { subscription_id = "00000000-0000-0000-0000-000000000001" }
  }
  mock_resource "azurerm_subnet" {
    defaults = { id = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/ground/providers/Microsoft.Network/virtualNetworks/hosts/subnets/hosts" }
  }
  mock_resource "azurerm_user_assigned_identity" {
    defaults = { id = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/ground/providers/Microsoft.ManagedIdentity/userAssignedIdentities/host" }
  }
}

variables {
  controller        = "prod"
  environment       = "azure-1"
  region            = "westeurope"
  zones             = ["1", "3"]
  network_cidr      = "10.40.0.0/20"
  host_size         = "Standard_D8s_v5"
  image             = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/images/providers/Microsoft.Compute/images/paddock-host-1"
  worker_principals = ["00000000-0000-0000-0000-0000000000aa"]
  tags              = { cost-centre = "agents" }
}

run "ground" {
  command = apply

  assert {
    condition     = !azurerm_subnet.hosts.default_outbound_access_enabled
    error_message = "no way out but the one that was told"
  }
  assert {
    condition     = azurerm_network_security_rule.nothing_in.access == "Deny" && azurerm_network_security_rule.nothing_in.priority == 100 && azurerm_network_security_rule.nothing_in.direction == "Inbound" && azurerm_network_security_rule.nothing_in.source_address_prefix == "*" && azurerm_network_security_rule.nothing_in.protocol == "*"
    error_message = "nothing comes in, not from the network's other members either"
  }
  assert {
    condition     = azurerm_network_security_rule.out.protocol == "Tcp" && azurerm_network_security_rule.out.priority < azurerm_network_security_rule.nothing_else_out.priority && azurerm_network_security_rule.nothing_else_out.access == "Deny"
    error_message = "only TCP goes out, and what is not allowed is denied"
  }
  assert {
    condition     = azurerm_subnet_network_security_group_association.hosts.subnet_id == azurerm_subnet.hosts.id && length(azurerm_subnet_nat_gateway_association.hosts) == 1
    error_message = "the hosts' subnet has the rules, and a way out"
  }
  assert {
    condition     = azurerm_resource_group.hosts.id != azurerm_user_assigned_identity.host.id && alltrue([for one in azurerm_role_assignment.make : one.scope == azurerm_resource_group.hosts.id]) && alltrue([for one in azurerm_role_assignment.use_identity : one.scope == azurerm_user_assigned_identity.host.id])
    error_message = "what makes and ends things holds in the hosts' group only, and no identity but the hosts' can be given"
  }
  assert {
    condition     = azurerm_role_definition.make.scope == azurerm_resource_group.hosts.id && alltrue([for one in azurerm_role_definition.make.permissions[0].actions : !strcontains(one, "*") && !strcontains(one, "Authorization") && !strcontains(one, "extensions") && !strcontains(lower(one), "runcommand")])
    error_message = "the worker's role has no wildcard, gives no rights, and runs nothing on a host"
  }
  assert {
    condition     = alltrue([for one in azurerm_role_definition.use.permissions[0].actions : !endswith(one, "/write") && !endswith(one, "/delete")])
    error_message = "the worker may use the ground, and neither change nor delete it"
  }
  assert {
    condition     = keys(azurerm_role_assignment.make) == ["00000000-0000-0000-0000-0000000000aa", "worker"] && length([for one in azurerm_role_assignment.make : one if one.principal_id == azurerm_user_assigned_identity.host.principal_id]) == 0
    error_message = "the worker's principals have the role, and hosts have none"
  }
  assert {
    condition     = azurerm_resource_group_policy_assignment.ours.resource_group_id == azurerm_resource_group.hosts.id && jsondecode(azurerm_policy_definition.ours.policy_rule).then.effect == "deny" && jsondecode(azurerm_policy_definition.ours.policy_rule).if.allOf[1].anyOf[0].notEquals == "prod"
    error_message = "what does not carry our tags must be refused"
  }
  assert {
    condition     = output.network_id == azurerm_virtual_network.ground.id && keys(output.subnet_ids) == ["1", "3"] && output.launch_settings.ground.subnet == output.subnet_ids["1"]
    error_message = "outputs name the network and a subnet for each zone"
  }
  assert {
    condition     = azurerm_resource_group.hosts.tags["paddock-controller"] == "prod" && azurerm_resource_group.hosts.tags["paddock-protect"] == "ground" && azurerm_resource_group.hosts.tags["cost-centre"] == "agents"
    error_message = "the ground must say whose it is"
  }
}

run "no_way_out" {
  command = apply

  variables {
    egress_mode  = "none"
    egress_cidrs = ["10.8.0.0/16", "10.9.0.0/16"]
  }

  assert {
    condition     = length(azurerm_public_ip.out) + length(azurerm_nat_gateway.out) + length(azurerm_subnet_nat_gateway_association.hosts) == 0
    error_message = "without egress there must be no translation and no address"
  }
  assert {
    condition     = azurerm_network_security_rule.out.destination_address_prefixes == toset(["10.8.0.0/16", "10.9.0.0/16"])
    error_message = "hosts reach what was named and nothing else"
  }
}

run "zones_that_azure_has_not" {
  command = plan

  variables {
    zones = ["westeurope-1"]
  }

  expect_failures = [azurerm_resource_group.ground]
}
