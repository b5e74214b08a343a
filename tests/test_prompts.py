"""Prompts as texts, ids and chats; BOS; what ends a completion; positions that name tokens."""

import json
import warnings

import pandas as pd
import pytest
import torch
import transformers
from conftest import ARCHITECTURES
from hypothesis import given
from hypothesis import strategies as st
from oracle import Addition, greedy, logits

import actadd_lens as al
from actadd_lens.models import tokens as prompts
from actadd_lens.steering.positions import parse
from actadd_lens.sweeps.identity import plain as as_plain

TEXT = "I hate you because you are late"
PLAIN = (
    "{% for m in messages %}{{ m.role[0] }}:{{ m.content }};{% endfor %}"
    "{% if add_generation_prompt %}a:{% endif %}"
)
TEMPLATES = {
    "plain": PLAIN,
    "stripping": PLAIN.replace("m.content", "m.content | trim"),
    "bos": "{{ bos_token }}" + PLAIN,
    "default system": ("{% if messages[0].role != 'system' %}s:I love it;{% endif %}" + PLAIN),
    "system in user": (
        "{% set s = messages[0].content if messages[0].role == 'system' else '' %}"
        "{% for m in messages if m.role != 'system' %}[{{ m.role[0] }}]"
        "{% if loop.first and s %}{{ s }}\n{% endif %}{{ m.content }}\n{% endfor %}[a]"
    ),
    "by content": PLAIN.replace("{{ m.content }}", "{{ m.content.split('|')[-1] }}"),
}
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
DROPS = PLAIN.replace("messages %}", "messages if m.role != 'system' %}")

TURNS = [
    {"role": "system", "content": "You love weddings"},
    {"role": "user", "content": " I hate you \n"},
    {"role": "assistant", "content": "I love you"},
    {"role": "user", "content": " I hate you \n"},
]


@pytest.fixture
def chatty(bridge, monkeypatch):
    """A model with a chat template, for the time of a test."""

    def made(template=PLAIN, architecture="gpt2"):
        model = bridge(architecture)
        monkeypatch.setattr(model.tokenizer, "chat_template", template)
        return model

    return made


def vector(n_rows=1, **options):
    rows = torch.randn(n_rows, 32, generator=torch.Generator().manual_seed(7))
    return al.SteeringVector(4 * rows, "blocks.1.hook_resid_pre", **options)


# Prompts


def test_a_text_its_ids_and_a_tensor_of_them_are_one_prompt(model):
    ids = model.to_tokens(TEXT)[0].tolist()
    expected = al.generate(model, TEXT, vector(), max_new_tokens=4)[0].tokens
    for prompt in (ids, tuple(ids), torch.tensor(ids), [TEXT], [ids], torch.tensor([ids])):
        made = al.generate(model, prompt, vector(), max_new_tokens=4)
        assert [c.tokens for c in made] == [expected]


def test_ids_are_used_as_they_are(model, plain):
    ids = model.to_tokens(TEXT, prepend_bos=False)[0].tolist()
    expected = greedy(plain("gpt2"), "gpt2", ids, 5, [Addition(1, "resid_pre", vector().rows)])
    [made] = al.generate(model, ids, vector(), max_new_tokens=5, temperature=0)
    assert list(made.tokens) == expected
    assert made.prompt == TEXT


