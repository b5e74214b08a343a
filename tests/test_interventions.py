"""Every intervention does what its formula says, in every way that a model is run."""

import math
from dataclasses import dataclass

import pytest
import torch
from conftest import D_MODEL
from hypothesis import given
from hypothesis import strategies as st
from oracle import edited

import actadd_lens as al
from actadd_lens.models import tokens as prompts
from actadd_lens.models.bridge import BridgeModel
from actadd_lens.steering.edits import prompt_edits

POINT = "blocks.1.hook_resid_pre"
TEXTS = ["I love you and you hate me", "She talks", "I"]


def direction(seed):
    return torch.randn(D_MODEL, generator=torch.Generator().manual_seed(seed))


def vector(seed=0, n_rows=1, point=POINT, position="front"):
    rows = torch.randn(n_rows, D_MODEL, generator=torch.Generator().manual_seed(seed))
    return al.SteeringVector(rows, point, position)


@dataclass(frozen=True, eq=False)
class Scale:
    """A user's own class: it knows nothing of the package."""

    factor: float
    hook_point: str
    position: object = "all"
    additive: bool = False

    def apply(self, stream, at):
        return torch.where(at[..., None], self.factor * stream, stream)

    def identity(self):
        return {"kind": "scale", "factor": self.factor, "position": self.position}


