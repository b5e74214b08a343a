"""Vectors from a model: of one pair at many layers, or the mean over many pairs."""

from collections.abc import Sequence

from actadd_lens.errors import PromptError
from actadd_lens.models import hook_points
from actadd_lens.models.base import Bridge
from actadd_lens.models.hook_points import check_model
from actadd_lens.models.tokens import PromptLike
from actadd_lens.vectors import activations
from actadd_lens.vectors.pair import ContrastPair, as_pair
from actadd_lens.vectors.provenance import source
from actadd_lens.vectors.vector import SteeringVector, contrasts


def extract(
    model: Bridge,
    pair: ContrastPair | tuple[PromptLike, PromptLike],
    layers: Sequence[int] | None = None,
    *,
    site: str = "resid_pre",
) -> dict[int, SteeringVector]:
    """Steering vectors of a contrast pair at many layers (Algorithm 1, steps 1 to 3).

    Both prompts are read as a batch of two, in one pass that ends at the deepest layer asked for.

    Args:
        model: Any TransformerBridge.
        pair: A ``ContrastPair`` or two prompts.
        layers: Which layers; every one by default.
        site: Where in the block: "resid_pre" (the paper's), "resid_mid", "resid_post",
            "attn_out" or "mlp_out".

    Returns:
        A vector for each layer, float32, at position "front".

    Raises:
        LayerError: A layer or site that the model does not have.
        PromptError: See ``ContrastPair.tokens``.

    >>> model = load_model("testbed")
    >>> vectors = extract(model, ("Love", "Hate"), layers=[1, 2])
    >>> [vector.hook_point for vector in vectors.values()]
    ['blocks.1.hook_resid_pre', 'blocks.2.hook_resid_pre']
    """
    check_model(model)
    if all(isinstance(given, str) for given in (pair, layers)):
        raise PromptError(
            f"the pair is given as two arguments: al.extract(model, ({pair!r}, {layers!r}))"
        )
    wanted = activations.wanted_layers(model, layers)
    return ByLayer(contrasts(model, as_pair(pair), wanted, site) if wanted else {})


class ByLayer(dict[int, SteeringVector]):
    """Vectors by layer; asked for another layer, it says which there are."""

    def __missing__(self, layer: object) -> SteeringVector:
        raise KeyError(f"no vector of layer {layer!r}: there are {', '.join(map(str, self))}")


def mean_difference(
    model: Bridge,
    pairs: Sequence[ContrastPair | tuple[PromptLike, PromptLike]],
    layer: int,
    token: int = -1,
) -> SteeringVector:
    """Contrastive activation addition (Panickssery et al. 2312.06681), the usual baseline.

    The mean over pairs of the difference between the streams entering block ``layer``, each read
    at one token of its own prompt. Prompts are not padded to each other's length for it.

    Args:
        model: Any TransformerBridge.
        pairs: Contrast pairs or 2-tuples of prompts.
        layer: Layer to read at.
        token: Which token, BOS being 0, negative from the end.

    Returns:
        One row at position "all".

    Raises:
        LayerError: The model has no such layer.
        PromptError: No pair, or a prompt beyond the context.
        PositionError: A prompt has no such token.

    >>> model = load_model("testbed")
    >>> vector = mean_difference(model, [("I love it", "I hate it"), ("Good", "Bad")], layer=1)
    >>> len(vector.rows), vector.position
    (1, 'all')
    """
    return mean_differences(model, pairs, [layer], token)[layer]


def mean_differences(
    model: Bridge,
    pairs: Sequence[ContrastPair | tuple[PromptLike, PromptLike]],
    layers: Sequence[int],
    token: int = -1,
) -> dict[int, SteeringVector]:
    """As ``mean_difference``, with its errors, at several layers from the same passes.

    >>> vectors = mean_differences(load_model("testbed"), [("Good", "Bad")], layers=[1, 2])
    >>> [vector.layer for vector in vectors.values()]
    [1, 2]
    """
    hook_points.check_layers(model, layers)
    texts = [as_pair(pair) for pair in pairs]
    if not texts:
        raise PromptError("the list of contrast pairs is empty: give at least one")
    names = [hook_points.hook_point(layer) for layer in layers]
    positive, negative = activations.sides(model, texts, names, token)
    origin = {
        "kind": "mean_difference",
        "pairs": [list(pair.labels) for pair in texts],
        "token": token,
        **source(model),
    }
    means = (positive - negative).mean(dim=1, keepdim=True)
    return {
        layer: SteeringVector(mean, name, "all", origin)
        for layer, name, mean in zip(layers, names, means, strict=True)
    }
