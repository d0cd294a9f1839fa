"""Adam as TensorFlow has it, and the rate at which it learns."""

import torch
from torch.optim.adam import adam


class Adam:
    """Adam with TensorFlow's epsilon, which is added before the bias correction (fused: one pass over the weights).

    PyTorch's own class imports its compiler, which takes two seconds, to tell it to leave the optimiser alone.
    """

    BETA2 = 0.999

    def __init__(self, parameters, lr, beta1):
        self.parameters, self.lr, self.beta1, self.count = list(parameters), lr, beta1, 0
        self.state = [{"step": torch.zeros((), device=p.device), "exp_avg": torch.zeros_like(p),
                       "exp_avg_sq": torch.zeros_like(p)} for p in self.parameters]

    def zero_grad(self):
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self, lr=None):
        """One step, from now on with the rate lr if it is given."""
        self.lr, self.count = self.lr if lr is None else lr, self.count + 1
        eps = 1e-8 / (1 - self.BETA2**self.count) ** 0.5
        moving = [(p, own) for p, own in zip(self.parameters, self.state, strict=True) if p.grad is not None]
        each = [(p, p.grad, own["exp_avg"], own["exp_avg_sq"]) for p, own in moving]
        # flat views in memory order: the fused kernel would copy a gradient whose order differs from its weight's
        flat = [[x.as_strided((x.numel(),), (1,)) for x in those] for those in zip(*each, strict=True)]
        adam(*flat, [], [own["step"] for _, own in moving], fused=True, amsgrad=False, beta1=self.beta1,
             beta2=self.BETA2, lr=self.lr, weight_decay=0, eps=eps, maximize=False)
        torch.autograd.graph.increment_version([p for p, _ in moving])  # the fused kernel does not tell

    def state_dict(self):
        return {"state": dict(enumerate(self.state))}

    def load_state_dict(self, state):
        """Moments of another device's run may lie in another memory order, which the fused kernel would not see."""
        for own, saved in zip(self.state, state["state"].values(), strict=True):
            for name, value in own.items():
                value.copy_(saved[name])
        self.count = int(max(own["step"] for own in self.state))


def learning_rate(lr, anneal, epoch, num_epochs):
    """The rate after `epoch` of `num_epochs` epochs: lr, falling over the last part (the share `anneal` of the epochs)
    to a tenth, evenly in its logarithm."""
    left = 1 - epoch / num_epochs
    return lr * 0.1 ** (1 - left / anneal) if left < anneal else lr
