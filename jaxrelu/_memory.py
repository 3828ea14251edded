"""Bytes before allocation: what would not fit is refused with the alternative."""

import os

import jax


class MemoryRefusedError(MemoryError):
    """An allocation was refused before it was attempted.

    The message holds the bytes needed, the bytes there are, and what to do instead.
    """


def available_bytes() -> int:
    """Bytes free on the default device.

    Accelerators report through `jax.Device.memory_stats`; on the CPU it is the
    kernel's estimate of memory available without swapping. ``JAXRELU_MEMORY_LIMIT``
    (bytes) lowers it.
    """
    limit = int(os.environ.get("JAXRELU_MEMORY_LIMIT", 2**63 - 1))
    device = jax.devices()[0]
    stats = device.memory_stats() if device.platform != "cpu" else None
    if stats and "bytes_limit" in stats:
        return min(limit, stats["bytes_limit"] - stats.get("bytes_in_use", 0))
    return min(limit, _host_bytes())


def _host_bytes() -> int:
    try:
        with open("/proc/meminfo") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # no sysconf: do not refuse
        return 2**63 - 1


def require_bytes(needed: int, what: str, alternative: str) -> None:
    """Raises `MemoryRefusedError` if ``needed`` bytes are not to be had.

    Args:
        needed: bytes that will be live at once.
        what: the allocation, with its shape and dtype.
        alternative: what the user can call instead.
    """
    there = available_bytes()
    if needed > there:
        msg = (
            f"{what} needs {needed:,} bytes ({needed / 2**30:.2f} GiB); "
            f"{there:,} ({there / 2**30:.2f} GiB) are available. {alternative}"
        )
        raise MemoryRefusedError(msg)
