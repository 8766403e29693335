"""The runtime: which one is in force, networks in place while they are used, memory that runs out."""

from __future__ import annotations

import pytest
import torch
from choreo.runtime import Runtime, current, use, with_smaller_batches


class Counted(Runtime):
    def __init__(self):
        super().__init__("cpu", torch.bfloat16)
        self.freed = 0

    def free(self):
        self.freed += 1


def test_the_runtime_in_force_is_the_innermost_and_ends_with_its_block():
    outer, inner = Counted(), Counted()
    with use(outer):
        with pytest.raises(KeyError), use(inner):
            assert current() is inner
            raise KeyError
        assert current() is outer


def test_networks_have_the_dtype_while_in_use_and_memory_is_freed_after_a_failure_too():
    layer, runtime = torch.nn.Linear(2, 2), Counted()
    with pytest.raises(KeyError), use(runtime), runtime.on_device(layer):
        assert layer.weight.dtype == torch.bfloat16
        assert runtime.freed == 0
        raise KeyError
    assert runtime.freed == 1


@pytest.mark.parametrize(
    "full",
    [
        torch.cuda.OutOfMemoryError("no room"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_the_first_size_that_fits_is_taken_and_memory_freed_before(full, monkeypatch):
    monkeypatch.delattr(torch, "OutOfMemoryError", raising=False)  # as before torch 2.5
    tried = []

    def run(size):
        tried.append(size)
        if size > 2:
            raise full
        return f"done with {size}"

    with use(Counted()) as runtime:
        assert with_smaller_batches(run, [8, 4, 2, 1], "trying") == "done with 2"
        assert (tried, runtime.freed) == ([8, 4, 2], 2)
        with pytest.raises(MemoryError, match=r"Out of memory while trying, even with the smallest batch \(4\)"):
            with_smaller_batches(run, [8, 4], "trying")


def test_other_errors_are_not_tried_again(monkeypatch):
    monkeypatch.delattr(torch, "OutOfMemoryError", raising=False)
    tried = []

    def run(size):
        tried.append(size)
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        with_smaller_batches(run, [2, 1], "trying")
    assert tried == [2]