def test_every_function_takes_ids_and_chats(chatty):
    model = chatty()
    chat = al.chat(model, "I hate you")
    ids = list(chat.tokens)
    both = [chat, ids]
    for frame in (
        al.residual_norms(model, both),
        al.placement(model, vector(), both),
        al.dose(model, vector(), both),
    ):
        by_prompt = [part.reset_index(drop=True) for _, part in frame.groupby("prompt_index")]
        same = [
            part.drop(columns=["prompt", "prompt_index"], errors="ignore") for part in by_prompt
        ]
        pd.testing.assert_frame_equal(*same)
    logprobs = al.next_token_logprobs(model, both, vector())
    assert torch.equal(logprobs[0], logprobs[1])
    assert torch.equal(*al.token_logprobs(model, both))
    assert torch.equal(*al.activations(model, both, [1])[1])
    assert al.perplexity_ratio(model, both, vector())["text"].tolist() == ["I hate you", chat.text]
    assert al.answer_ranks(model, [(chat, "love"), (ids, "love")])["prompt"][0] == "I hate you"
    assert len(al.logit_lens(model, chat)) == len(al.logit_lens(model, ids))
    assert torch.equal(
        al.SteeringVector.from_prompt(model, chat, 1).rows,
        al.SteeringVector.from_prompt(model, ids, 1).rows,
    )
    assert al.compare(model, chat, vector(), max_new_tokens=1).clean[0].prompt == "I hate you"
    assert len(al.next_token_shift(model, chat, vector())) == model.cfg.d_vocab
    swept = al.sweep(
        model, (chat, al.chat(model, "I love you")), both, layers=[1], metrics=["kl"],
        controls=[], progress=False,
    )  # fmt: skip
    values = swept.frame[swept.frame["run"] == "steered"]["value"]
    assert values.nunique() == 1
    assert values.notna().all()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"text": TEXT}, "dict with the keys 'text'"),
        (pd.DataFrame({"prompt": [TEXT]}), "DataFrame: give one of its columns"),
        ({TEXT}, "are a set"),
        (b"I", "are a bytes"),
        ([b"I"], "prompt 0 is a bytes"),
        ([], "list of prompts is empty"),
        ([[]], "prompt 0 is a list"),
        ((x for x in (1.5,)), "prompt 0 is a float"),
        ([TEXT, 3], "prompt 1 is a int"),
        ([True, False], "prompt 0 is a bool"),
        ([1, 10**6], "token id 1000000, which is out of range: the vocabulary has"),
        ([-1], "token id -1"),
        (torch.ones(3), "tensor of torch.float32: token ids are integers"),
        (torch.ones(1, 1, 3, dtype=torch.long), r"Tensor \(1, 3\)"),
        (torch.ones(0, dtype=torch.long), "has no tokens"),
        (TURNS, r"prompt 0 is a dict: .*al\.chat"),
        (TURNS[1], r"keys 'role', 'content': .*al\.chat"),
        (None, "prompts are None"),
    ],
)
def test_what_is_not_a_prompt_is_refused(model, given, message):
    with pytest.raises(al.PromptError, match=message):
        al.generate(model, given, max_new_tokens=1)


def test_the_tokenizers_output_is_refused_with_the_remedy(model):
    for output in (model.tokenizer(TEXT), model.tokenizer(TEXT, return_tensors="pt")):
        with pytest.raises(al.PromptError, match=r"BatchEncoding .*encoding\['input_ids'\]"):
            al.next_token_logprobs(model, output)


# BOS


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_bos_is_transformer_lenss_setting(bridge, architecture, monkeypatch):
    model = bridge(architecture)
    default = model.to_tokens("I love")[0].tolist()
    assert [[*ids] for ids in prompts.as_prompts(model, "I love")] == [default]
    assert al.activations(model, "I love", [0])[0][0].shape[0] == len(default)
    bare = model.tokenizer("I love", add_special_tokens=False)["input_ids"]
    for prepend, expected in ((True, [model.tokenizer.bos_token_id, *bare]), (False, bare)):
        monkeypatch.setattr(model.cfg, "default_prepend_bos", prepend)
        assert [[*ids] for ids in prompts.as_prompts(model, "I love")] == [expected]
        equal = al.ContrastPair("I love", "I love").tokens(model)
        assert equal.tolist() == [expected, expected]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("space", ["", " ", "\n"])
