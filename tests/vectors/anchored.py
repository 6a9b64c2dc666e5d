"""Makes tests/vectors/anchored.*: a run whose head stands in a full block of an independent node.

    npm install @foundry-rs/anvil@1.7.1; ANVIL=path/to/anvil python tests/vectors/anchored.py

The block holds 151 transactions of three types, so the path through the trie of receipts has
branches, an extension is possible, and the position needs two bytes.
"""

import json
import os
import subprocess
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).parent
CHAIN = 16602
FILLERS = 150


def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        os.environ["COUNTERFOIL_HOME"] = home
        import numpy as np

        import counterfoil

        def record(run, step):
            gradient = np.full(600, step, np.float32)
            run.record_step(step, {"gradients": counterfoil.commit_tensors({"weight": gradient})})

        arguments = ["--chain-id", str(CHAIN), "--port", "8599", "--hardfork", "cancun", "--silent"]
        arguments += ["--accounts", "12", "--gas-limit", "60000000"]
        node = subprocess.Popen([os.environ["ANVIL"], *arguments])
        try:
            artifact = json.loads((HERE / "../../contracts/artifacts/RunLedger.json").read_text())
            ask = _asker("http://127.0.0.1:8599")
            accounts = ask("eth_accounts")
            deployed = ask("eth_sendTransaction", {"from": accounts[0], "data": artifact["bytecode"]})
            contract = ask("eth_getTransactionReceipt", deployed)["contractAddress"]
            chain = counterfoil.Chain.connect("http://127.0.0.1:8599", contract)

            path = Path(home) / "run"
            key = counterfoil.Key.device()
            ask("anvil_setBalance", key.address, hex(10**18))
            run = counterfoil.Run.create(path, spec={"task": "anchored"}, key=key)
            record(run, 1)
            chain.anchor(run, key)
            # That one registered the run; this one goes into the full block.
            record(run, 2)
            run.close()
            ask("evm_setAutomine", False)
            records = []
            anchoring = threading.Thread(target=lambda: records.append(chain.anchor(path, key)))
            anchoring.start()
            for number in range(FILLERS):
                kind = [
                    {},
                    {"accessList": []},
                    {"maxFeePerGas": hex(3 * 10**9), "maxPriorityFeePerGas": hex(2 * 10**9)},
                ]
                filler = {"from": accounts[number % 12], "to": accounts[0], "value": "0x1", "gas": "0x5208"}
                ask("eth_sendTransaction", {**filler, **kind[number % 3]})
            while len(ask("txpool_content")["pending"]) < 13:
                time.sleep(0.05)
            ask("evm_mine")
            anchoring.join()
            counterfoil.export(path, HERE / "anchored.counterfoil")
            (HERE / "anchored.json").write_text(records[0].to_json() + "\n")
            print(counterfoil.verify(HERE / "anchored.counterfoil"))
            print(records[0].proof["position"], len(records[0].proof["nodes"]))
        finally:
            node.terminate()


def _asker(url):
    import urllib.request

    def ask(method, *parameters):
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": list(parameters)})
        request = urllib.request.Request(url, body.encode(), {"Content-Type": "application/json"})
        for _ in range(50):
            try:
                with urllib.request.urlopen(request, timeout=10) as answer:
                    reply = json.load(answer)
                break
            except OSError:
                time.sleep(0.1)
        return reply["result"]

    return ask


if __name__ == "__main__":
    main()
