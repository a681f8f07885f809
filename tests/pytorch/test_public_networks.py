"""Public architectures, built by their packages with random weights: K = 1 is their own training, K > 1 is relin's."""

import jax
import numpy as np
import optax
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

import relin as il
from relin.torch import Linearised

KEY = jax.random.key(0)
STEPS, CLASSES = 5, 3
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated"),  # by PyTorch's own forward mode
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of the packages, at their import
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def resnet18():
    import torchvision

    return torchvision.models.resnet18(num_classes=CLASSES)


def vit_tiny():
    import timm

    return timm.create_model("vit_tiny_patch16_224", img_size=16, patch_size=8, depth=2, num_classes=CLASSES)


def gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    none = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    return GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=16, n_head=2, vocab_size=11, n_positions=8, **none, **ends))


def bert():
    from transformers import BertConfig, BertForSequenceClassification

    none = dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), 0.0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "max_position_embeddings": 8, "vocab_size": 11}
    heads = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_labels": CLASSES}
    return BertForSequenceClassification(BertConfig(**sizes, **heads, **none))


def images(rng):
    return rng.normal(size=(4, 3, 16, 16)), rng.integers(0, CLASSES, 4)


def tokens(rng):
    return {"input_ids": rng.integers(0, 11, (4, 7))}, rng.integers(0, CLASSES, 4)


def last_token(outputs):
    return outputs.logits[:, -1]


NETWORKS = {
    "torchvision's ResNet-18": (resnet18, images, None),
    "timm's ViT-Tiny": (vit_tiny, images, None),
    "Hugging Face's GPT-2": (gpt2, tokens, last_token),
    "Hugging Face's BERT": (bert, tokens, lambda outputs: outputs.logits),
}


def made(build):
    torch.manual_seed(0)
    return build().double().train()


def batches(draw):
    rng = np.random.default_rng(0)
    return [draw(rng) for _ in range(STEPS)]


def trained(model, data, chosen):
    """AdamW with weight decay, on the loss outside the module."""
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.1, eps=1e-4)
    if isinstance(model, Linearised):
        model.attach(optimizer)
    for x, y in data:
        optimizer.zero_grad()
        if isinstance(x, dict):
            outputs = model(**{name: torch.from_numpy(array) for name, array in x.items()}, use_cache=False)
        else:
            outputs = model(torch.from_numpy(x))
        F.cross_entropy(outputs if chosen is None else chosen(outputs), torch.from_numpy(y)).backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("network", NETWORKS)
def test_every_step_is_the_networks_own_training(network):
    build, draw, chosen = NETWORKS[network]
    own, mine = (
        trained(made(build), batches(draw), chosen),
        trained(Linearised(made(build), il.Every(1)), batches(draw), chosen),
    )
    assert mine.feature_updates == STEPS - 1
    for (name, tensor), other in zip(own.state_dict().items(), mine.state_dict().values(), strict=True):
        assert torch.equal(tensor, other), name


@pytest.mark.parametrize("network", NETWORKS)
def test_rarer_updates_are_relins_through_from_torch(network):
    build, draw, chosen = NETWORKS[network]
    model = trained(Linearised(made(build), il.Every(3)), batches(draw), chosen)
    assert model.feature_updates == 1
    assert model.derivatives == {True: "forward"}
    statistics = "batch" if any("running_mean" in name for name in model.state_dict()) else None
    apply, params = il.from_torch(made(build), statistics=statistics, output=chosen)
    solver = il.WeightSpace(optax.adamw(1e-3, weight_decay=0.1, eps=1e-4))
    problem = il.Problem(apply, il.CrossEntropy())
    solution = il.train(problem, solver, il.Every(3), params, batches(draw), num_steps=STEPS, key=KEY)
    if statistics:
        apply = apply.with_variables(solution.variables)
    far = 0.0
    for name, tensor in apply.state_dict(solution.params).items():
        other = model.state_dict()[name]
        np.testing.assert_allclose(other, tensor, rtol=1e-6, atol=1e-8, err_msg=name)
        far = max(far, float((other - made(build).state_dict()[name]).abs().max()))
    assert far > 1e-3


@pytest.mark.parametrize("network", ["Hugging Face's GPT-2", "Hugging Face's BERT"])
def test_losses_inside_are_of_the_linearised_logits(network):
    build, draw, _ = NETWORKS[network]
    inside, outside = (Linearised(made(build), il.Every(3)) for _ in range(2))
    optimizers = [torch.optim.SGD(model.parameters(), 0.05) for model in (inside, outside)]
    for x, y in batches(draw):
        ids = torch.from_numpy(x["input_ids"])
        labels = ids if build is gpt2 else torch.from_numpy(y)
        loss = inside(input_ids=ids, labels=labels, use_cache=False).loss
        logits = outside(input_ids=ids, use_cache=False).logits
        if build is gpt2:  # the next token
            logits, labels = logits[:, :-1].reshape(-1, 11), labels[:, 1:].reshape(-1)
        for model, optimizer, value in zip(
            (inside, outside), optimizers, (loss, F.cross_entropy(logits.float(), labels)), strict=True
        ):
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            model.step()
    for mine, other in zip(inside.parameters(), outside.parameters(), strict=True):
        np.testing.assert_allclose(mine.detach(), other.detach(), rtol=1e-5, atol=1e-6)