def test_bos_that_is_spelt_out_gets_no_second_one(bridge, architecture, space, monkeypatch):
    model = bridge(architecture)
    monkeypatch.setattr(model.cfg, "default_prepend_bos", True)
    text = f"{space}{model.tokenizer.bos_token}I love"
    assert (
        prompts.encode(model, text) == model.tokenizer(text, add_special_tokens=False)["input_ids"]
    )


@pytest.mark.parametrize("prepend", [True, False, None])
def test_load_model_sets_it(checkpoint, prepend):
    model = al.load_model(checkpoint("gpt2"), device="cpu", prepend_bos=prepend)
    ids = prompts.encode(model, "I love")
    assert (ids[0] == model.tokenizer.bos_token_id) == (prepend is not False)
    assert ids == model.to_tokens("I love")[0].tolist()


def test_a_model_without_bos_is_steered_from_its_first_word(bridge, plain):
    model = bridge("qwen2")
    v = al.SteeringVector.from_pair(model, (" love", " hate"), 1)
    ids = model.tokenizer(TEXT)["input_ids"]
    assert len(v.rows) == len(model.tokenizer(" love")["input_ids"])
    assert v.norms()[0] > 0
    [made] = al.generate(model, TEXT, 3 * v, max_new_tokens=4, temperature=0)
    additions = [Addition(1, "resid_pre", 3 * v.rows)]
    assert list(made.tokens) == greedy(plain("qwen2"), "qwen2", ids, 4, additions)
    mean = al.mean_difference(model, [("I love you", "I hate you")], 1)
    assert al.sweep(
        model, {"mean": mean}, [TEXT], metrics=["kl"], controls=["random"], progress=False
    ).frame["value"].notna().all()  # fmt: skip


# The end of a completion


def test_a_completion_ends_at_any_end_token(checkpoint, plain, tmp_path):
    first = al.load_model(checkpoint("llama"), device="cpu")
    written = al.generate(first, TEXT, max_new_tokens=8, temperature=0)[0].tokens
    end = written[3]
    assert end not in written[:3]
    own = transformers.GenerationConfig(eos_token_id=[2, end], bos_token_id=1, pad_token_id=0)
    first.original_model.generation_config = own
    hf = plain("llama")
    ids = first.to_tokens(TEXT)
    expected = hf.generate(ids, generation_config=own, do_sample=False, max_new_tokens=8)
    [made] = al.generate(first, TEXT, max_new_tokens=8, temperature=0)
    assert list(made.tokens) == expected[0, ids.shape[1] :].tolist()
    assert made.text == first.tokenizer.decode(written[:3])
    [whole] = al.generate(first, TEXT, max_new_tokens=8, temperature=0, stop_at_eos=False)
    assert whole.tokens == written


@given(data=st.data())
def test_stop_cuts_the_text_where_it_first_has_one(model, data):
    options = {"samples": 3, "max_new_tokens": 12, "seed": data.draw(st.integers(0, 9))}
    free = al.generate(model, [TEXT, "We love"], stop_at_eos=False, **options)
    text = data.draw(st.sampled_from([c.text for c in free]))
    start = data.draw(st.integers(0, len(text) - 1))
    stops = [text[start : start + data.draw(st.integers(1, 4))], "not there"]
    ended = al.generate(model, [TEXT, "We love"], stop_at_eos=False, stop=stops, **options)
    for whole, cut in zip(free, ended, strict=True):
        at = whole.text.find(stops[0])
        assert cut.text == (whole.text if at < 0 else whole.text[:at])
        n = len(cut.tokens)
        assert cut.tokens == whole.tokens[:n]
        assert cut.logprobs == pytest.approx(whole.logprobs[:n], abs=1e-4)
        if at >= 0:  # the token that completes it is the last
            assert stops[0] in prompts.completion_text(model, [], cut.tokens)
            assert stops[0] not in prompts.completion_text(model, [], cut.tokens[:-1])
    assert ended.provenance["sampling"]["stop"] == tuple(stops)


