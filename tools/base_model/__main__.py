"""`python -m tools.base_model STAGE`: fetch, render, autoencoder, latents, denoiser, classifiers, publish, flow, publish-flow, or all of them in turn.

To resume, run it again. It takes a night on a CPU, minutes on a GPU (`--device cuda`).
"""

import argparse
from pathlib import Path

STAGES = ("fetch", "render", "autoencoder", "latents", "denoiser", "classifiers", "publish", "flow", "publish-flow")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=(*STAGES, "all"))
    parser.add_argument("--work", type=Path, default=Path("build/base-model"), help="where drawings and checkpoints are kept")
    parser.add_argument("--target", type=Path, default=Path("build/base-model/emoji"), help="where publish writes")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    arguments = parser.parse_args()

    import torch

    torch.set_num_threads(arguments.threads)
    for stage in STAGES if arguments.stage == "all" else (arguments.stage,):
        print(f"{stage} ...", flush=True)
        torch.manual_seed(0)  # for the initial weights
        carry_out(stage, arguments.work, arguments.target, arguments.device)


def carry_out(stage: str, work: Path, target: Path, device: str) -> None:
    """Carry out one stage of the recipe, except for what is already done."""
    from tools.base_model import autoencoder, classifier, denoiser, drawings, flow, publish

    if stage == "fetch":
        return drawings.fetch(work)
    if stage == "render":
        return drawings.render(work)
    pictures = drawings.load_drawings(work)
    if stage == "autoencoder":
        return autoencoder.train(pictures, drawings.load_others(work), work / "autoencoder", device=device)
    if stage == "denoiser":
        return denoiser.train(work / "poses.safetensors", work / "denoiser", device=device)
    if stage == "flow":
        return flow.train(work / "poses.safetensors", work / "flow", device=device)
    if stage == "classifiers":
        for kind in classifier.LABELS:
            classifier.train(kind, pictures, work / kind, device=device)
        return None
    trained = autoencoder.load(pictures, work / "autoencoder")
    if stage == "latents":
        return denoiser.encode_poses(pictures, trained, work / "poses.safetensors", device=device)
    read_by = {kind: classifier.load(kind, work / kind) for kind in classifier.LABELS}
    if stage == "publish-flow":
        pipeline = flow.load_pipeline(trained, work / "flow")
        return publish.publish_flow(pipeline, read_by, work, target.with_name(f"{target.name}-flow"))
    return publish.publish(denoiser.load_pipeline(trained, work / "denoiser"), read_by, work, target)


if __name__ == "__main__":
    main()
