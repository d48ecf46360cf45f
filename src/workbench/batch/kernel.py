"""A kernel manager for one run: sockets that nobody can take, and how the kernel ended."""

import secrets
import sys
from typing import Any, ClassVar

from jupyter_client.manager import AsyncKernelManager

# Figures say in words what they show, from which their alternative texts are made.
_IPYKERNEL = [
    "--IPKernelApp.log_level=ERROR",
    "--IPKernelApp.extra_extensions=workbench.batch.alt_text",
]


class Kernel(AsyncKernelManager):
    """Keeps the exit code of a kernel that died of itself, which nbclient does not tell.

    TCP ports are chosen here and bound by the kernel half a second later: if another process takes
    one meanwhile, the kernel dies. An ipykernel on Linux gets Unix sockets with a name of its own
    in the abstract namespace instead, which leave no file. Other kernels may know TCP alone.
    """

    exit_code: ClassVar[int | None] = None

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        spec = self.kernel_spec
        self.is_ipykernel = spec is not None and any("ipykernel" in word for word in spec.argv)
        if self.is_ipykernel and sys.platform == "linux":
            self.transport = "ipc"
            self.ip = f"@workbench-{secrets.token_hex(8)}"

    def format_kernel_cmd(self, extra_arguments: list[str] | None = None) -> list[str]:
        """Return the command that starts the kernel."""
        more = _IPYKERNEL if self.is_ipykernel else []
        return list(super().format_kernel_cmd([*(extra_arguments or []), *more]))

    async def _async_is_alive(self) -> bool:
        alive: bool = await super()._async_is_alive()
        if not alive and Kernel.exit_code is None and self.provisioner is not None:
            Kernel.exit_code = await self.provisioner.poll()
        return alive

    is_alive = _async_is_alive
