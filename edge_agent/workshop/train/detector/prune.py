"""``train detector --prune SHARE``: channels go while it trains, those first whose loss would change the least.

Torch-Pruning finds which channels go together (Fang et al., "DepGraph", arXiv 2301.12900) and ranks them by
|gradient · weight| (Molchanov et al., "Importance Estimation for Neural Network Pruning", CVPR 2019). A few go at a
time, over all layers, and the others learn in between.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import torch
from torch import nn

from edge_agent.errors import ModelError, UsageError
from edge_agent.workshop.train.detector.augment import Picture
from edge_agent.workshop.train.detector.fit import Trainer
from edge_agent.workshop.train.detector.net import EdgeYolo

ROUNDS = 8
"""in which channels go"""
STEPS, LOOKS = 20, 6
"""of training before each round, and batches whose gradients are added up for it"""
LEAST = 0.25
"""of a layer's channels stay at least"""
BLOCK = 4
"""channels that go at a time: vector units like them"""


def pruned(
    net: EdgeYolo, share: float, trainer: Callable[[EdgeYolo], Trainer], pool: list[Picture], say: Callable[[str], None]
) -> EdgeYolo:
    """`net` with about `share` of its weights fewer, changed in place. `trainer`: a new one for the network as it is.

    Raises UsageError where torch-pruning is missing, ModelError where too few channels can go.
    """
    try:
        import torch_pruning as tp
    except ImportError as error:
        raise UsageError(f'--prune needs torch-pruning: pip install "edge-agent-runtime[train]" ({error})') from None
    before = weights(net)
    for number in range(1, ROUNDS + 1):
        learner = trainer(net)
        for _ in range(STEPS):
            learner.learn(pool, 0.0)
            learner.clock.step += 1
        learner.look(pool, LOOKS)
        shape = torch.zeros(1, 3, *learner.recipe.size[::-1], device=learner.device)
        _narrow(tp, learner.net, shape, before * (1 - share * number / ROUNDS))
        net.zero_grad(set_to_none=True)
        say(f"pruning {number} of {ROUNDS}: {weights(net) / before:.0%} of the weights left")
    if weights(net) > before * (1 - share / 2):
        raise ModelError(f"only {1 - weights(net) / before:.0%} of its weights can go; give a lower --prune")
    return net


def _narrow(tp: ModuleType, net: EdgeYolo, shape: torch.Tensor, goal: float) -> None:
    """Take the least important channels, until at most `goal` weights are left or no more may go. By its gradients."""
    fixed = [layer for head in net.heads for layer in (head.logits, head.boxes)]
    steps = 200
    pruner = tp.pruner.BasePruner(
        net.eval(),
        shape,
        importance=tp.importance.GroupTaylorImportance(),
        global_pruning=True,
        pruning_ratio=1 - LEAST,
        max_pruning_ratio=1 - LEAST,
        iterative_steps=steps,
        ignored_layers=fixed,
        round_to=BLOCK,
    )
    for _ in range(steps):
        if weights(net) <= goal:
            break
        pruner.step()
    net.train()


def weights(net: nn.Module) -> int:
    """How many numbers it has learnt."""
    return sum(parameter.numel() for parameter in net.parameters())
