"""Objectives: what a network is trained for.

Cross-entropy (Xu et al. 2017) asks that the training classes can be told apart. For classes that nobody trained for, features
should also be alike within a class and unlike between classes, whatever the pose, the wedge and the noise: that is what the
metric parts ask. Every batch of simulated particles holds several of a class, each in a pose, a wedge and a noise of its
own, so the pairs that the metric parts need are there.
"""

from pytorch_metric_learning import distances, losses, miners
from torch import Tensor
from torch.nn import functional

from tomolab.recipes import Recipe


def loss(recipe: Recipe, features: Tensor, logits: Tensor, *, labels: Tensor) -> Tensor:
    """Training loss: the weighted sum of the parts that the recipe asks for.

    Parameters
    ----------
    recipe
        Weights of the parts, and their settings.
    features
        Structural features (n, d), float32; only their directions matter to the metric parts.
    logits
        Logits (n, classes), float32.
    labels
        Class indices (n,).

    Returns
    -------
    Tensor
        One number. Parts: cross-entropy with label smoothing and, with a `margin`, a large-margin cosine loss (CosFace,
        Wang et al. 2018); supervised contrastive loss (Khosla et al. 2020); triplet loss on cosines with semi-hard triplets
        (Schroff et al. 2015) and the margin of 0.539 of TomoTwin (Rice et al. 2023).
    """
    total = recipe.classification * _classification(recipe, logits, labels)
    if recipe.contrastive:
        total = total + recipe.contrastive * losses.SupConLoss(temperature=recipe.temperature)(features, labels)
    if recipe.triplet:
        total = total + recipe.triplet * _triplet(features, labels)
    return total


def _classification(recipe: Recipe, logits: Tensor, labels: Tensor) -> Tensor:
    lowered = logits - recipe.margin * functional.one_hot(labels, logits.shape[1]) if recipe.margin else logits
    return functional.cross_entropy(lowered, labels, label_smoothing=recipe.smoothing)


_MARGIN = 0.539


def _triplet(features: Tensor, labels: Tensor) -> Tensor:
    cosine = distances.CosineSimilarity()
    chosen = miners.TripletMarginMiner(margin=_MARGIN, type_of_triplets="semihard", distance=cosine)(features, labels)
    return losses.TripletMarginLoss(margin=_MARGIN, distance=cosine)(features, labels, chosen)
