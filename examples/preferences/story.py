"""Makes the evidence: five raters, a collection, a training run, evaluations, a release, and twenty answers."""

import os
import warnings
from dataclasses import asdict
from pathlib import Path

import torch
from datasets import Dataset, disable_progress_bars
from recipe import build
from transformers import PrinterCallback
from transformers import logging as transformers_logging
from trl import DPOConfig, DPOTrainer
from wines import answer, load, preferred, questions, scores, tokenizer

import counterfoil
from counterfoil import Key, Record, Run, Session, alignment
from counterfoil.interop import export_checkpoint
from counterfoil.torch import commit_dataset, commit_parameters
from counterfoil.torch.hf import Callback

STEPS, RATE = 45, 2e-3
ASKED, RATED = questions()[:20], questions()[58:]
HELD_OUT = questions()[20:58]


def rate(folder, owner):
    """Each rater signs 28 pairs in a lane of their own, 4 of which the next rater signs, too; one takes two back."""
    with Run.create(folder, key=owner, spec={"asked": "which cultivar the measurements are of"}):
        pass
    raters = [Key.generate() for _ in range(5)]
    for number, key in enumerate(raters):
        mine = [RATED[at % len(RATED)] for at in range(24 * number, 24 * number + 28)]
        pairs = list(dict.fromkeys(preferred(*each, 1) for each in mine))
        with Run.join(folder, lane=0, key=key, observes=True) as lane:
            alignment.sign_preferences(lane, pairs)
            if number == 2:
                alignment.sign_preferences(lane, pairs[:-2])
    with Run.open(folder, key=owner) as run:
        return alignment.collect(run, [key.address for key in raters]).digest


def train(folder, owner, preferences, collection, pairs=None, fed=None):
    """TRL's DPO on the collected pairs; the run's id depends on the collection."""
    signed = [each.pair for each in alignment.collected(preferences, collection)]
    dataset = [asdict(pair) for pair in pairs or signed]
    batches = Dataset.from_list([asdict(pair) for pair in fed or pairs or signed])
    words = tokenizer()
    spec = {
        "vocabulary": len(words), "rate": RATE, "preferences": alignment.pin(preferences, collection),
    }  # fmt: skip
    arguments = DPOConfig(
        str(folder.with_name("out")), max_steps=STEPS, per_device_train_batch_size=16, learning_rate=RATE,
        lr_scheduler_type="constant", use_cpu=True, bf16=False, report_to=[],
        save_strategy="no", logging_strategy="no", disable_tqdm=True, seed=1,
        activation_checkpointing=False,
    )  # fmt: skip
    recipe = Path(__file__).with_name("recipe.py")
    # The owner's key signs twice; a session's key signs the steps.
    session = Session(Key.generate())
    model, reference = build(len(words)), build(len(words))
    with Run.create(
        folder, key=owner, session=session, spec=spec, recipe=recipe, dataset=commit_dataset(dataset)
    ) as run:
        trainer = DPOTrainer(
            model, reference, arguments, train_dataset=batches, processing_class=words,
            callbacks=[Callback(run, checkpoint_every=15, every=15)],
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        trainer.train()


def evaluate(folder, weights, evaluators):
    """Two evaluators measure the last checkpoint on wines that nobody rated, and the owner releases it."""
    model = load(weights)
    margins = []
    for question, cultivar in HELD_OUT:
        found = scores(model, question)
        margins.append(found[cultivar] - max(each for at, each in enumerate(found) if at != cultivar))
    right = sum(margin > 0 for margin in margins) / len(margins)
    metrics = {"accuracy": right, "margin": sum(margins) / len(margins), "questions": len(margins)}
    checkpoint = last_checkpoint(folder)
    evaluations = []
    for key in evaluators:
        # In the form of the training run's samples, so that a leak would show.
        held_out = commit_dataset([asdict(preferred(*each, 1)) for each in HELD_OUT])
        with Run.join(folder, lane=0, key=key, observes=True) as lane:
            evaluations.append(
                alignment.record_evaluation(lane, checkpoint, held_out=held_out, metrics=metrics)
            )
    return evaluations


def last_checkpoint(folder):
    return [each for each in Record(folder).receipts() if each.kind == "checkpoint"][-1]


def release(folder, owner, evaluations, lane=1):
    with Run.join(folder, lane=lane, key=owner, observes=True) as run:
        return alignment.record_release(run, last_checkpoint(folder), evaluations)


def serve(folder, owner, released, model):
    """Twenty questions are answered; each answer leaves a receipt that names the release."""
    with Run.join(folder, lane=2, key=owner, observes=True) as run:
        for number, (question, _) in enumerate(ASKED):
            loaded = None if number else commit_parameters(model)
            alignment.record_output(run, released, question, answer(model, question), parameters=loaded)


def make(folder):
    """The whole story; returns what a stranger has to learn from its people: the owner, and the recipe they read."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # transformers warns of an option that TRL sets.
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    transformers_logging.set_verbosity_error()
    disable_progress_bars()
    owner = Key.generate()
    preferences, training, weights = folder / "preferences", folder / "training", folder / "weights"
    collection = rate(preferences, owner)
    train(training, owner, preferences, collection)
    export_checkpoint(training, weights)
    evaluations = evaluate(training, weights / "model.safetensors", [Key.generate(), Key.generate()])
    released = release(training, owner, evaluations)
    serve(training, owner, released, load(weights / "model.safetensors"))
    return owner, counterfoil.Record(training).recipe_digest
