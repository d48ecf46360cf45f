"""A kernel manager that remembers how its kernel ended, which nbclient does not tell."""

from typing import ClassVar

from jupyter_client.manager import AsyncKernelManager


class Kernel(AsyncKernelManager):
    """Keeps the exit code of a kernel that died of itself; one kernel a process."""

    exit_code: ClassVar[int | None] = None

    async def _async_is_alive(self) -> bool:
        alive: bool = await super()._async_is_alive()
        if not alive and Kernel.exit_code is None and self.provisioner is not None:
            Kernel.exit_code = await self.provisioner.poll()
        return alive

    is_alive = _async_is_alive
