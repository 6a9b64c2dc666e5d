"""Keys of these trials lie in a temporary folder; what they counted is printed at the end."""

import pytest

import planted


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COUNTERFOIL_HOME", str(tmp_path_factory.mktemp("home")))
        yield


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line("\n".join(planted.table()))
