"""Fine-tuning a model directory of Hugging Face's layout: all of it, LoRA's matrices or the head, and how often its
features are updated.

The directory, `config.json` and `model.safetensors`, is a small ViT's, made on the spot: trained on Fashion-MNIST's
first five classes. `ViTForImageClassification.from_pretrained` reads it, and it is fine-tuned on few examples of the
other five classes. Its new head is trained alone first (Kumar et al. 2022, arXiv:2202.10054): with a head of zeros the
outputs do not depend on the features to first order, and a network that is linearised there trains its head alone.
`Linearised` takes the model's place in the loop; LoRA is PEFT's, and what it trained is saved in PEFT's layout
(`adapter_model.safetensors`). Any other directory of that layout goes the same way.

Needs `pip install 'relin[torch]' transformers peft`.
"""

import argparse
import tempfile
from pathlib import Path
from statistics import mean, stdev

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import ViTConfig, ViTForImageClassification

import relin as il
from relin.torch import Linearised

CLASSES = 5
SIZES = {"image_size": 28, "patch_size": 7, "num_channels": 1}
SIZES |= {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 96}
LORA = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], modules_to_save=["classifier"])
PERIODS = {"1": il.Every(1), "32": il.Every(32), "∞": il.Never()}


def everything(model):
    return model


def head(model):
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.startswith("classifier")
    return model


def lora(model):
    return get_peft_model(model, LORA)


PARTS = {"all": everything, "LoRA and head": lora, "head": head}
WAYS = [(part, period) for part in PARTS for period in PERIODS if part != "head" or period == "1"]
"""A head alone is linear in its parameters: its K says nothing."""


def examples(part, first, number=None, seed=0):
    """Images and labels of five classes."""
    chosen = ((part.y >= first) & (part.y < first + CLASSES)).nonzero()[0]
    if number is not None:
        order = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(seed))
        chosen = chosen[order[:number].numpy()]
    images = torch.tensor(part.x[chosen]).reshape(-1, 1, 28, 28)
    return images.float(), torch.tensor(part.y[chosen]).long() - first


def trained(model, data, steps, rate, seed):
    """The loop of anyone's: Adam, a rate that falls linearly, batches of 32."""
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], rate)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, steps)
    if isinstance(model, Linearised):
        model.attach(optimiser)  # the line that `Linearised` asks for
    order = torch.Generator().manual_seed(seed)
    model.train()
    for _ in range(steps):
        batch = torch.randint(len(data[1]), (32,), generator=order)
        optimiser.zero_grad()
        model(pixel_values=data[0][batch], labels=data[1][batch]).loss.backward()
        optimiser.step()
        scheduler.step()
    return model


@torch.no_grad()
def accuracy(model, data):
    """In %; of a `Linearised` model that of f̄."""
    model.eval()
    logits = torch.cat([model(pixel_values=part).logits for part in data[0].split(500)])
    return 100 * float((logits.argmax(1) == data[1]).float().mean())


def directory(folder, data, steps, seed):
    """What one would have downloaded."""
    torch.manual_seed(seed)
    model = ViTForImageClassification(ViTConfig(num_labels=CLASSES, **SIZES))
    trained(model, data, steps, 1e-3, seed).save_pretrained(folder)


def with_a_head(checkpoint, folder, data, steps, seed):
    """The checkpoint with a head for the new classes, which was trained alone."""
    model = ViTForImageClassification.from_pretrained(checkpoint)
    torch.nn.init.zeros_(model.classifier.weight)
    torch.nn.init.zeros_(model.classifier.bias)
    trained(head(model), data, steps, 1e-2, seed).save_pretrained(folder)


def fine_tuned(folder, part, schedule, data, steps, rate, seed):
    torch.manual_seed(seed + 1)
    model = ViTForImageClassification.from_pretrained(folder)
    model = Linearised(PARTS[part](model), schedule)
    return trained(model, data, steps, rate, seed)


def through_a_file(model, folder, checkpoint):
    """What was trained, saved in PEFT's layout and put on the checkpoint again."""
    model.save_pretrained(folder)
    base = ViTForImageClassification.from_pretrained(checkpoint)
    return PeftModel.from_pretrained(base, folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=500, help="to fine-tune on")
    parser.add_argument("--steps", type=int, default=300, help="of fine-tuning; three times as many of pre-training")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rates", type=float, nargs="+", default=[3e-2, 1e-2, 3e-3, 1e-3])
    options = parser.parse_args()
    torch.set_num_threads(1)
    dataset = il.datasets.load("fashion-mnist")
    validation = examples(dataset.validation, CLASSES, 1000)
    test = examples(dataset.test, CLASSES)
    found = {}
    for seed in range(options.seeds):
        data = examples(dataset.train, CLASSES, options.examples, seed)
        with tempfile.TemporaryDirectory() as folder:
            checkpoint, start, adapter = (Path(folder) / name for name in ("checkpoint", "start", "adapter"))
            directory(checkpoint, examples(dataset.train, 0), 3 * options.steps, seed)
            with_a_head(checkpoint, start, data, options.steps, seed)
            for part, period in WAYS:
                models = {
                    rate: fine_tuned(start, part, PERIODS[period], data, options.steps, rate, seed)
                    for rate in options.rates
                }
                rate = max(models, key=lambda rate: accuracy(models[rate], validation))
                model = models[rate]
                module = model.merged()
                if isinstance(module, PeftModel):
                    module = through_a_file(module, adapter, start)
                row = accuracy(module, test), accuracy(model, test), model.feature_updates, rate
                found.setdefault((part, period), []).append(row)
    print("| trained | K | of the network, % | of the linearised network, % | feature updates | rates |")
    print("|---|---|---|---|---|---|")
    for (part, period), rows in found.items():
        *accuracies, updates, rates = zip(*rows, strict=True)
        cells = [f"{mean(each):.1f}" + (f" ± {stdev(each):.1f}" if len(each) > 1 else "") for each in accuracies]
        chosen = ", ".join(f"{rate:g}" for rate in sorted(set(rates)))
        print(f"| {part} | {period} | {' | '.join(cells)} | {max(updates)} | {chosen} |")


if __name__ == "__main__":
    main()