def by_hand(name, stream, position, n_tokens):
    """What the formulas say, written out for one prompt [pos, d_model], in double precision."""
    x = stream.double().clone()
    where = {
        "all": range(n_tokens), "prompt": range(n_tokens), "front": [0], "back": [n_tokens - 1],
        "middle": [n_tokens // 2], 1: [1], -2: [n_tokens - 2], "generated": [],
    }[position]  # fmt: skip
    a, b = direction(1).double(), direction(2).double()
    for i in where:
        u = a / a.norm()
        if name == "project":
            x[i] = x[i] - (x[i] @ u) * u
        elif name == "clamp":
            x[i] = x[i] - (x[i] @ u) * u + 3 * u
        elif name == "rotate":
            w = b / b.norm() - (b / b.norm() @ u) * u
            w = w / w.norm()
            p, q = x[i] @ u, x[i] @ w
            angle = 40 * math.pi / 180
            inside = (math.cos(angle) * p - math.sin(angle) * q) * u
            inside = inside + (math.sin(angle) * p + math.cos(angle) * q) * w
            x[i] = x[i] - p * u - q * w + inside
        elif name == "scale":
            x[i] = 0.5 * x[i]
        elif name == "keep norm":
            y = x[i] + 2 * vector(5).rows[0].double()
            x[i] = y * x[i].norm() / y.norm()
    return x.to(stream.dtype)


def made(name, position, point=POINT):
    return {
        "project": lambda: al.Project(direction(1), point, position),
        "clamp": lambda: al.Clamp(direction(1), 3, point, position),
        "rotate": lambda: al.Rotate(direction(1), direction(2), 40, point, position),
        "scale": lambda: Scale(0.5, point, position),
        "keep norm": lambda: al.KeepNorm(2 * vector(5, point=point).at(position)),
    }[name]()


KINDS = ("project", "clamp", "rotate", "scale", "keep norm")
POSITIONS = ("all", "prompt", "front", "back", "middle", 1, -2, "generated")


def expected(hf, architecture, ids, name, position):
    """Logits of one prompt by a hand-written hook on the plain Hugging Face model."""

    def edit(activation):
        return by_hand(name, activation[0], position, len(ids))[None]

    with torch.no_grad(), edited(hf, architecture, 1, "resid_pre", edit):
        return hf(torch.tensor([ids]), use_cache=False).logits[0]


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_passes_are_a_hand_written_hook(bridge, plain, architecture, name, position, side):
    model, hf = bridge(architecture), plain(architecture)
    rows = prompts.as_prompts(model, TEXTS[:2])
    pad = {"left": prompts.pad_left, "right": prompts.pad_right}[side]
    tokens, mask = pad(rows, model.tokenizer.pad_token_id)
    with al.steer(model, made(name, position)), torch.no_grad():
        steered = model(tokens, attention_mask=mask)
    hooks = al.fwd_hooks(model, made(name, position), mask)
    with torch.no_grad():
        hooked = model.run_with_hooks(tokens, attention_mask=mask, fwd_hooks=hooks)
    assert torch.equal(steered, hooked)
    for ids, row, real in zip(rows, steered, mask.bool(), strict=True):
        right = expected(hf, architecture, ids, name, position)
        torch.testing.assert_close(row[real], right, atol=5e-5, rtol=1e-4)


@pytest.mark.parametrize("position", ["all", "generated", "prompt"])
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_generation_is_a_hand_written_hook(bridge, plain, architecture, name, position):
    """Greedy, in a padded batch with a clean prompt of another call beside it, with the cache."""
    model, hf = bridge(architecture), plain(architecture)
    found = al.generate(model, TEXTS, made(name, position), temperature=0, max_new_tokens=5)
    for text, completion in zip(TEXTS, found, strict=True):
        [ids] = prompts.as_prompts(model, text)
        n_prompt, chosen = len(ids), []
        for _ in range(len(completion.tokens)):

            def edit(activation, ids=ids, n_prompt=n_prompt):
                x = activation[0].clone()
                whole = by_hand(name, x, "all", len(ids))
                if position in ("all", "prompt"):
                    x[:n_prompt] = whole[:n_prompt]
                if position in ("all", "generated"):
                    x[n_prompt:] = whole[n_prompt:]
                return x[None]

            with torch.no_grad(), edited(hf, architecture, 1, "resid_pre", edit):
                token = int(hf(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax())
            chosen.append(token)
            ids = [*ids, token]
        assert list(completion.tokens) == chosen


@pytest.mark.parametrize("name", KINDS)
def test_within_steer_generation_is_that_of_generate(model, name):
    intervention = made(name, "all")
    ours = al.generate(model, TEXTS[0], intervention, temperature=0, max_new_tokens=6)
    with al.steer(model, intervention):
        theirs = model.generate(
            TEXTS[0], max_new_tokens=6, do_sample=False, verbose=False, return_type="tokens",
            prepend_bos=True,
        )  # fmt: skip
    assert theirs[0, -6:].tolist()[: len(ours[0].tokens)] == list(ours[0].tokens)


@given(
    items=st.lists(
        st.sampled_from([*(made(name, "all") for name in KINDS), vector(1, position="all")]),
        min_size=1,
        max_size=4,
    )
)
def test_additions_come_first_and_the_others_in_the_order_given(neo, items):
    tokens = torch.tensor([prompts.as_prompts(neo, TEXTS[0])[0]])
    name = "blocks.1.hook_resid_pre"
    own, mask = BridgeModel(neo), torch.ones_like(tokens)
    before = own.run(tokens, mask, read=[name], keep=None).streams[name]
    found = own.run(
        tokens, mask, edits=prompt_edits(neo, [items], mask).by_point, read=[name], keep=None
    ).streams[name]
    x = before.clone()
    for item in items:
        if item.additive:
            x = x + item.rows[0]
    for item in items:
        if not item.additive:
            x = item.apply(x, torch.ones(x.shape[:2], dtype=torch.bool))
    torch.testing.assert_close(found, x, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", KINDS)
def test_tokens_outside_keep_their_bits(model, name):
    tokens = torch.tensor([prompts.as_prompts(model, TEXTS[0])[0]])
    mask = torch.ones_like(tokens)
    own = BridgeModel(model)
    clean = own.run(tokens, mask, read=[POINT], keep=None).streams[POINT]
    edits = prompt_edits(model, [made(name, 2 if name != "keep norm" else "back")], mask).by_point
    steered = own.run(tokens, mask, edits=edits, read=[POINT], keep=None).streams[POINT]
    changed = (clean != steered).any(dim=-1)[0].nonzero()[:, 0].tolist()
    assert changed == [2 if name != "keep norm" else tokens.shape[1] - 1]


def test_a_vector_that_keeps_the_norm_keeps_bits_where_it_adds_nothing(model):
    two = al.KeepNorm(vector(3, n_rows=3).with_rows([1]))
    tokens = torch.tensor([prompts.as_prompts(model, TEXTS[0])[0]])
    mask, own = torch.ones_like(tokens), BridgeModel(model)
    clean = own.run(tokens, mask, read=[POINT], keep=None).streams[POINT]
    edits = prompt_edits(model, [two], mask).by_point
    steered = own.run(tokens, mask, edits=edits, read=[POINT], keep=None).streams[POINT]
    assert (clean != steered).any(dim=-1)[0].nonzero()[:, 0].tolist() == [1]
    torch.testing.assert_close(steered.norm(dim=-1), clean.norm(dim=-1))


# Conditions


def cosine_of(model, text, read_at):
    tokens = torch.tensor([prompts.as_prompts(model, text)[0]])
    read = BridgeModel(model).run(tokens, torch.ones_like(tokens), read=[read_at], keep=None)
    stream = read.streams[read_at][0]
    return float(torch.nn.functional.cosine_similarity(stream[-1], direction(1), dim=0))


@pytest.mark.parametrize("read_at", ["blocks.0.hook_resid_pre", POINT])
def test_a_condition_decides_for_each_prompt_and_its_completion(model, read_at):
    cosines = [cosine_of(model, text, read_at) for text in TEXTS]
    threshold = sorted(cosines)[1] - 1e-4
    then = 8 * vector(4, position="all")
    when = al.When(al.Similarity(direction(1), read_at, threshold), then)
    options = {"temperature": 0, "max_new_tokens": 5, "samples": 2}
    found = al.generate(model, TEXTS, when, **options)
    clean, steered = (al.generate(model, TEXTS, s, **options) for s in (None, then))
    assert [c.tokens for c in clean] != [c.tokens for c in steered]
    for index, completion in enumerate(found):
        holds = cosines[completion.prompt_index] >= threshold
        assert completion.tokens == (steered if holds else clean)[index].tokens
    for text, cosine in zip(TEXTS, cosines, strict=True):
        with al.steer(model, when):
            ours = al.next_token_logprobs(model, text)
        alone = al.next_token_logprobs(model, text, then if cosine >= threshold else None)
        torch.testing.assert_close(ours, alone)


def test_a_condition_holds_for_tokens_that_hugging_face_generates(model):
    then = 8 * vector(4, position="generated")
    options = {"max_new_tokens": 5, "do_sample": False, "verbose": False, "return_type": "tokens"}
    for threshold, steering in ((-2.0, then), (2.0, None)):
        with al.steer(model, al.When(al.Similarity(direction(1), POINT, threshold), then)):
            found = model.generate(TEXTS[0], **options)
        with al.steer(model, steering):
            assert torch.equal(found, model.generate(TEXTS[0], **options))


# Elsewhere


def test_they_work_in_likelihoods_and_compare(neo):
    project = al.Project(direction(1), POINT)
    logprobs = al.token_logprobs(neo, TEXTS[:2], project)
    with al.steer(neo, project):
        inside = al.token_logprobs(neo, TEXTS[:2])
    for ours, theirs in zip(logprobs, inside, strict=True):
        torch.testing.assert_close(ours, theirs)
    frame = al.compare(neo, TEXTS[0], project, samples=1, max_new_tokens=3).frame
    assert frame["run"].tolist() == ["clean", "steered"]
    assert al.perplexity_ratio(neo, TEXTS[:2], project)["ratio"].notna().all()
    assert al.placement(neo, project.at("back"), TEXTS[1])["row"].dropna().tolist() == [0]


@pytest.mark.parametrize("name", KINDS)
def test_beside_the_stream_what_changed_meets_the_skip_connection(bridge, name):
    """Where TransformerLens reads the MLP's entry, the stream must change there all the same."""
    model = bridge("llama")
    tokens = torch.tensor([prompts.as_prompts(model, TEXTS[0])[0]])
    own, mask = BridgeModel(model), torch.ones_like(tokens)
    mid, post, out = (f"blocks.1.hook_{site}" for site in ("resid_mid", "resid_post", "mlp_out"))
    edits = prompt_edits(model, [made(name, "all", mid)], mask).by_point
    clean = own.run(tokens, mask, read=[mid], keep=None).streams[mid]
    read = own.run(tokens, mask, edits=edits, read=[out, post], keep=None).streams
    edited_mid = by_hand(name, clean[0], "all", tokens.shape[1])
    torch.testing.assert_close(read[post][0], edited_mid + read[out][0], atol=1e-4, rtol=1e-4)


def test_an_identity_is_equal_exactly_when_they_do_the_same():
    def all_of():
        return [
            *(made(name, position) for name in KINDS for position in ("all", "back")),
            al.Project(direction(2), POINT),
            al.Clamp(direction(1), 4, POINT),
            al.When(al.Similarity(direction(1), POINT, 0.5), made("project", "all")),
            al.When(al.Similarity(direction(1), POINT, 0.6), made("project", "all")),
            vector(1),
            vector(2),
            vector(1, point="blocks.2.hook_resid_pre"),
        ]

    ours, theirs = ([dict(i.identity()) for i in all_of()] for _ in range(2))
    assert ours == theirs
    assert all(a != b for i, a in enumerate(ours) for b in ours[:i])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: al.Project(torch.zeros(4), POINT), al.VectorError, "zero or not finite"),
        (lambda: al.Project(torch.ones(2, 4), POINT), al.VectorError, r"direction is \(2, 4\)"),
        (lambda: al.Project([1.0], POINT), al.VectorError, "direction is list"),
        (lambda: al.Project(torch.ones(4), "hook_embed"), al.VectorError, "names no block"),
        (lambda: al.Clamp(torch.ones(4), math.nan, POINT), al.VectorError, "value is nan"),
        (lambda: al.Clamp(torch.ones(4), 1, POINT, "nowhere"), al.PositionError, "nowhere"),
        (
            lambda: al.Rotate(torch.ones(4), -2 * torch.ones(4), 9, POINT),
            al.VectorError,
            "parallel",
        ),
        (
            lambda: al.Rotate(torch.ones(4), torch.ones(5), 9, POINT),
            al.VectorError,
            "a has 4 dimensions, b has 5",
        ),
        (
            lambda: al.When(al.Similarity(torch.ones(4), "blocks.2.hook_resid_pre", 0), vector()),
            al.LayerError,
            "read it earlier",
        ),
        (
            lambda: al.Similarity(torch.ones(4), POINT, 0, "generated"),
            al.PositionError,
            "judged on the prompt",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("where", ["back", -2, 4])
def test_a_condition_on_a_text_is_judged_where_a_whole_pass_judges_it(model, where):
    """A text is read without its last token only where nothing depends on that token."""
    [ids] = prompts.as_prompts(model, TEXTS[0])
    tokens, then = torch.tensor([ids]), 8 * vector(4)
    for threshold in (-0.3, 0.0, 0.3):
        when = al.When(al.Similarity(direction(1), POINT, threshold, where), then)
        with torch.no_grad():
            whole = model.run_with_hooks(tokens, fwd_hooks=al.fwd_hooks(model, when))[0]
        expected = whole.log_softmax(dim=-1)[:-1].gather(1, tokens[0, 1:, None])[:, 0]
        [found] = al.token_logprobs(model, TEXTS[0], when)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_within_steer_a_text_is_read_with_its_last_token(model):
    steering = 5 * vector(4, position="back")
    with al.steer(model, steering):
        [inside] = al.token_logprobs(model, TEXTS[0])
    [given] = al.token_logprobs(model, TEXTS[0], steering)
    torch.testing.assert_close(inside, given, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
@pytest.mark.parametrize("reverse", [False, True])
def test_what_is_added_amid_a_block_is_there_before_what_acts_at_its_end(
    bridge, architecture, reverse
):
    model = bridge(architecture)
    tokens = torch.tensor([prompts.as_prompts(model, TEXTS[0])[0]])
    own, mask, post = BridgeModel(model), torch.ones_like(tokens), "blocks.1.hook_resid_post"
    along = 9 * al.SteeringVector(direction(1)[None], "blocks.1.hook_resid_mid", "all")
    items = [along, al.Project(direction(1), post)]
    edits = prompt_edits(model, [items[::-1] if reverse else items], mask).by_point
    stream = own.run(tokens, mask, edits=edits, read=[post], keep=None).streams[post]
    assert float((stream @ direction(1)).abs().max()) < 1e-3


@dataclass(frozen=True, eq=False)
class Adds:
    """An additive class of a user, which counts on being given zeros."""

    hook_point: str
    position: object = "all"
    additive: bool = True

    def apply(self, stream, at):
        return torch.where(at[..., None], vector(8).rows[0], torch.zeros_like(stream))

    def identity(self):
        return {"kind": "adds", "position": self.position}


def test_an_additive_class_is_only_ever_given_zeros(model):
    ours, theirs = Adds(POINT), vector(8, position="all")
    always = al.Similarity(direction(1), POINT, -2.0)
    for wrap in (lambda item: item, al.KeepNorm, lambda item: al.When(always, item)):
        found, expected = (al.next_token_logprobs(model, TEXTS, wrap(i)) for i in (ours, theirs))
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_a_condition_is_outermost():
    when = al.When(al.Similarity(direction(1), POINT, 0.5), vector())
    for wrap in (al.KeepNorm, lambda inner: al.When(when.condition, inner)):
        with pytest.raises(al.VectorError, match=r"put When outermost"):
            wrap(when)


@pytest.mark.parametrize("position", ["front", 2, "middle", "back", -3])
def test_rows_are_added_where_placement_shows_them(model, position):
    steering = vector(7, n_rows=3, position=position)
    tokens = torch.tensor([prompts.as_prompts(model, TEXTS[0])[0]])
    own, mask = BridgeModel(model), torch.ones_like(tokens)
    edits = prompt_edits(model, [steering], mask).by_point
    clean, steered = (
        own.run(tokens, mask, edits=chosen, read=[POINT], keep=None).streams[POINT][0]
        for chosen in ({}, edits)
    )
    shown = al.placement(model, steering, TEXTS[0])["row"].astype(float)
    for row, change in zip(shown, steered - clean, strict=True):
        expected = torch.zeros(D_MODEL) if row != row else steering.rows[int(row)]
        torch.testing.assert_close(change, expected, atol=1e-5, rtol=1e-4)


def test_what_does_not_fit_the_model_is_refused_and_nothing_stays_hooked(neo):
    for bad, error, message in (
        (al.Project(torch.ones(5), POINT), al.VectorError, "width 5"),
        (
            al.When(al.Similarity(torch.ones(5), POINT, 0.5), vector()),
            al.VectorError,
            "width 5, .* d_model 32",
        ),
        (al.Project(direction(0), "blocks.9.hook_resid_pre"), al.LayerError, "layer 9"),
    ):
        with pytest.raises(error, match=message), al.steer(neo, bad):
            pass
    wrong = Scale(2, POINT)
    object.__setattr__(wrong, "factor", torch.ones(2, 1, 1, 1))
    with pytest.raises(al.VectorError, match=r"Scale.apply returned"):
        al.next_token_logprobs(neo, TEXTS[0], wrong)
    assert not any(point.fwd_hooks for point in neo.hook_dict.values())