@pytest.mark.parametrize("stop", ["", [""], ["a", ""]])
def test_a_stop_that_is_not_a_text_is_refused(model, stop):
    with pytest.raises(al.SamplingError, match=r"stop is .* a string, or a list of strings"):
        al.generate(model, TEXT, stop=stop)


def test_stop_is_a_part_of_what_a_store_holds(model, tmp_path):
    def run(stop):
        return al.sweep(
            model, {"v": vector()}, [TEXT], metrics=["words:love"], samples=1, controls=[],
            max_new_tokens=4, stop=stop, store=tmp_path / "store.sqlite", progress=False,
        )  # fmt: skip

    from actadd_lens.metrics import registry

    registry.register("words:love", kind="completions")(lambda cs: [c.text.count("o") for c in cs])
    run("a")
    run("a")
    with pytest.raises(al.SweepFileError):
        run("b")


# Chats


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("first", [0, 1])
def test_a_chat_is_the_models_own_template(chatty, template, architecture, first):
    model, turns = chatty(TEMPLATES[template], architecture), TURNS[first:]
    prompt = al.chat(model, turns)
    assert prompt.text == model.tokenizer.apply_chat_template(
        turns, tokenize=False, add_generation_prompt=True
    )
    found = model.tokenizer.apply_chat_template(turns, add_generation_prompt=True)
    assert list(prompt.tokens) == list(found["input_ids"] if hasattr(found, "keys") else found)
    assert [span.role for span in prompt.spans] == [turn["role"] for turn in turns]
    for (_, start, stop), turn in zip(prompt.spans, turns, strict=True):
        words = turn["content"].strip()
        assert words in model.tokenizer.decode(prompt.tokens[start:stop])
        # No smaller range spells it.
        assert words not in model.tokenizer.decode(prompt.tokens[start + 1 : stop])
        assert words not in model.tokenizer.decode(prompt.tokens[start : stop - 1])
    starts = [span.start for span in prompt.spans]
    assert starts == sorted(set(starts))


def test_text_and_system_are_short_for_messages(chatty):
    model = chatty()
    assert al.chat(model, "Hi", system="Be kind") == al.chat(
        model, [{"role": "system", "content": "Be kind"}, {"role": "user", "content": "Hi"}]
    )
    with pytest.raises(al.PromptError, match="a system message among the messages, and system="):
        al.chat(model, TURNS, system="Be kind")


def test_what_the_template_does_not_take_is_reported(chatty, model):
    with pytest.raises(al.PromptError, match="has no chat template"):
        al.chat(model, "Hi")
    for template, message in (
        (NO_SYSTEM + PLAIN, "does not take the roles system, user: no system.*first user message"),
        (DROPS, "leaves a system message out: put"),
    ):
        assert al.chat(chatty(template), "Hi").spans[0].role == "user"
        with pytest.raises(al.PromptError, match=message):
            al.chat(chatty(template), "Hi", system="Be kind")


@pytest.mark.parametrize(
    "messages", ["", [], [{"role": "user"}], [{"role": "user", "content": ["x"]}]]
)
def test_what_are_not_messages_is_refused(chatty, messages):
    with pytest.raises(al.PromptError, match="message"):
        al.chat(chatty(), messages)


def test_bos_of_a_template_is_not_doubled(chatty):
    for before in ("", "\n"):
        model = chatty(before + TEMPLATES["bos"], "llama")
        for prompt in (al.chat(model, "Hi"), al.chat(model, "Hi").text):
            [ids] = prompts.as_prompts(model, prompt)
            assert ids.count(model.tokenizer.bos_token_id) == 1


# Positions that name tokens


