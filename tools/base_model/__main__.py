"""`python -m tools.base_model STAGE`: fetch, autoencoder, denoiser, classifier, publish, or all of them in turn. To resume, run it again."""

import argparse
from pathlib import Path

STAGES = ("fetch", "autoencoder", "latents", "denoiser", "classifier", "publish")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=(*STAGES, "all"))
    parser.add_argument("--work", type=Path, default=Path("build/base-model"), help="where drawings and checkpoints are kept")
    parser.add_argument("--target", type=Path, default=Path("src/d3po/assets/emoji"), help="where publish writes")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()

    import torch

    from tools.base_model import autoencoder, classifier, denoiser, drawings, publish

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    work: Path = arguments.work
    for stage in STAGES if arguments.stage == "all" else (arguments.stage,):
        print(f"{stage} ...", flush=True)
        if stage == "fetch":
            drawings.fetch(work)
            continue
        pictures = drawings.load_drawings(work)
        if stage == "autoencoder":
            autoencoder.train(pictures, work / "autoencoder")
        elif stage == "latents":
            denoiser.encode_poses(pictures, autoencoder.load(pictures, work / "autoencoder"), work / "poses.safetensors")
        elif stage == "denoiser":
            denoiser.train(work / "poses.safetensors", work / "denoiser")
        elif stage == "publish":
            pipeline = denoiser.load_pipeline(autoencoder.load(pictures, work / "autoencoder"), work / "denoiser")
            publish.publish(pipeline, classifier.load(work / "classifier"), work, arguments.target)
        elif stage == "classifier":
            classifier.train(pictures, work / "classifier")
            accuracy, by_subject = classifier.held_out_accuracy(classifier.load(work / "classifier"), pictures)
            print(f"accuracy on held-out drawings {accuracy:.3f}", {k: v for k, v in by_subject.items() if v < 1})


if __name__ == "__main__":
    main()
