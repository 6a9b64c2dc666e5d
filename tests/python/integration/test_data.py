"""Which samples were used at which step, shown by evidence alone."""

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, Subset, TensorDataset

import counterfoil
import oracle
from counterfoil.errors import InvalidInput, Refuted
from counterfoil.torch import commit_dataset, sample_digest
from training import entry

SIZE, BATCH = 24, 4


def data():
    generator = torch.Generator().manual_seed(4)
    inputs = torch.randn(SIZE, 3, generator=generator)
    inputs[17] = inputs[5]  # one person, twice
    targets = torch.arange(SIZE) % 2
    targets[17] = targets[5]
    return TensorDataset(inputs, targets)


class Stream(IterableDataset):
    """Gives some of the samples, in its own order."""

    def __init__(self, order):
        self.order, self.data = order, data()

    def __iter__(self):
        worker = torch.utils.data.get_worker_info()
        step = 1 if worker is None else worker.num_workers
        for place in self.order[0 if worker is None else worker.id :: step]:
            yield self.data[place]


def record(path, loader, *, dataset=None, epochs=1, stop=None, policy=None):
    """Trains and returns, by step, which samples the test itself saw go in."""
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    known = {sample_digest(sample): place for place, sample in reversed(list(enumerate(data())))}
    seen = []
    with counterfoil.Run.create(path, dataset=dataset, policy=policy) as run:
        run.attach(model, optimizer, every=0, checkpoint_every=0)
        for _ in range(epochs):
            for batch in run.batches(loader):
                x, y = batch.values() if isinstance(batch, dict) else batch
                torch.nn.functional.cross_entropy(model(x), y).backward()
                optimizer.step()
                optimizer.zero_grad()
                seen.append({known[sample_digest(pair)] for pair in zip(x, y, strict=True)})
                if len(seen) == stop:
                    return seen
    return seen


def used(seen, place):
    return [step for step, places in enumerate(seen, 1) if (5 if place == 17 else place) in places]


class ByName(torch.utils.data.Dataset):
    """A map-style dataset of mappings, as those of Hugging Face are."""

    def __len__(self):
        return SIZE

    def __getitem__(self, index):
        x, y = data()[index]
        return {"x": x, "y": y}

    def __getitems__(self, indices):
        return [self[index] for index in indices]


LOADERS = {
    "shuffled": lambda: DataLoader(data(), batch_size=BATCH, shuffle=True),
    "workers": lambda: DataLoader(
        data(), batch_size=BATCH, shuffle=True, num_workers=2, multiprocessing_context="fork"
    ),
    "persistent workers": lambda: DataLoader(
        data(),
        batch_size=BATCH,
        shuffle=True,
        num_workers=2,
        persistent_workers=True,
        multiprocessing_context="fork",
    ),
    "weighted": lambda: DataLoader(
        data(), batch_size=BATCH, sampler=torch.utils.data.WeightedRandomSampler(torch.ones(SIZE), 15)
    ),
    "batch sampler": lambda: DataLoader(data(), batch_sampler=BatchSampler(range(3, 20), 3, drop_last=False)),
    "mappings": lambda: DataLoader(ByName(), batch_size=BATCH, shuffle=True),
    "stream": lambda: DataLoader(Stream([1, 5, 9, 17, 2, 2, 8, 4]), batch_size=2),
    "stream and workers": lambda: DataLoader(
        Stream([1, 5, 9, 17, 2, 2, 8, 4]), batch_size=2, num_workers=2, multiprocessing_context="fork"
    ),
    "a list": lambda: [data()[[0, 5]], data()[[3, 4]]],
}


@pytest.mark.parametrize("kind", LOADERS)
def test_each_use_is_shown_and_so_is_that_there_was_none(tmp_path, kind):
    """A sample counted under another's index, or one that workers drew and nobody consumed."""
    loader = LOADERS[kind]()
    dataset = commit_dataset(ByName() if kind == "mappings" else data())
    seen = record(tmp_path / "run", loader, dataset=dataset, epochs=2)
    bundle = tmp_path / "x.counterfoil"
    counterfoil.export(tmp_path / "run", bundle, tensors=["dataset", "samples"])
    for source in (tmp_path / "run", bundle):
        for place in range(SIZE):
            found = counterfoil.uses(source, place)
            assert [step for _, _, step in found.steps] == used(seen, place), place
            assert found.places == ((5, 17) if place in (5, 17) else (place,))
            assert found.gaps == () and found.shown == found.recorded == len(seen)
    absent = next(iter(set(range(SIZE)) - set().union(*seen) - {17}), None)
    if absent is not None:
        assert (
            str(counterfoil.uses(bundle, absent)) == f"never used in the {len(seen)} steps of the lanes shown"
        )
    if kind != "mappings":
        assert counterfoil.uses(bundle, sample_digest(data()[2])).places == (2,)


