"""Whether a device computes: `python -m worker.probe DEVICE` exits with 0 if it does.

Asked by `worker.health`, in a process of its own: what the driver has refused once it refuses that
process for good.
"""

import sys

import torch

SIZE = 64


def computes(device: str) -> bool:
    """Multiply two matrices there; whether the product is right.

    Raises:
        RuntimeError: there is no such device, or its driver refuses.
    """
    ones = torch.ones(SIZE, SIZE, device=device)
    return float((ones @ ones).sum()) == SIZE**3


if __name__ == "__main__":
    sys.exit(not computes(sys.argv[1]))
