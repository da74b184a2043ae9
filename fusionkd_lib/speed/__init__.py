"""Shortcuts: what makes a run faster or smaller, and how it is asked for and taken.

A training step of a MobileNet on a CPU waits for memory, not for arithmetic: its depthwise
convolutions, BatchNorm and ReLU6 do little with each number that they read. PyTorch's defaults
cost such a network a factor of five and more. Each shortcut replaces one default; the page on what
it costs (book/appendix_speed.py) holds the numbers, measured side by side.

``bfloat16``
    Replaces float32 in the network's layers while it trains; weights and losses stay in float32,
    and the network is judged in float32. Half the bytes, and matrix units where the processor has
    them: about 2 times as fast as float32 there, many times slower without them. Changes a result
    by rounding. ``all`` takes it where the processor computes in it.
``channels_last``
    Replaces the order (B, C, F, T) in memory by (B, F, T, C), so that a convolution reads its
    channels in one go: about 1.7 times as fast. Changes the last bits.
``fast_layers``
    Replaces BatchNorm with ReLU6, the gradient of strided depthwise convolutions and the colour
    stem by forms that pass over memory less often (`fast_layers`): 2 to 4 times as fast for each.
    Wants a C++ compiler and half a minute on a machine's first run. Changes a result by rounding.
``float16_store``
    Replaces float32 in the stored spectrograms: half the disk. Rounds a level by up to 0.03 dB.
``fused_optimizer``
    Replaces one pass over memory for each operation of the optimiser by one for all of them.
    Changes the last bits.
``reuse_memory``
    Replaces glibc's habit of returning freed tensors to the system (`memory`): a third to a half of
    a step went into page faults. Changes no number.
``store_on_device``
    Replaces the way from disk to GPU in every step by one copy of the store, where it has room.
    Changes no number.

What can change a number is part of a run's name and record, so that a run in bfloat16 and one in
float32 are never averaged as one.
"""

import functools
import warnings
from collections.abc import Collection
from contextlib import AbstractContextManager

import torch
from torch import nn

from fusionkd_lib.errors import InputError
from fusionkd_lib.params import SHORTCUTS, Params
from fusionkd_lib.speed.fast_layers import use_fast_layers
from fusionkd_lib.speed.memory import reuse_memory

# Those that change no number: where a run happens, not what comes out of it.
WITHOUT_TRACE = ("reuse_memory", "store_on_device")


def resolve(shortcuts: str | Collection[str], device: torch.device) -> tuple[str, ...]:
    """Return the shortcuts that will be taken: ``"all"`` means those that pay on this machine.

    Raises
    ------
    InputError
        Where one is asked for by name that this machine does not have.
    """
    if shortcuts == "all":
        pays = _pays(device)
        return tuple(name for name in SHORTCUTS if pays.get(name, True))
    if "fast_layers" in shortcuts and not can_compile():
        fault = "torch.compile does not work here, as a rule for want of a C++ compiler"
        raise InputError(f"shortcuts = fast_layers: {fault}: install one, or leave the name out")
    return tuple(shortcuts)


def _pays(device: torch.device) -> dict[str, bool]:
    """Return what each shortcut hangs on; one that is not named pays everywhere."""
    if device.type == "cpu":
        has_bfloat16 = torch.cpu._is_avx512_bf16_supported()
        rest = {"fast_layers": can_compile(), "store_on_device": False}
    else:
        has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
        rest = {"fast_layers": False, "reuse_memory": False}  # measured on the CPU alone
    return rest | {"bfloat16": has_bfloat16, "float16_store": False}


def note(params: Params) -> str:
    """Say which shortcut makes a run slower on this machine, and the way out; nothing where none.

    Ten times: an epoch of EfficientNet-Lite0 that takes 37 s in float32 took more than 300 s.
    """
    slow = "bfloat16" in params.shortcuts and not torch.cpu._is_avx512_bf16_supported()
    on_cpu = params.device == "cpu" or (params.device == "auto" and not torch.cuda.is_available())
    told = "shortcuts = bfloat16: on this processor some ten times slower than float32: leave the"
    return f"{told} name out (the run then has another name), or wait" if slow and on_cpu else ""


def resolve_device(name: str) -> torch.device:
    """Return the named device; ``"auto"`` is the GPU where there is one.

    Raises
    ------
    InputError
        Where there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise InputError(f"device = '{name}' is not to be had here: use auto or cpu") from None
    return torch.device(name)


def set_up_process(*, threads: int, shortcuts: Collection[str]) -> None:
    """Set the number of threads, and how the process treats freed memory."""
    torch.set_num_threads(threads)
    if "reuse_memory" in shortcuts:
        reuse_memory()


def set_up_model(model: nn.Module, device: torch.device, shortcuts: Collection[str]) -> None:
    """Move a network to its device, in the layout and with the layers that are asked for."""
    model.to(device)
    if "channels_last" in shortcuts:
        model.to(memory_format=torch.channels_last)
    if "fast_layers" in shortcuts:
        use_fast_layers(model)


def autocast(device: torch.device, shortcuts: Collection[str]) -> AbstractContextManager:
    """Train a network in the precision of a run; weights and losses stay in float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled="bfloat16" in shortcuts)


@functools.cache
def can_compile() -> bool:
    """Whether ``torch.compile`` works here: for a CPU it wants a C++ compiler."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of its own imports
            torch.compile(torch.neg)(torch.zeros(8))
    except Exception:  # a missing compiler and a broken one show in many ways
        return False
    return True
