"""Questions about real wines, a tokenizer for them, and how a model answers."""

import torch
from recipe import build
from safetensors.torch import load_file
from sklearn.datasets import load_wine
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from counterfoil.alignment import Pair

CULTIVARS = (" cultivar A", " cultivar B", " cultivar C")


MEASURED = ("alcohol", "flavanoids", "color_intensity", "hue", "proline")
FIFTHS = ("lowest", "low", "middle", "high", "highest")


def questions():
    """What is asked of each wine, with the number of its cultivar; in an order that mixes them."""
    wine = load_wine()
    told = [[] for _ in wine.target]
    for name in MEASURED:
        column = wine.data[:, wine.feature_names.index(name)]
        # Fifths of each measurement as words: a tiny model learns them in seconds.
        for row, fifth in enumerate((column.argsort().argsort() * 5) // len(column)):
            told[row].append(f"{name}-{FIFTHS[fifth]}")
    order = torch.randperm(len(told), generator=torch.Generator().manual_seed(7)).tolist()
    return [(" ".join(told[at]), int(wine.target[at])) for at in order]


def preferred(question, cultivar, wrong):
    return Pair(question, CULTIVARS[cultivar], CULTIVARS[(cultivar + wrong) % 3])


def tokenizer():
    texts = [question for question, _ in questions()] + list(CULTIVARS)
    words = sorted({word for text in texts for word in text.split()})
    known = {word: number for number, word in enumerate(["<pad>", "<end>", *words])}
    plain = Tokenizer(models.WordLevel(known))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="<pad>", eos_token="<end>")


def load(path):
    """The model in a file of released weights."""
    model = build(len(tokenizer()))
    weights = load_file(path)
    model.load_state_dict({name: weights[name] for name in model.state_dict()})
    return model.eval()


def scores(model, question):
    """The log-probability of each cultivar as the answer."""
    words = tokenizer()
    found = []
    for answer in CULTIVARS:
        prompt, whole = words(question)["input_ids"], words(question + answer)["input_ids"]
        with torch.no_grad():
            logits = model(torch.tensor([whole])).logits[0].log_softmax(dim=-1)
        found.append(sum(logits[at - 1, whole[at]].item() for at in range(len(prompt), len(whole))))
    return found


def answer(model, question):
    found = scores(model, question)
    return CULTIVARS[found.index(max(found))].strip()