def places_of(model, position, ids, prompt=None):
    """Straight from the definitions, on the decoded text of each token."""
    pieces = [model.tokenizer.decode([token]) for token in ids]
    ends = [len("".join(pieces[: i + 1])) for i in range(len(pieces))]
    if isinstance(position, list):
        return sorted(p % len(ids) for p in position)
    if position == "sink":
        return [0]
    if isinstance(position, str):
        return [p for role, a, b in prompt.spans if role == position for p in range(a, b)]
    whole, found = "".join(pieces), []
    at = whole.find(position.text)
    while at >= 0:
        stop = at + len(position.text)
        found.append([i for i, end in enumerate(ends) if end > at and end - len(pieces[i]) < stop])
        at = whole.find(position.text, stop)
    found = {"first": found[:1], "last": found[-1:], "all": found}[position.which]
    return [place for places in found for place in places]


POSITIONS = [
    [0, -1, 2],
    "sink",
    "user",
    "system",
    "assistant",
    al.find("hate"),
    al.find("ate you", "last"),
    al.find(" you", "all"),
]


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
@pytest.mark.parametrize("position", POSITIONS, ids=str)
def test_one_row_is_added_to_the_tokens_named(chatty, plain, position, architecture):
    model = chatty(PLAIN, architecture)
    chats = [al.chat(model, TURNS), al.chat(model, [TURNS[0], *TURNS[1:3]])]
    v = vector(position=position)
    read = al.next_token_logprobs(model, chats, v)
    for prompt, row in zip(chats, read, strict=True):
        places = places_of(model, position, prompt.tokens, prompt)
        additions = [Addition(1, "resid_pre", v.rows, place) for place in places]
        expected = logits(plain(architecture), architecture, prompt.tokens, additions)[-1]
        torch.testing.assert_close(row, expected.log_softmax(0), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("position", "start"),
    [("user", -1), ("system", 0), (al.find("love"), None), (al.find("you", "last"), None)],
)
def test_several_rows_start_at_the_first_token_named(chatty, position, start):
    prompt = al.chat(chatty(), TURNS)
    frame = al.placement(chatty(), vector(2, position=position), prompt)
    if start is None:
        first = places_of(chatty(), position, prompt.tokens)[0]
    else:
        first = [span for span in prompt.spans if span.role == position][start].start
    assert frame["position"][frame["row"].notna()].tolist() == [first, first + 1]


def test_the_sink_is_given_the_last_row(model):
    v = vector(3)
    assert v.at("sink") == al.SteeringVector(v.rows[-1:], v.hook_point, "sink")
    assert torch.equal(
        al.next_token_logprobs(model, TEXT, v.at("sink")),
        al.next_token_logprobs(model, TEXT, al.SteeringVector(v.rows[-1:], v.hook_point)),
    )


def test_every_intervention_and_condition_takes_them(chatty, plain):
    model = chatty()
    prompt, direction = al.chat(model, "I hate you"), vector().rows[0]
    here = "blocks.1.hook_resid_pre"
    at = [p for _, a, b in prompt.spans for p in range(a, b)]
    for made in (al.Project(direction, here, "user"), al.KeepNorm(vector(position="user"))):
        ids = list(prompt.tokens)
        alone = [made.at(place) for place in at]
        torch.testing.assert_close(
            al.next_token_logprobs(model, prompt, made), al.next_token_logprobs(model, ids, alone)
        )
        json.dumps(as_plain(made.identity()))
    like = al.Similarity(direction, here, -1, position=al.find("hate"))
    judged = al.When(like, vector())
    expected = al.next_token_logprobs(model, prompt, vector())
    assert torch.equal(al.next_token_logprobs(model, prompt, judged), expected)
    json.dumps(as_plain(judged.identity()))
    with pytest.raises(al.PositionError, match="'hate' is not in prompt 0, 'I love you'"):
        al.next_token_logprobs(model, "I love you", judged)


