"""The example as Flower deploys it: a SuperLink, three SuperNodes, and a new process for each message."""

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import counterfoil
from counterfoil.flower import recompute
from federated import task

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(sys.executable).parent


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def wait_for(port):
    deadline = time.monotonic() + 60
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert time.monotonic() < deadline, f"nobody listens at {port}"
        time.sleep(0.1)


@pytest.fixture
def deployed(tmp_path):
    """A function that runs the app of the example with `flwr run`."""
    home = tmp_path / "home"
    home.mkdir()
    link, *ports = free_ports(4)
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "here"\n[superlink.here]\naddress = "127.0.0.1:{link}"\ninsecure = true\n'
    )
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environment |= {
        "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "python"),
        "COUNTERFOIL_HOME": str(tmp_path / "keys"),
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        # What the app needs is installed here, and nothing is downloaded.
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    }
    processes, logs = [], tmp_path / "logs"
    logs.mkdir()

    def start(program, *arguments):
        with (logs / f"{program}-{len(processes)}").open("wb") as log:
            command = [PROGRAMS / program, "--insecure", *arguments]
            processes.append(
                subprocess.Popen(
                    command, env=environment, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True
                )
            )

    def run(**config):
        start("flower-superlink", "--host", "127.0.0.1", "--port", str(link))
        for part, port in enumerate(ports):
            configuration = f'partition-id={part} num-partitions=3 folder="{tmp_path / "clients"}"'
            address = ["--superlink", f"127.0.0.1:{link}", "--host", "127.0.0.1", "--port", str(port)]
            start("flower-supernode", *address, "--node-config", configuration)
        wait_for(link)
        app = shutil.copytree(ROOT / "examples" / "federated", tmp_path / "app")
        text = " ".join(f"{key}={value!r}".replace("'", '"') for key, value in config.items())
        command = [PROGRAMS / "flwr", "run", app, "here", "--run-config", text, "--stream"]
        result = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False
        )
        return result.stdout + result.stderr

    yield run
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def test_the_example_runs_under_superlink_and_supernodes(deployed, tmp_path):
    folder = tmp_path / "server"
    output = deployed(folder=str(folder), rounds=2)
    assert (folder / "spec.json").exists(), output
    verdict = recompute(folder, task.make_strategy("FedAvg"))
    assert verdict.status == "verified", output
    assert any(note.endswith("bit-exact: rounds 1, 2") for note in verdict.notes)
    record = counterfoil.Record(folder)
    assert sorted(lane for _, lane in record.lanes) == [0, 1, 2, 3]
    for worker, lane in record.lanes:
        if lane:
            rounds = [each for each in record.receipts(worker, lane) if each.kind == "round"]
            assert [each.fields["round"] for each in rounds] == [1, 2]
            assert len({each.fields["party"] for each in rounds}) == 1
    assert "left out" not in output
