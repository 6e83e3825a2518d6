"""Logits and labels in, the loss out that a network is trained to lower.

Cross-entropy (Xu et al. 2017), which asks that the training classes can be told apart, with label smoothing and, with a margin,
a large-margin cosine loss (CosFace, Wang et al. 2018).
"""

from torch import Tensor
from torch.nn import functional

from tomolab.learning.recipes import Recipe


def loss(recipe: Recipe, logits: Tensor, labels: Tensor) -> Tensor:
    """Training loss of a batch.

    Parameters
    ----------
    recipe
        Its `margin` is taken from the logit of the true class, and its `smoothing` is the share of a label for all classes.
    logits
        Logits (n, classes), float32.
    labels
        Class indices (n,).

    Returns
    -------
    Tensor
        One number, the mean over the batch.
    """
    lowered = logits - recipe.margin * functional.one_hot(labels, logits.shape[1]) if recipe.margin else logits
    return functional.cross_entropy(lowered, labels, label_smoothing=recipe.smoothing)
