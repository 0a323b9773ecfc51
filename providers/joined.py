"""Machines that people started themselves and joined with `paddock worker host`: used, never made, never ended."""

from collections.abc import Sequence

from providers.contract import Blame, ErrorClass, HostOrder, HostSize, HostState, Inventory, Item, ProviderError

_HOW = "start `paddock worker host` on the machine that shall join, and stop it there when it shall leave"


class Joined:
    """The provider of the `local` environment. It owns nothing: fleet clean-up finds nothing of its own to remove."""

    name = "joined"

    def create(self, order: HostOrder) -> Item:
        """Always refused: a joined machine is there because somebody started it."""
        raise ProviderError(
            ErrorClass.INVALID, f"environment {order.environment} makes no machines: {_HOW}", blame=Blame.CALLER
        )

    def get(self, order: HostOrder) -> Item | None:
        """None: nothing was ever created under this name."""
        del order
        return None

    def list_owned(self, controller: str) -> Inventory:
        """Empty, and complete: the machines belong to those who joined them."""
        del controller
        return Inventory(items=(), complete=True)

    def terminate(self, item: Item) -> HostState:
        """Always refused: Paddock ends what it made, and it made none of these."""
        raise ProviderError(ErrorClass.INVALID, f"{item.name} was not made by Paddock: {_HOW}", blame=Blame.CALLER)

    def catalogue(self) -> Sequence[HostSize]:
        """Empty: nothing can be ordered."""
        return ()
