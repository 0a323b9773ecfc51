# Two identities: hosts have one without any role, the environment's worker one that may make and end hosts in one
# resource group, and use the ground. Tags are no condition that roles know here: a policy on that group refuses what
# does not carry ours.

locals {
  actors = merge(
    { worker = azurerm_user_assigned_identity.worker.principal_id },
    { for one in var.worker_principals : one => one },
  )
}

resource "azurerm_user_assigned_identity" "host" {
  name                = "${local.name}-host"
  location            = azurerm_resource_group.ground.location
  resource_group_name = azurerm_resource_group.ground.name
  tags                = local.tags
}

resource "azurerm_user_assigned_identity" "worker" {
  name                = "${local.name}-worker"
  location            = azurerm_resource_group.ground.location
  resource_group_name = azurerm_resource_group.ground.name
  tags                = local.tags
}

# No extensions, no run-command, no start or stop, no new addresses: a host is made, looked at, and ended.
resource "azurerm_role_definition" "make" {
  name              = "${local.name}-make"
  description       = "Make and end hosts of ${var.controller}/${var.environment}"
  scope             = azurerm_resource_group.hosts.id
  assignable_scopes = [azurerm_resource_group.hosts.id]

  permissions {
    actions = [
      "Microsoft.Compute/disks/delete",
      "Microsoft.Compute/disks/read",
      "Microsoft.Compute/disks/write",
      "Microsoft.Compute/virtualMachines/delete",
      "Microsoft.Compute/virtualMachines/instanceView/read",
      "Microsoft.Compute/virtualMachines/read",
      "Microsoft.Compute/virtualMachines/write",
      "Microsoft.Network/networkInterfaces/delete",
      "Microsoft.Network/networkInterfaces/join/action",
      "Microsoft.Network/networkInterfaces/read",
      "Microsoft.Network/networkInterfaces/write",
      "Microsoft.Network/publicIPAddresses/delete",
      "Microsoft.Network/publicIPAddresses/read",
      "Microsoft.Resources/subscriptions/resourceGroups/read",
    ]
    not_actions = []
  }
}

resource "azurerm_role_assignment" "make" {
  for_each = local.actors

  scope              = azurerm_resource_group.hosts.id
  role_definition_id = azurerm_role_definition.make.role_definition_resource_id
  principal_id       = each.value
}

resource "azurerm_role_definition" "use" {
  name              = "${local.name}-use"
  description       = "Put hosts of ${var.controller}/${var.environment} on their network, with their identity"
  scope             = azurerm_resource_group.ground.id
  assignable_scopes = [azurerm_resource_group.ground.id]

  permissions {
    actions = [
      "Microsoft.ManagedIdentity/userAssignedIdentities/assign/action",
      "Microsoft.ManagedIdentity/userAssignedIdentities/read",
      "Microsoft.Network/virtualNetworks/subnets/join/action",
      "Microsoft.Network/virtualNetworks/subnets/read",
    ]
    not_actions = []
  }
}

# On the network and on the hosts' identity, and not on the group: the worker's own identity is in it too.
resource "azurerm_role_assignment" "use_network" {
  for_each = local.actors

  scope              = azurerm_virtual_network.ground.id
  role_definition_id = azurerm_role_definition.use.role_definition_resource_id
  principal_id       = each.value
}

resource "azurerm_role_assignment" "use_identity" {
  for_each = local.actors

  scope              = azurerm_user_assigned_identity.host.id
  role_definition_id = azurerm_role_definition.use.role_definition_resource_id
  principal_id       = each.value
}

# Nothing more than a look at the one image; one of the marketplace is everybody's.
resource "azurerm_role_assignment" "image" {
  for_each = startswith(var.image, "/subscriptions/") ? local.actors : {}

  scope                = var.image
  role_definition_name = "Reader"
  principal_id         = each.value
}

resource "azurerm_policy_definition" "ours" {
  name         = "${local.name}-tags"
  display_name = "Paddock ${var.controller}/${var.environment}: hosts carry its tags"
  policy_type  = "Custom"
  mode         = "Indexed"

  # Disks come with the machine, and take over its tags.
  policy_rule = jsonencode({
    "if" = {
      allOf = [
        { field = "type", "in" = ["Microsoft.Compute/virtualMachines", "Microsoft.Network/networkInterfaces"] },
        {
          anyOf = [
            { field = "tags['paddock-controller']", notEquals = var.controller },
            { field = "tags['paddock-environment']", notEquals = var.environment },
            { field = "tags['paddock-host']", exists = "false" },
          ]
        },
      ]
    }
    "then" = { effect = "deny" }
  })
}

resource "azurerm_resource_group_policy_assignment" "ours" {
  name                 = "${local.name}-tags"
  display_name         = "Hosts carry Paddock's tags"
  resource_group_id    = azurerm_resource_group.hosts.id
  policy_definition_id = azurerm_policy_definition.ours.id

  non_compliance_message {
    content = "Hosts of ${var.controller}/${var.environment} need the tags paddock-controller, paddock-environment and paddock-host."
  }
}
