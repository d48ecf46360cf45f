"""Sizes, samples of memory, and who is blamed."""

import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench._units import parse_size, show_size
from workbench.batch.report import memory_chart
from workbench.batch.run_record import Outcome, RunError, blame_memory
from workbench.batch.supervisor import Samples


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4GiB", 4 * 2**30),
        ("4gib", 4 * 2**30),
        ("1.5 GB", 1_500_000_000),
        ("500M", 500_000_000),
        ("1024", 1024),
        ("10KiB", 10_240),
    ],
)
def test_reads_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1GiB", "4 elephants", "GiB", "1e9"])
def test_refuses_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="a size is a number and a unit"):
        parse_size(text)


@given(st.integers(1, 10**6).map(lambda n: n * 2**20))
def test_a_shown_size_is_the_size(size: int) -> None:
    assert parse_size(show_size(size)) == size


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=700))
def test_few_samples_keep_the_peak_and_the_end(sizes: list[int]) -> None:
    samples = Samples()
    for second, size in enumerate(sizes):
        samples.add(second, size, second // 100)
    assert len(samples.kept) <= 120
    assert samples.peak == max(sizes)
    if samples.peak:
        assert samples.peak_cell == sizes.index(max(sizes)) // 100
    assert [s[1] for s in samples.last] == sizes[-12:]
    assert {s[1] for s in samples.kept} <= set(sizes)
    times = [s[0] for s in samples.kept]
    assert times == sorted(times)


def test_the_drawing_is_a_picture_with_peak_and_limit() -> None:
    picture = memory_chart(
        [(0.0, 2**20, None), (2.0, 3 * 2**20, 1), (9.0, 2**20, 2)], limit=4 * 2**20
    )
    texts = [node.text for node in ET.fromstring(picture).iter("text")]
    assert texts == ["3 MiB after 2 s", "9 s", "limit 4 MiB, dashed"]


def ended(status: str, kind: str, message: str, cause: str) -> Outcome:
    return Outcome(status, RunError(type=kind, message=message, cause=cause))


CRASH = ended("killed", "DeadKernelError", "the kernel crashed with SIGSEGV", "code")
KILL = ended("killed", "DeadKernelError", "the kernel was ended by SIGKILL", "signal")
RAISED = ended("failed", "BrokenProcessPool", "a child died", "code")
LATE = ended("timed-out", "RunTimeout", "late", "timeout")


@pytest.mark.parametrize(
    ("found", "limit_kills", "system_kills", "expected"),
    [
        (KILL, 0, 0, ("killed", "DeadKernelError", "signal")),
        (KILL, 1, 0, ("killed", "MemoryLimit", "memory limit")),
        (KILL, 0, 1, ("killed", "OutOfMemory", "out-of-memory killer")),
        (CRASH, 0, 1, ("killed", "DeadKernelError", "code")),
        (RAISED, 1, 0, ("failed", "BrokenProcessPool", "memory limit")),
        (RAISED, 0, 1, ("failed", "BrokenProcessPool", "code")),
        (LATE, 1, 1, ("timed-out", "RunTimeout", "timeout")),
    ],
)
def test_who_is_blamed(
    found: Outcome, limit_kills: int, system_kills: int, expected: tuple[str, str, str]
) -> None:
    blamed = blame_memory(found, 2**30, limit_kills, system_kills)
    assert blamed.error is not None
    assert (blamed.status, blamed.error.type, blamed.error.cause) == expected
    assert blame_memory(Outcome("succeeded"), 2**30, 1, 1) == Outcome("succeeded")
