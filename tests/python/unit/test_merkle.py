"""Trees and proofs against two independent implementations and foreign vectors."""

import base64
import json
import random

import pymerkle
import pytest

import oracle
from counterfoil import merkle
from counterfoil.errors import CounterfoilError, ProofError

LARGEST = 300
LEAVES = [f"leaf {index}".encode() for index in range(LARGEST)]
VECTORS = json.loads((oracle.ROOT / "tests/vectors/rfc9162_proofs.json").read_text())


@pytest.fixture(scope="module")
def ours() -> oracle.Tree:
    return oracle.Tree(LEAVES)


@pytest.fixture(scope="module")
def theirs() -> pymerkle.InmemoryTree:
    tree = pymerkle.InmemoryTree(algorithm="sha256")
    for leaf in LEAVES:
        tree.append_entry(leaf)
    return tree


def test_roots_of_all_small_trees(ours: oracle.Tree, theirs: pymerkle.InmemoryTree) -> None:
    """A wrong split or a duplicated odd leaf shows at some size."""
    for size in range(LARGEST + 1):
        root = merkle.root(LEAVES[:size])
        assert root == ours.root(size)
        if size:
            assert root == theirs.get_root(size)


def test_inclusion_proofs_of_all_small_trees(ours: oracle.Tree) -> None:
    """Every leaf of every tree has exactly the RFC's path, and it verifies."""
    for size in range(1, LARGEST + 1):
        root = ours.root(size)
        for index in range(size):
            proof = merkle.inclusion_proof(LEAVES[:size], index)
            assert proof == ours.inclusion(index, size)
            merkle.verify_inclusion(LEAVES[index], index, size, proof, root)


def test_consistency_proofs_of_all_small_trees(ours: oracle.Tree) -> None:
    """Every prefix of every tree has exactly the RFC's proof, and it verifies."""
    for n in range(1, LARGEST + 1):
        for m in range(1, n + 1):
            proof = merkle.consistency_proof(LEAVES[:n], m)
            assert proof == ours.consistency(m, n)
            merkle.verify_consistency(m, n, proof, ours.root(m), ours.root(n))


def test_proofs_hold_the_hashes_that_pymerkle_holds(theirs: pymerkle.InmemoryTree) -> None:
    """pymerkle orders hashes otherwise and adds the verifier's own leaf; the others are equal.

    Its consistency proofs always begin at a leaf, the RFC's only where `m` is odd.
    """
    chosen = random.Random(1)
    for _ in range(1500):
        n = chosen.randint(2, LARGEST)
        index, m = chosen.randrange(n), chosen.randrange(1, n, 2)
        path = theirs.prove_inclusion(index + 1, n).serialize()["path"]
        own = oracle.sha256(b"\x00" + LEAVES[index]).hex()
        proof = [each.hex() for each in merkle.inclusion_proof(LEAVES[:n], index)]
        assert sorted([*proof, own]) == sorted(path)
        path = theirs.prove_consistency(m, n).serialize()["path"]
        proof = [each.hex() for each in merkle.consistency_proof(LEAVES[:n], m)]
        extra = [theirs.get_root(1).hex()] if m == 1 else []  # the first root is the first leaf
        assert sorted([*proof, *extra]) == sorted(path)


def test_large_random_trees() -> None:
    """Sizes beyond the exhaustive range, with leaves of any length."""
    chosen = random.Random(2)
    for _ in range(12):
        size = chosen.randint(LARGEST, 6000)
        leaves = [chosen.randbytes(chosen.randint(0, 80)) for _ in range(size)]
        tree, index, m = oracle.Tree(leaves), chosen.randrange(size), chosen.randint(1, size)
        assert merkle.root(leaves) == tree.root(size)
        proof = merkle.inclusion_proof(leaves, index)
        assert proof == tree.inclusion(index, size)
        merkle.verify_inclusion(leaves[index], index, size, proof, tree.root(size))
        proof = merkle.consistency_proof(leaves, m)
        assert proof == tree.consistency(m, size)
        merkle.verify_consistency(m, size, proof, tree.root(m), tree.root(size))


def test_one_leaf_means_nothing_without_index_and_size(ours: oracle.Tree) -> None:
    """The path of leaf 9 of 13 is refused at every other position of a tree of 13."""
    proof, root = ours.inclusion(9, 13), ours.root(13)
    for index in set(range(14)) - {9}:
        with pytest.raises(ProofError):
            merkle.verify_inclusion(LEAVES[9], index, 13, proof, root)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 13, 64, 100])
