"""Arguments of a query of maps, and what comes out of it, for tests of its kernels."""

from __future__ import annotations

import torch


def random_head(outputs=2, maps=3, nodes=5, hidden=7, points=60, reach=1.4):
    """Arguments of a query; a third of the points lies outside the cube."""
    torch.manual_seed(0)
    owner = torch.tensor([0, 2, 1, 1])
    where = (torch.rand(len(owner), points, 3) * 2 - 1) * reach
    return [
        torch.randn(maps, nodes, nodes, nodes, hidden),
        owner,
        where,
        torch.randn(outputs, hidden),
        torch.randn(outputs),
    ]


def value_and_gradients(query, arguments):
    arguments = [a.clone().requires_grad_(a.is_floating_point()) for a in arguments]
    values = query(*arguments)
    (values * torch.linspace(-1, 1, values.numel(), device=values.device).view(values.shape)).sum().backward()
    return [values.detach(), *(a.grad for a in arguments if a.is_floating_point())]