def test_batches_that_workers_drew_and_nobody_consumed_are_not_used(tmp_path):
    loader = DataLoader(
        data(), batch_size=BATCH, num_workers=2, prefetch_factor=2, multiprocessing_context="fork"
    )
    record(tmp_path / "run", loader, dataset=commit_dataset(data()), stop=2)
    assert [bool(counterfoil.uses(tmp_path / "run", place).steps) for place in (0, 7, 8, 20)] == [
        True,
        True,
        False,
        False,
    ]


def test_what_is_not_shown_is_never_called_unused(tmp_path):
    """An exclusion drawn from a bundle that shows a part, or from a dataset that nobody committed."""
    loader = DataLoader(data(), batch_size=BATCH)
    seen = record(tmp_path / "run", loader, dataset=commit_dataset(data()))
    counterfoil.export(tmp_path / "run", tmp_path / "some", steps=[1, 2], tensors=["dataset", "samples"])
    some = counterfoil.uses(tmp_path / "some", 20)
    assert some.steps == () and "withheld" in some.gaps[0] and str(some).startswith("not seen")
    counterfoil.export(tmp_path / "run", tmp_path / "sealed", tensors=["dataset"])
    sealed = counterfoil.uses(tmp_path / "sealed", 20)
    assert sealed.shown == 0 and f"the samples of {len(seen)} of {len(seen)} steps" in sealed.gaps
    counterfoil.export(tmp_path / "run", tmp_path / "places", tensors=["samples"])
    places = counterfoil.uses(tmp_path / "places", 20)
    assert [step for _, _, step in places.steps] == used(seen, 20) and places.gaps
    by_content = counterfoil.uses(tmp_path / "places", sample_digest(data()[20]))
    assert by_content.steps == () and by_content.gaps
    with pytest.raises(InvalidInput, match="there is none at 24"):
        counterfoil.uses(tmp_path / "run", SIZE)
    with pytest.raises(InvalidInput, match="32 bytes"):
        counterfoil.uses(tmp_path / "run", b"short")


def test_a_part_of_the_dataset_is_known_by_its_places_in_the_whole(tmp_path):
    """An index counted within the part names somebody else."""
    part = Subset(Subset(data(), range(4, 20)), [3, 1, 8, 9])  # places 7, 5, 12, 13
    record(tmp_path / "run", DataLoader(part, batch_size=2), dataset=commit_dataset(data()))
    used_at = {
        place: [step for _, _, step in counterfoil.uses(tmp_path / "run", place).steps]
        for place in range(SIZE)
    }
    assert {place: steps for place, steps in used_at.items() if steps} == {
        7: [1],
        5: [1],
        17: [1],
        12: [2],
        13: [2],
    }


def test_two_loops_over_one_loader_keep_their_samples_apart(tmp_path):
    loader = DataLoader(data(), batch_size=BATCH, num_workers=1, multiprocessing_context="fork")
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with counterfoil.Run.create(tmp_path / "run", dataset=commit_dataset(data())) as run:
        run.attach(model, optimizer)
        first, second = iter(run.batches(loader)), None
        for _ in range(2):
            model(next(first)[0]).sum().backward()
            optimizer.step()
        second = iter(run.batches(loader))
        for batches in (second, first):
            model(next(batches)[0]).sum().backward()
            optimizer.step()
    found = {p: [step for _, _, step in counterfoil.uses(tmp_path / "run", p).steps] for p in (0, 4, 8)}
    assert found == {0: [1, 3], 4: [2], 8: [4]}


def test_a_log_that_is_cut_shows_no_exclusion(tmp_path):
    loader = DataLoader(data(), batch_size=BATCH)
    record(tmp_path / "run", loader, dataset=commit_dataset(data()))
    (journal,) = (tmp_path / "run").glob("workers/*/0/journal")
    content, at, steps = journal.read_bytes(), 0, 0
    while steps < 3:
        size = 16 + int.from_bytes(content[at : at + 4], "big")
        steps += content[at + 16 : at + 19] == b"R\x00\x03"
        at += size
    journal.write_bytes(content[:at])
    found = counterfoil.uses(tmp_path / "run", 20)
    assert found.steps == () and any("not closed" in gap for gap in found.gaps)
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with counterfoil.Run.create(tmp_path / "other", dataset=commit_dataset(data())) as run:
        run.attach(model, optimizer)
        for number, (x, _) in enumerate(run.batches(loader)):
            model(x).sum().backward()
            optimizer.step()
            if number == 2:
                run.tree_head()  # heads speak of what was there, not of all
    counterfoil.export(run.path, tmp_path / "x", steps=[1, 3, 4, 5, 6], tensors=["dataset", "samples"])
    found = counterfoil.uses(tmp_path / "x", 6)
    assert found.steps == () and any("receipts that were withheld" in gap for gap in found.gaps)