def test_passes_of_a_caller_know_their_tokens(model):
    v = vector(position=al.find("hate"))
    short = "I hate you"
    expected = [al.next_token_logprobs(model, text, v)[0] for text in (TEXT, short)]
    with al.steer(model, v):
        alone = [model(text)[0, -1].log_softmax(0) for text in (TEXT, short)]
        both = model([TEXT, short])
    n = len(prompts.encode(model, short))
    together = [both[0, -1].log_softmax(0), both[1, n - 1].log_softmax(0)]
    hooked = model.run_with_hooks(short, fwd_hooks=al.fwd_hooks(model, v))[0, -1].log_softmax(0)
    for found in (alone, together, [expected[0], hooked]):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    with al.steer(model, v):
        made = model.generate(
            short, max_new_tokens=3, do_sample=False, verbose=False, return_type="tokens"
        )
    assert made[0, n:].tolist() == list(
        al.generate(model, short, v, max_new_tokens=3, temperature=0, stop_at_eos=False)[0].tokens
    )


def test_what_a_prompt_does_not_have_is_named(chatty):
    model = chatty()
    clean = model(TEXT)
    for call in (
        lambda v: al.generate(model, ["I love you", TEXT], v),
        lambda v: al.placement(model, v, ["I love you", TEXT]),
        lambda v: al.token_logprobs(model, ["I love you", TEXT], v),
    ):
        with pytest.raises(al.PositionError, match="'late' is not in prompt 0, 'I love you'"):
            call(vector(position=al.find("late")))
        with pytest.raises(
            al.PositionError, match="prompt 0, 'I love you', is not known as a chat"
        ):
            call(vector(position="user"))
        with pytest.raises(al.PositionError, match=r"prompt 0 has \d tokens .* names token 5"):
            call(vector(position=[0, 5]))
    with pytest.raises(al.PositionError, match="a chat with messages of user alone"):
        al.generate(model, al.chat(model, "Hi"), vector(position="system"))
    with al.steer(model, vector(position="user")), pytest.raises(al.PositionError, match="chat"):
        model(TEXT)
    assert torch.equal(model(TEXT), clean)


@pytest.mark.parametrize("position", [[], [1.5], [True], ["front"], {"text": "x"}, 1.5, None])
def test_what_is_not_a_position_is_refused(position):
    with pytest.raises(al.PositionError, match="unknown position"):
        parse(position)


def test_what_cannot_be_found_is_refused():
    with pytest.raises(al.PositionError, match="find is given ''"):
        al.find("")
    with pytest.raises(al.PositionError, match="which is 'middle': choose 'first'"):
        parse({"text": "x", "which": "middle"})


def test_a_list_takes_one_row():
    with pytest.raises(al.PositionError, match=r"'\[0, 2\]' repeats one row, this vector has 2"):
        vector(2, position=[0, 2])


@pytest.mark.parametrize("position", POSITIONS, ids=str)
def test_positions_survive_a_file(position, tmp_path):
    v = vector().at(position)
    v.save(tmp_path / "v.safetensors")
    loaded = al.SteeringVector.load(tmp_path / "v.safetensors")
    assert loaded == v
    assert hash(loaded) == hash(v)
    assert loaded.provenance == v.provenance
    assert parse(json.loads(json.dumps(parse(v.position).saved))).position == v.position
    json.dumps(as_plain(v.identity()))


def test_a_sweep_goes_over_them(chatty, tmp_path):
    model = chatty()
    chats = [al.chat(model, "I hate you"), al.chat(model, "They hate us")]
    positions = ["user", "sink", al.find("hate"), [0, -1]]
    result = al.sweep(
        model, {"v": vector()}, chats, positions=positions, metrics=["kl"], controls=["random"],
        progress=False, store=tmp_path / "run.sqlite",
    )  # fmt: skip
    frame = result.frame[result.frame["run"] == "steered"]
    assert frame["position"].unique().tolist() == ["user", "sink", "find('hate')", "[0, -1]"]
    assert frame["prompt"].unique().tolist() == ["I hate you", "They hate us"]
    clean = al.next_token_logprobs(model, chats)
    for position in positions:
        steered = al.next_token_logprobs(model, chats, vector(position=position))
        expected = (steered.exp() * (steered - clean)).sum(dim=1)
        here = frame[frame["position"] == parse(position).label]["value"]
        assert here.tolist() == pytest.approx(expected.tolist(), abs=1e-4)
    result.save(tmp_path / "run.parquet")
    pair = al.sweep(
        model, (" love", " hate"), chats, layers=[1], positions=["front", "sink", "user"],
        metrics=["kl"], controls=["prompted"], progress=False,
    )  # fmt: skip
    assert pair.frame["value"].notna().all()
    assert pair.best("kl", test_prompts=[al.chat(model, "You hate me")]).test is not None


