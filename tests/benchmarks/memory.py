"""Peak memory above the loaded model of one call, 92 s of audio in one batch, each in a process of its own."""

from __future__ import annotations

from tests.benchmarks.measure import Section, fresh, sizes, table
from tests.benchmarks.peers import OURS, peers

LENGTHS = [24.5, 23.5, 22.5, 21.5]
OURSELVES = {
    "hubcore, all hidden states": "model(wavs).hidden_states",
    "hubcore, all hidden states, packed": "model(wavs).packed()",
    "hubcore, weighted sum of all": "featurizer.extract(model, wavs)",
    "hubcore, layer 9 alone": "model(wavs, layers=[min(9, model.num_layers)])",
}
SCRIPT = """
import re, torch
from pathlib import Path
from hubcore import Featurizer
from tests.benchmarks.measure import sizes
from tests.benchmarks.peers import systems
sizes({quick})
def figure(name): return 1024 * int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
torch.manual_seed(0)
torch.set_num_threads(1)
model = systems()[{system!r}]
featurizer = Featurizer(model) if {system!r} == "hubcore" else None
wavs = [0.1 * torch.randn(int(16000 * seconds * sizes().scale)) for seconds in {lengths}]
with torch.inference_mode():
    model([wavs[0][:16000]])
    before = figure("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # Linux forgets the highest size so far
    kept = {call}
    print(figure("VmHWM") - before)
"""


def run() -> Section:
    """The table."""
    calls = {f"{name}, all hidden states": (name, "model(wavs)") for name in peers()}
    calls |= {name: (OURS, call) for name, call in OURSELVES.items()}
    peaks = {
        name: int(fresh(SCRIPT.format(system=system, call=call, lengths=LENGTHS, quick=sizes().quick)))
        for name, (system, call) in calls.items()
    }
    most = peaks.get("s3prl, all hidden states")
    rows = [[name, f"{peak / 1e6:.0f}", f"{100 * peak / most:.0f} %" if most else "-"] for name, peak in peaks.items()]
    text = table(["call", "peak MB above the loaded model", "of s3prl's"], rows)
    return Section("Memory", text, {name: float(peak) for name, peak in peaks.items()})