@pytest.mark.parametrize(
    "samples",
    [
        {"0/index": np.arange(4, dtype=np.int32)},
        {"0/index": np.arange(3, dtype=np.int16)},
        {"0/index": np.zeros(0, np.int64)},
        {"0/content": np.zeros((0, 32), np.uint8)},
        {"0/content": np.zeros((2, 31), np.uint8)},
        {"0/other": 1},
        {"0/index": np.arange(4), "1/index": None},
    ],
)
def test_lists_of_another_form_are_named_and_exclude_nothing(tmp_path, samples):
    with counterfoil.Run.create(tmp_path / "run", dataset=commit_dataset(data())) as run:
        run.record_policy(1, {"samples": 1})
        run.record_step(1, {"samples": counterfoil.commit_tensors(samples, keep=True)})
    assert any("no list of samples" in gap for gap in counterfoil.uses(tmp_path / "run", 9).gaps)
    strange = counterfoil.commit_tensors({"content": np.zeros(24, np.uint8)}, keep=True)
    with counterfoil.Run.create(tmp_path / "strange", dataset=strange) as run:
        pass
    assert "no dataset is committed or shown" in counterfoil.uses(run.path, 9).gaps[0]
    with pytest.raises(InvalidInput, match="32 bytes"):
        counterfoil.uses(run.path, "17")


def test_training_on_what_the_committed_dataset_does_not_have_is_named(tmp_path):
    strange = [(torch.full((2, 3), 9.0), torch.tensor([0, 1]))]
    record_strange(tmp_path / "content", strange)
    found = counterfoil.uses(tmp_path / "content", 3)
    assert found.steps == () and "a content that the committed dataset does not have" in found.gaps[0]


def record_strange(path, loader):
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with counterfoil.Run.create(path, dataset=commit_dataset(data())) as run:
        run.attach(model, optimizer)
        for x, y in run.batches(loader):
            torch.nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()


def test_fed_by_hand_is_not_called_unused(tmp_path):
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with counterfoil.Run.create(
        tmp_path / "run", dataset=commit_dataset(data()), policy={"samples": 1}
    ) as run:
        run.attach(model, optimizer)
        model(data()[3][0]).sum().backward()
        optimizer.step()
    assert "nothing that is recorded" in counterfoil.uses(tmp_path / "run", 3).gaps[0]


def test_a_changed_sample_list_is_refuted(tmp_path):
    record(tmp_path / "run", DataLoader(data(), batch_size=BATCH), dataset=commit_dataset(data()))
    (journal,) = (tmp_path / "run").glob("workers/*/0/journal")
    content = journal.read_bytes()
    indices = np.arange(4, 8, dtype=np.int64).tobytes()
    assert content.count(indices) == 1
    journal.write_bytes(content.replace(indices, np.arange(5, 9, dtype=np.int64).tobytes()))
    with pytest.raises((Refuted, counterfoil.errors.CorruptJournal)):
        counterfoil.uses(tmp_path / "run", 4)


def test_a_samples_digest_is_the_documented_root():
    sample = (torch.randn(2, 3), torch.tensor(4.0))
    expected = oracle.state_root([entry("0", sample[0]), entry("1", sample[1])])
    assert sample_digest(sample) == expected
    assert sample_digest({"x": np.ones(3, np.float32)}) == sample_digest({"x": torch.ones(3)})
    with pytest.raises(InvalidInput, match="object"):
        sample_digest((torch.ones(1), object()))
    with pytest.raises(InvalidInput, match="no sample"):
        commit_dataset([])


def test_the_loader_is_left_as_it_was(tmp_path):
    """Recording draws no randomness of its own, and the user's loader keeps its sampler."""
    loader = DataLoader(data(), batch_size=BATCH, shuffle=True)
    sampler = loader.batch_sampler
    torch.manual_seed(5)
    plain = [x.clone() for x, _ in loader]
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with counterfoil.Run.create(tmp_path / "run") as run:
        run.attach(model, optimizer)
        torch.manual_seed(5)
        recorded = []
        for x, _ in run.batches(loader):
            recorded.append(x.clone())
            model(x).sum().backward()
            optimizer.step()
    assert all(torch.equal(one, two) for one, two in zip(plain, recorded, strict=True))
    assert loader.batch_sampler is sampler


def test_what_is_assigned_to_the_loader_between_epochs_holds(tmp_path):
    loader = DataLoader(data(), batch_size=BATCH)
    model = torch.nn.Linear(3, 2)
    with counterfoil.Run.create(tmp_path / "run") as run:
        run.attach(model, torch.optim.SGD(model.parameters(), lr=0.1))
        assert len(list(run.batches(loader))) == SIZE // BATCH
        loader.collate_fn = lambda samples: torch.stack([x for x, _ in samples]) * 100
        for batch, plain in zip(run.batches(loader), loader, strict=True):
            assert torch.equal(batch, plain)