def test_completions_of_a_chat_in_a_batch_are_those_alone(chatty):
    model = chatty()
    chats = [al.chat(model, TURNS), al.chat(model, "I hate you"), al.chat(model, TURNS[1:])]
    v = vector(position="user")
    together = al.generate(model, chats, v, max_new_tokens=5, temperature=0)
    for prompt, made in zip(chats, together, strict=True):
        [alone] = al.generate(model, prompt, v, max_new_tokens=5, temperature=0)
        assert alone.tokens == made.tokens


# Pairs


def test_two_chats_are_a_pair_and_agree_up_to_the_first_difference(chatty, plain):
    model = chatty()
    pair = tuple(al.chat(model, "Hi", system=f"You {word} us") for word in ("love", "hate"))
    tokens = al.ContrastPair(*pair).tokens(model)
    assert tokens.tolist() == [list(side.tokens) for side in pair]
    v = al.SteeringVector.from_pair(model, pair, 1)
    differ = int((tokens[0] != tokens[1]).nonzero()[0])
    assert not v.norms()[:differ].any()
    assert v.norms()[differ] > 0
    assert (v.provenance["positive"], v.provenance["negative"]) == ("You love us", "You hate us")
    assert al.mean_difference(model, [pair], 1).rows.any()
    ids = tuple(list(side.tokens) for side in pair)
    assert al.SteeringVector.from_pair(model, ids, 1) == v
    assert hash(al.ContrastPair(*ids)) == hash(al.ContrastPair(*map(torch.tensor, ids)))


@pytest.mark.parametrize(("positive", "negative"), [("I love you", "I"), ("I love", "I love")])
def test_sides_that_do_not_correspond_warn_with_both(model, positive, negative):
    with pytest.warns(al.AlignmentWarning) as caught:
        al.ContrastPair(positive, negative, pad=0).tokens(model)
    assert str(prompts.token_texts(model, prompts.encode(model, positive))) in str(
        caught[0].message
    )
    assert str(prompts.token_texts(model, prompts.encode(model, negative))) in str(
        caught[0].message
    )


def test_sides_that_correspond_do_not_warn(model):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        al.ContrastPair("I love you", "I hate you").tokens(model)


def test_chats_with_the_same_last_message_are_prompts_of_their_own(chatty):
    model = chatty()
    chats = [al.chat(model, "I love you", system=text) for text in ("Be kind", "Be rude")]
    frame = al.sweep(
        model, {"v": vector()}, [*chats, chats[0]], metrics="kl", controls=(), progress=False
    ).frame
    labels = frame[frame["run"] == "steered"].sort_values("prompt_index")["prompt"].tolist()
    assert labels == ["I love you", "I love you [2]", "I love you"]


def test_tokens_of_another_model_are_refused(chatty, bridge):
    with pytest.raises(al.PromptError, match="another model"):
        al.generate(bridge("llama"), al.chat(chatty(), "I love you"))


def test_the_best_position_can_be_steered_at(model):
    found = al.find("you")
    result = al.sweep(
        model, {"v": vector()}, ["I love you"], positions=[found, [1, 2]], metrics="kl",
        controls=(), progress=False,
    )  # fmt: skip
    best = result.best("kl", test_prompts=["She hates you"])
    assert best.position in (found, (1, 2))
    assert vector().at(best.position).position == best.position
