"""Every optimizer, with options that between them reach all its branches; and PyTorch's, with all that it accepts."""

from itertools import product

from gpubp import optim

#: By a name: class and options. Every optimizer must be here: checks of stores, captured steps and states take these.
CASES = {
    "sgd": (optim.SGD, {}),
    "momentum": (optim.SGD, {"momentum": 0.9, "weight_decay": 0.01}),
    "nesterov": (optim.SGD, {"momentum": 0.8, "nesterov": True}),
    "dampening": (optim.SGD, {"momentum": 0.8, "dampening": 0.3, "maximize": True}),
    "decoupled": (optim.SGD, {"momentum": 0.8, "weight_decay": 0.1, "decoupled": True}),
    "adagrad": (optim.Adagrad, {"lr_decay": 0.1, "initial": 0.2, "weight_decay": 0.01}),
    "adagrad, decoupled": (optim.Adagrad, {"weight_decay": 0.1, "decoupled": True, "maximize": True, "eps": 1e-3}),
    "rmsprop": (optim.RMSprop, {}),
    "rmsprop, centered": (optim.RMSprop, {"centered": True, "alpha": 0.9, "weight_decay": 0.01}),
    "rmsprop, momentum": (optim.RMSprop, {"momentum": 0.8, "maximize": True}),
    "rmsprop, all": (optim.RMSprop, {"centered": True, "momentum": 0.8, "weight_decay": 0.1, "decoupled": True}),
    "adam": (optim.Adam, {"weight_decay": 0.01, "betas": (0.8, 0.95), "eps": 1e-5}),
    "adam, no memory": (optim.Adam, {"betas": (0.0, 0.0)}),
    "amsgrad": (optim.Adam, {"amsgrad": True, "betas": (0.8, 0.5), "maximize": True}),
    "adamw": (optim.AdamW, {"weight_decay": 0.1}),
    "adamw, amsgrad": (optim.AdamW, {"amsgrad": True, "betas": (0.8, 0.5)}),
    "lion": (optim.Lion, {"betas": (0.8, 0.9), "weight_decay": 0.1}),
    "lion, l2": (optim.Lion, {"weight_decay": 0.1, "decoupled": False}),
    "muon": (optim.Muon, {}),
    "muon, options": (
        optim.Muon,
        {"match_adam": False, "nesterov": False, "iterations": 3, "weight_decay": 0.1, "decoupled": False},
    ),
    "groups": (
        optim.Adam,
        {"groups": {"*[0]": {"lr": lambda k: 0.1 / (1 + k)}, "*[2]": {"amsgrad": True, "weight_decay": 0.1}}},
    ),
}

#: Of PyTorch's optimizers: our option's name for each of theirs, and values of every one, in all combinations.
PEERS = {
    optim.SGD: {
        "momentum": (0.0, 0.9),
        "dampening": (0.0, 0.3),
        "nesterov": (False, True),
        "weight_decay": (0.0, 0.01),
        "maximize": (False, True),
    },
    optim.Adagrad: {
        "lr_decay": (0.0, 0.1),
        "initial": (0.0, 0.2),
        "eps": (1e-10, 1e-3),
        "weight_decay": (0.0, 0.01),
        "maximize": (False, True),
    },
    optim.RMSprop: {
        "alpha": (0.99, 0.7),
        "eps": (1e-8, 1e-3),
        "centered": (False, True),
        "momentum": (0.0, 0.9),
        "weight_decay": (0.0, 0.01),
        "maximize": (False, True),
    },
    optim.Adam: {
        "betas": ((0.9, 0.999), (0.0, 0.6), (0.6, 0.0)),
        "eps": (1e-8, 1e-3),
        "amsgrad": (False, True),
        "weight_decay": (0.0, 0.01),
        "decoupled": (False, True),
        "maximize": (False, True),
    },
    optim.AdamW: {
        "betas": ((0.9, 0.999), (0.8, 0.6)),
        "eps": (1e-8, 1e-3),
        "amsgrad": (False, True),
        "weight_decay": (0.0, 0.01),
        "maximize": (False, True),
    },
}
THEIRS = {"initial": "initial_accumulator_value", "decoupled": "decoupled_weight_decay"}
#: What PyTorch's take besides these chooses among implementations.
OTHERS = {"params", "lr", "foreach", "fused", "capturable", "differentiable"}


def combinations(cls):
    """All combinations of options that PyTorch accepts."""
    for values in product(*PEERS[cls].values()):
        options = dict(zip(PEERS[cls], values, strict=True))
        if options.get("nesterov") and (not options["momentum"] or options["dampening"]):
            continue
        yield options


def peer_of(torch, cls, tensors, lr, options):
    """PyTorch's optimizer with the same options, which may have groups by the tensors' numbers."""
    options = {THEIRS.get(name, name): value for name, value in options.items()}
    return getattr(torch.optim, cls.__name__)(tensors, lr=lr, **options)
