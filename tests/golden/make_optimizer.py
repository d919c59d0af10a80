"""Makes optimizer.txt: weights after every fifth of 50 steps of torch.optim, for the optimizers that Ballast has.

Usage: python tests/golden/make_optimizer.py > tests/golden/optimizer.txt

Lines: "grad STEP g0 g1 ..." (the same gradients for every case), then for each case "case NAME key=value ..." and
"w STEP w0 w1 ..." (step 0: the initial weights). Numbers are C hex floats, so that no digit is lost.
"""

import torch

ELEMENTS = 37  # not a multiple of any vector width
STEPS = 50

CASES = {
    "sgd": (torch.optim.SGD, dict(lr=0.1)),
    "sgd_decay": (torch.optim.SGD, dict(lr=0.1, weight_decay=0.01)),
    "sgd_momentum": (torch.optim.SGD, dict(lr=0.05, momentum=0.9)),
    "sgd_dampening": (torch.optim.SGD, dict(lr=0.05, momentum=0.9, dampening=0.3, weight_decay=0.001)),
    "sgd_nesterov": (torch.optim.SGD, dict(lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01)),
    "adam": (torch.optim.Adam, dict(lr=0.001, betas=(0.9, 0.999), eps=1e-8)),
    "adam_decay": (torch.optim.Adam, dict(lr=0.003, betas=(0.8, 0.99), eps=1e-6, weight_decay=0.1)),
    "adamw": (torch.optim.AdamW, dict(lr=0.002, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.05)),
}


def line(*words):
    print(" ".join(str(word) for word in words))


def numbers(tensor):
    return [float(x).hex() for x in tensor]


def main():
    torch.manual_seed(20240607)
    start = torch.randn(ELEMENTS)
    grads = [torch.randn(ELEMENTS) * 10 ** float(torch.rand(()) * 4 - 3) for _ in range(STEPS)]
    for step, grad in enumerate(grads, 1):
        line("grad", step, *numbers(grad))
    for name, (make, options) in CASES.items():
        flat = {k: v for k, v in options.items() if k != "betas"}
        if "betas" in options:
            flat["beta1"], flat["beta2"] = options["betas"]
        line("case", name, *(f"{k}={float(v)!r}" for k, v in flat.items()))
        weights = torch.nn.Parameter(start.clone())
        optimizer = make([weights], foreach=False, **options)
        line("w", 0, *numbers(weights.detach()))
        for step, grad in enumerate(grads, 1):
            weights.grad = grad.clone()
            optimizer.step()
            if step % 5 == 0:
                line("w", step, *numbers(weights.detach()))


if __name__ == "__main__":
    main()
