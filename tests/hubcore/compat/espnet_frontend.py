"""A frontend that calls s3prl exactly as ESPnet's `S3prlFrontend` does. It knows nothing of hubcore.

As a program it reads a JSON list of frontends to make and prints, as JSON, what each of them did.
"""

# ruff: noqa: SIM102, SIM910
from __future__ import annotations

import copy
import json
import sys

import torch


class Frontend(torch.nn.Module):
    """Padded waveforms to features, by the calls of ESPnet's frontend, in its order."""

    def __init__(
        self,
        frontend_conf: dict,
        download_dir: str | None = None,
        multilayer_feature: bool = False,
        layer: int = -1,
    ) -> None:
        import s3prl
        from s3prl.nn import Featurizer, S3PRLUpstream

        super().__init__()
        if download_dir is not None:
            s3prl.util.download.set_dir(download_dir)

        assert frontend_conf.get("upstream", None) in S3PRLUpstream.available_names()
        upstream = S3PRLUpstream(
            frontend_conf.get("upstream"),
            path_or_url=frontend_conf.get("path_or_url", None),
            normalize=frontend_conf.get("normalize", False),
            extra_conf=frontend_conf.get("extra_conf", None),
        )
        if getattr(upstream.upstream, "model", None):
            if getattr(upstream.upstream.model, "feature_grad_mult", None) is not None:
                upstream.upstream.model.feature_grad_mult = 1.0
        upstream.eval()

        assert layer == -1 or not multilayer_feature
        featurizer = Featurizer(upstream, layer_selections=[layer] if layer != -1 else None)
        self.multilayer_feature = multilayer_feature
        self.layer = layer
        self.upstream, self.featurizer = upstream, featurizer
        self.pretrained_params = copy.deepcopy(self.upstream.state_dict())
        self.hop_length = self.featurizer.downsample_rate
        self.tile_factor = frontend_conf.get("tile_factor", 1)

    def output_size(self) -> int:
        return self.featurizer.output_size

    def forward(self, speech: torch.Tensor, speech_lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        feats, feats_lens = self.upstream(speech, speech_lengths)
        if self.layer != -1:
            return feats[self.layer], feats_lens[self.layer]
        if self.multilayer_feature:
            feats, feats_lens = self.featurizer(feats, feats_lens)
        else:
            feats, feats_lens = self.featurizer(feats[-1:], feats_lens[-1:])
        if self.tile_factor != 1:
            batch, frames, width = feats.shape
            feats = feats.repeat(1, 1, self.tile_factor).reshape(batch, frames * self.tile_factor, width)
        return feats, feats_lens

    def reload_pretrained_parameters(self) -> None:
        self.upstream.load_state_dict(self.pretrained_params)


def one_training_step(frontend: Frontend, speech: torch.Tensor, lengths: torch.Tensor) -> dict:
    """What changes in a step of a recogniser on top, and whether reloading brings the upstream back."""
    head = torch.nn.Linear(frontend.output_size(), 5)
    frontend.train()
    before = {name: value.clone() for name, value in frontend.state_dict().items()}
    optimizer = torch.optim.SGD([*frontend.parameters(), *head.parameters()], lr=1.0)
    feats, feats_lens = frontend(speech, lengths)
    valid = torch.arange(feats.shape[1])[None] < feats_lens[:, None]
    loss = torch.nn.functional.cross_entropy(head(feats)[valid], torch.zeros(int(valid.sum()), dtype=torch.int64))
    loss.backward()
    optimizer.step()
    after = frontend.state_dict()
    moved = [name for name, value in before.items() if not torch.equal(value, after[name])]
    frontend.reload_pretrained_parameters()
    frontend.eval()
    restored = frontend.upstream.state_dict()
    return {
        "loss_is_finite": bool(loss.isfinite()),
        "moved_upstream": sum(name.startswith("upstream.") for name in moved),
        "moved_weights": "featurizer.weights" in moved,
        "restored": all(torch.equal(value, restored[name]) for name, value in frontend.pretrained_params.items()),
        "saved": len(frontend.pretrained_params),
    }


def run(settings: dict) -> dict:
    torch.manual_seed(0)
    frontend = Frontend(**settings)
    lengths = torch.tensor([16000, 9300])
    speech = torch.randn(2, 16000)
    speech[1, 9300:] = 7.0  # the padding must not matter
    with torch.no_grad():
        feats, feats_lens = frontend(speech, lengths)
        alone, _ = frontend(speech[1:, :9300], lengths[1:])
    short = int(feats_lens[1])
    return {
        "shape": list(feats.shape),
        "lengths": feats_lens.tolist(),
        "output_size": frontend.output_size(),
        "hop_length": frontend.hop_length,
        "batch_error": float((feats[1, :short] - alone[0, :short]).abs().max() / alone.abs().max()),
        "beyond": float(feats[1, short:].abs().max()),
        "weights": getattr(frontend.featurizer, "weights", None) is not None,
        **one_training_step(frontend, speech, lengths),
    }


if __name__ == "__main__":
    print(json.dumps([run(settings) for settings in json.loads(sys.argv[1])]))
