"""Which versions a recipe locks, whatever its files hold, and that its digest covers them."""

from importlib.metadata import version

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import counterfoil
from counterfoil.invitation import invite
from counterfoil.torch.recipes import locked

NUMPY, TYPER = version("numpy"), version("typer")
SCRIPT = """import torch
# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy==0.1", "typer>=0.1", "torch"]
# ///
"""


def requirements(text):
    return locked({"requirements.txt": text.encode()})


@pytest.mark.parametrize(
    "line",
    [
        f"numpy=={NUMPY}",
        f"NumPy == {NUMPY}.0  # with a comment",
        f"numpy=={NUMPY} --hash=sha256:{'0' * 64} --hash=sha256:{'1' * 64}",
        f"numpy=={NUMPY} \\\n    --hash=sha256:{'0' * 64}\n",
        f'numpy[all, tests]==={NUMPY} ; python_version >= "3.11"',
        "numpy>=0.1\nnumpy==0.*\nnumpy==0.1,<2\nnumpy @ https://example.org/numpy.whl\n-r other.txt\n# numpy==0.1",
        f'numpy==0.1 ; python_version < "3"\nnumpy=={NUMPY} ; python_version >= "3"',
        'unheard-of==1 ; sys_platform == "beos"',
    ],
)
def test_what_is_installed_as_locked_is_not_named(line):
    """A comment, hash, marker or range that is taken for a pin would accuse an equal environment."""
    assert requirements(line) == []


@pytest.mark.parametrize(
    "ending", ["", " # why", " --hash=sha256:00", " \\\n --hash=sha256:00", ' ; os_name == "x"']
)
def test_another_version_is_named(ending):
    assert requirements(f"typer=={TYPER}\nnumpy==0.1{ending}\n") == [f"numpy: locked 0.1, installed {NUMPY}"]


def test_what_is_not_installed_is_named_where_it_has_to_be():
    """A lock of all platforms lists what no machine has whole."""
    lock = b'[[packages]]\nname = "un_heard.of"\nversion = "1"\n[[packages]]\nname = "x-y"\nversion = "1"\nmarker = "os"'
    assert locked({"pylock.toml": lock}) == ["un-heard-of: locked 1, not installed"]
    assert requirements("un_heard.of==1") == ["un-heard-of: locked 1, not installed"]
    assert locked({"uv.lock": lock.replace(b"packages", b"package")}) == []


def test_local_builds_and_trailing_zeros_count_as_in_pep_440(monkeypatch):
    monkeypatch.setattr("counterfoil.torch.recipes.version", lambda name: "2.15.0+cu132")
    assert requirements("torch==2.15") == requirements("torch==2.15.0+cu132") == []
    for other in ("2.15.0+cpu", "2.15.0.1", "2.1", "2.150"):
        assert requirements(f"torch=={other}") == [f"torch: locked {other}, installed 2.15.0+cu132"]


def test_each_kind_of_file_is_read():
    """A lock that is copied into the run and then not looked at."""
    package = '[[{}]]\nname = "numpy"\nversion = "0.1"\n'
    files = {
        "sub/requirements.txt": "numpy==0.1",
        "pylock.toml": package.format("packages"),
        "uv.lock": package.format("package"),
        "recipe.py": SCRIPT,
    }
    for name, text in files.items():
        assert locked({name: text.encode()}) == [f"numpy: locked 0.1, installed {NUMPY}"], name
    assert locked({"other.txt": b"numpy==0.1"}) == []


DEEP = b"[" * 100_000
names = st.sampled_from(["requirements.txt", "pylock.toml", "uv.lock", "recipe.py"])
pieces = st.sampled_from(
    ["numpy", "==", "0.1", "[[package]]", "[[packages]]", "\n", "name=", "version=", '"', "'''", "[", "]", "{", "\\\n",
     " # ", "# /// script\n", "# ///\n", "# dependencies = [\n", "\x1b[31m", "1e999", "\x00", "/", "..", ";", "--"]
)  # fmt: skip


@given(st.dictionaries(names, st.binary() | st.lists(pieces).map(lambda parts: "".join(parts).encode())))
@example({"pylock.toml": b"packages = " + DEEP, "uv.lock": b"package = 3", "requirements.txt": DEEP})
@example({"uv.lock": b"package = [1, {}, {name = 1, version = {}}]", "pylock.toml": b"x = " + b"9" * 5000})
@example({"recipe.py": b"# /// script\n# dependencies = [1, {}, '..==1', '\x1b[31m==1']\n# ///\n"})
def test_hostile_locks_are_read_or_named(files):
    """They come from the prover: no exception, and nothing that a terminal would obey."""
    assert all(line.isprintable() and line.isascii() for line in locked(files))


def test_a_recipes_digest_covers_its_locks_and_an_invitation_has_them(home, tmp_path):
    """Versions that could be exchanged under a pinned digest."""
    folder = tmp_path / "recipe"
    folder.mkdir()
    for name in ("recipe.py", "requirements.txt", "pylock.toml", "uv.lock", "notes.txt"):
        (folder / name).write_text("")
    digests = set()
    for number, pin in enumerate(("numpy==1", "numpy==2")):
        (folder / "requirements.txt").write_text(pin)
        with counterfoil.Run.create(tmp_path / str(number), recipe=folder) as run:
            files = sorted(name.removeprefix("recipe/") for name in invite(run) if name.startswith("recipe/"))
        record = counterfoil.Record(run.path)
        assert files == sorted(record.recipe) == ["pylock.toml", "recipe.py", "requirements.txt", "uv.lock"]
        digests.add(record.recipe_digest)
    assert len(digests) == 2
