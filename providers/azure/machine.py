"""The virtual machine that an order becomes: one request that makes disk and interface, and lets both die with it."""

import base64
from typing import Final

from azure.mgmt.compute import models
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from providers.azure.ground import AzureGround
from providers.azure.names import disk_of, nic_of
from providers.contract import HostOrder

# The version by which Azure's compute side makes interfaces at its network side; the SDK knows no newer one.
_NETWORK_API: Final = "2022-11-01"


def describe(order: HostOrder, ground: AzureGround) -> models.VirtualMachine:
    """The whole machine, tagged from its first moment, with no public address and nobody who can sign in."""
    return models.VirtualMachine(
        location=ground.region,
        zones=[order.zone] if order.zone else None,
        tags=order.tags,
        identity=_identity(ground),
        properties=models.VirtualMachineProperties(
            hardware_profile=models.HardwareProfile(vm_size=order.size),
            # The default, Trusted Launch, hides the processor's virtualisation.
            security_profile=models.SecurityProfile(security_type="Standard"),
            storage_profile=models.StorageProfile(
                image_reference=_image(order.image or ground.image), os_disk=_disk(order, ground)
            ),
            os_profile=_system(order, ground),
            network_profile=models.NetworkProfile(
                network_api_version=_NETWORK_API, network_interface_configurations=[_interface(order, ground)]
            ),
            priority="Spot" if order.spot else "Regular",
            eviction_policy="Delete" if order.spot else None,
            billing_profile=models.BillingProfile(max_price=-1) if order.spot else None,  # up to the normal price
        ),
    )


def _identity(ground: AzureGround) -> models.VirtualMachineIdentity | None:
    if not ground.identity:
        return None
    return models.VirtualMachineIdentity(
        type="UserAssigned", user_assigned_identities={ground.identity: models.UserAssignedIdentitiesValue()}
    )


def _image(image: str) -> models.ImageReference:
    if image.startswith("/"):
        first = image.split("/")[1].lower()
        if first == "sharedgalleries":
            return models.ImageReference(shared_gallery_image_id=image)
        if first == "communitygalleries":
            return models.ImageReference(community_gallery_image_id=image)
        return models.ImageReference(id=image)
    publisher, offer, sku, version = image.split(":")
    return models.ImageReference(publisher=publisher, offer=offer, sku=sku, version=version)


def _disk(order: HostOrder, ground: AzureGround) -> models.OSDisk:
    return models.OSDisk(
        name=disk_of(order),
        create_option="FromImage",
        delete_option="Delete",  # the default keeps it
        disk_size_gb=ground.disk_gib,
        managed_disk=models.ManagedDiskParameters(storage_account_type=ground.disk_type),
    )


def _interface(order: HostOrder, ground: AzureGround) -> models.VirtualMachineNetworkInterfaceConfiguration:
    address = models.VirtualMachineNetworkInterfaceIPConfiguration(
        name="internal",
        properties=models.VirtualMachineNetworkInterfaceIPConfigurationProperties(
            primary=True, subnet=models.SubResource(id=ground.subnet)
        ),
    )
    return models.VirtualMachineNetworkInterfaceConfiguration(
        name=nic_of(order.name),
        tags=order.tags,
        properties=models.VirtualMachineNetworkInterfaceConfigurationProperties(
            primary=True,
            delete_option="Delete",  # the default keeps it
            ip_configurations=[address],
        ),
    )


def _system(order: HostOrder, ground: AzureGround) -> models.OSProfile:
    data = base64.b64encode(order.user_data.encode()).decode()
    key = models.SshPublicKey(
        path=f"/home/{ground.admin}/.ssh/authorized_keys", key_data=ground.ssh_public_key or _forgotten_key()
    )
    return models.OSProfile(
        computer_name=order.name,
        admin_username=ground.admin,
        custom_data=data or None,
        linux_configuration=models.LinuxConfiguration(
            disable_password_authentication=True, ssh=models.SshConfiguration(public_keys=[key])
        ),
    )


def _forgotten_key() -> str:
    """A public key whose private half nobody has: Azure makes no Linux machine without a key or a password."""
    public = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
    return public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
