"""Which layers an adapter reaches, and whether the merged model can be stored with one set of weights."""

from __future__ import annotations

from typing import Any

__all__ = ["torn_apart", "uncovered"]


def torn_apart(model: Any) -> list[str]:
    """Returns the modules whose tied weights an adapter separates, so that no merged copy equals the student.

    LoRA on the output layer changes only that layer; merged into the shared weight it would change the embedding, too.
    A module that is saved whole has its own weight. `model` is PEFT's, and may be on the meta device.
    """
    from peft.utils import ModulesToSaveWrapper

    found: list[str] = []
    base = model.get_base_model()
    for pair in base.all_tied_weights_keys.items():
        names = [name.rpartition(".")[0] for name in pair]
        modules = [base.get_submodule(name) for name in names]
        if any(isinstance(module, ModulesToSaveWrapper) for module in modules):
            continue
        trained = [
            {id(weight) for weight in module.parameters() if weight.requires_grad} for module in modules
        ]
        shared = trained[0] == trained[1] and not any(_is_lora(module) for module in modules)
        if any(trained) and not shared:
            found += [name.rpartition(".")[2] for name in names]
    return sorted(set(found))


def _is_lora(module: Any) -> bool:
    from peft.tuners.lora import LoraLayer

    return isinstance(module, LoraLayer)


def uncovered(model: Any) -> list[str]:
    """Returns the linear layers and expert weights that a model's adapter does not reach, by names without the layer's
    number. The output layer is left out: TRL does not train it by an adapter.

    In hybrid models most layers are not attention: a list of q_proj, k_proj, v_proj, o_proj misses three of four.
    """
    import torch
    from peft.tuners.tuners_utils import BaseTunerLayer

    head = model.get_output_embeddings()
    found: dict[str, bool] = {}
    covered = [f"{name}." for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)]
    for name, module in model.named_modules():
        inside = any(f"{name}.".startswith(prefix) for prefix in covered)
        experts = [
            f"{name}.{part}"
            for part, weight in module.named_parameters(recurse=False)
            if weight.dim() == 3 and not isinstance(module, torch.nn.modules.conv._ConvNd)
        ]
        linear = [name] if isinstance(module, torch.nn.Linear) and module is not head else []
        for each in linear + experts:
            parts = [part for part in each.split(".") if not part.isdigit()]
            kind = ".".join(parts[-2:])
            found[kind] = found.get(kind, True) and inside
    return sorted(kind for kind, reached in found.items() if not reached)
