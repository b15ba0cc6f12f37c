"""The optimizer: Muon for hidden matrices, AdamW for everything else, one learning-rate schedule for both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from picollm.errors import InputError
from picollm.train.config import TrainConfig

Named = Mapping[str, nn.Parameter]


def is_hidden_matrix(name: str, parameter: Tensor) -> bool:
    """Return whether a parameter maps hidden states to hidden states: Muon's domain, and what may decay."""
    return parameter.ndim == 2 and not name.endswith(("embed_tokens.weight", "lm_head.weight"))


class Optimizer:
    """Steps fp32 master weights. Its tensors are saved and restored under the names of the parameters."""

    def __init__(self, parameters: Named, config: TrainConfig) -> None:
        self._names: dict[Tensor, str] = {parameter: name for name, parameter in parameters.items()}
        matrices = [p for n, p in parameters.items() if is_hidden_matrix(n, p)]
        rest = [p for n, p in parameters.items() if not is_hidden_matrix(n, p)]
        rest_rate = config.embedding_learning_rate or config.learning_rate
        adamw = [{"params": rest, "lr": rest_rate, "weight_decay": 0.0}] if rest else []
        self._parts: list[torch.optim.Optimizer] = []
        if config.optimizer == "muon":
            self._parts.append(_muon(matrices, config))
        elif matrices:
            adamw.append(
                {"params": matrices, "lr": config.learning_rate, "weight_decay": config.weight_decay}
            )
        if adamw:
            betas = (config.beta1, config.beta2)
            self._parts.append(torch.optim.AdamW(adamw, betas=betas, eps=1e-10, fused=True))
        self._peaks = [[float(group["lr"]) for group in part.param_groups] for part in self._parts]

    def step(self, factor: float) -> None:
        """Apply the gradients at ``factor`` times the peak learning rates, and forget them."""
        for part, peaks in zip(self._parts, self._peaks, strict=True):
            for group, peak in zip(part.param_groups, peaks, strict=True):
                group["lr"] = peak * factor
            part.step()
            part.zero_grad(set_to_none=True)

    def tensors(self) -> dict[str, Tensor]:
        """Return all state as ``{"parameter/kind": tensor}``."""
        return {
            f"{self._names[parameter]}/{kind}": value
            for part in self._parts
            for parameter, state in part.state.items()
            for kind, value in state.items()
        }

    def load(self, tensors: Iterable[tuple[str, Tensor]]) -> None:
        """Restore what ``tensors`` returned, so that the next step is the one that would have been."""
        by_name = {name: parameter for parameter, name in self._names.items()}
        owner = {p: part for part in self._parts for group in part.param_groups for p in group["params"]}
        for key, value in tensors:
            name, _, kind = key.rpartition("/")
            owner[by_name[name]].state[by_name[name]][kind] = value


def _muon(matrices: list[nn.Parameter], config: TrainConfig) -> torch.optim.Optimizer:
    if not hasattr(torch.optim, "Muon"):
        raise InputError(
            f"optimizer is muon, but torch {torch.__version__} has none. Take adamw, or torch 2.9 or later."
        )
    return torch.optim.Muon(
        matrices,
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        momentum=config.momentum,
        adjust_lr_fn="match_rms_adamw",
    )