def test_changed_inclusion_proofs_are_refused(ours: oracle.Tree, size: int) -> None:
    """A verifier that stops early or ignores a rest accepts one of these."""
    root = ours.root(size)
    for index in range(size):
        leaf, proof = LEAVES[index], ours.inclusion(index, size)
        changed = [[*proof, root], [*proof, oracle.sha256(b"")], [root, *proof]]
        if proof:
            changed += [proof[:-1], proof[1:], [], [*proof[:-1], root]]
        for each in changed:
            with pytest.raises(ProofError):
                merkle.verify_inclusion(leaf, index, size, each, root)
        for arguments in [
            (leaf + b"x", index, size, proof, root),
            (leaf, size, size, proof, root),
            (leaf, index, index, proof, root),
            (leaf, index, size, proof, oracle.sha256(root)),
        ]:
            with pytest.raises(ProofError):
                merkle.verify_inclusion(*arguments)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 8, 13, 64, 100])
def test_changed_consistency_proofs_are_refused(ours: oracle.Tree, n: int) -> None:
    for m in range(1, n + 1):
        proof, old, new = ours.consistency(m, n), ours.root(m), ours.root(n)
        changed = [[*proof, new], [old, *proof]] + ([proof[:-1], proof[1:]] if proof else [])
        for each in changed:
            with pytest.raises(ProofError):
                merkle.verify_consistency(m, n, each, old, new)
        for arguments in [
            (0, n, [], oracle.sha256(b""), new),
            (n + 1, n, proof, old, new),
            (m, n, proof, oracle.sha256(old), new),
            (m, n, proof, old, oracle.sha256(new)),
        ]:
            with pytest.raises(ProofError):
                merkle.verify_consistency(*arguments)


def test_a_node_is_no_leaf(ours: oracle.Tree) -> None:
    """Without the 0x00 and 0x01 prefixes an inner node could be shown as a leaf."""
    left, right = ours.node(0, 1), ours.node(1, 2)
    with pytest.raises(ProofError):
        merkle.verify_inclusion(left + right, 0, 1, [], ours.root(2))


def test_proofs_outside_the_tree_are_refused() -> None:
    with pytest.raises(ProofError):
        merkle.inclusion_proof([], 0)
    with pytest.raises(ProofError):
        merkle.inclusion_proof(LEAVES[:4], 4)
    for m in (0, 5):
        with pytest.raises(ProofError):
            merkle.consistency_proof(LEAVES[:4], m)


def test_the_error_says_what_was_expected(ours: oracle.Tree) -> None:
    wrong = oracle.sha256(b"another root")
    with pytest.raises(ProofError) as caught:
        merkle.verify_inclusion(LEAVES[2], 2, 7, ours.inclusion(2, 7), wrong)
    assert caught.value.code == "proof"
    assert wrong.hex() in str(caught.value.expected)
    assert ours.root(7).hex() in str(caught.value.actual)


def _decoded(vector: dict, *names: str) -> list[bytes]:
    return [base64.b64decode(vector[name]) for name in names]


def _proof(vector: dict) -> list[bytes]:
    return [base64.b64decode(each) for each in vector["proof"] or []]


@pytest.mark.parametrize("vector", VECTORS["inclusion"], ids=lambda v: v["file"])
def test_foreign_inclusion_vectors(vector: dict) -> None:
    leaf, root = _decoded(vector, "leafHash", "root")
    arguments = (leaf, vector["leafIdx"], vector["treeSize"], _proof(vector), root)
    if not vector["wantErr"]:
        merkle.verify_inclusion(*arguments, hashed=True)
        return
    with pytest.raises(CounterfoilError):
        merkle.verify_inclusion(*arguments, hashed=True)


@pytest.mark.parametrize("vector", VECTORS["consistency"], ids=lambda v: v["file"])
def test_foreign_consistency_vectors(vector: dict) -> None:
    old, new = _decoded(vector, "root1", "root2")
    arguments = (vector["size1"], vector["size2"], _proof(vector), old, new)
    # The source compares two roots of any length; here a root has 32 bytes.
    if not vector["wantErr"] and len(old) == 32:
        merkle.verify_consistency(*arguments)
        return
    with pytest.raises(CounterfoilError):
        merkle.verify_consistency(*arguments)
