"""Federated training of softmax regression in a few lines of NumPy: independent expected results."""

import numpy as np


def gradient(weights, x, y):
    """Gradient of mean cross-entropy for logits x·W + b; x float64 (n, d), y int (n,)."""
    kernel, bias = weights
    logits = x @ kernel + bias
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    p[np.arange(len(y)), y] -= 1
    return [x.T @ p / len(y), p.mean(axis=0)]


def hessian_product(weights, x, direction):
    """The Hessian of mean cross-entropy times `direction`, of the structure of the weights; it does not depend on y."""
    (kernel, bias), (kernel_direction, bias_direction) = weights, direction
    logits = x @ kernel + bias
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    along = x @ kernel_direction + bias_direction
    change = p * (along - (p * along).sum(axis=1, keepdims=True))
    return [x.T @ change / len(x), change.mean(axis=0)]


def loss(weights, x, y):
    """Mean cross-entropy, in nats, for logits x·W + b; x float64 (n, d), y int (n,)."""
    kernel, bias = weights
    logits = x @ kernel + bias
    logits -= logits.max(axis=1, keepdims=True)
    return np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(y)), y])


def flat(images):
    return images.reshape(len(images), -1).astype(np.float64) / 255


def local_sgd(weights, images, labels, rate, batch_size, steps):
    """`steps` steps of SGD through the examples in order, over and over, a short last batch kept; returns the path."""
    x, y = flat(images), labels
    starts = list(range(0, len(y), batch_size))
    path = [weights]
    for step in range(steps):
        start = starts[step % len(starts)]
        batch = slice(start, start + batch_size)
        gradients = gradient(path[-1], x[batch], y[batch])
        path.append([w - rate * g for w, g in zip(path[-1], gradients, strict=True)])
    return path


def mean_delta(weights, clients, weighting, rate, batch_size, steps_of):
    """Σ w_i (θ − θ_i) / Σ w_i over the clients (images, labels)."""
    total = [np.zeros_like(w) for w in weights]
    divisor = 0.0
    for images, labels in clients:
        end = local_sgd(weights, images, labels, rate, batch_size, steps_of(len(labels)))[-1]
        share = len(labels) if weighting == "examples" else 1.0
        total = [t + share * (w - e) for t, w, e in zip(total, weights, end, strict=True)]
        divisor += share
    return [t / divisor for t in total]
