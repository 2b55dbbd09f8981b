"""Other data sets than MNIST, by the commands that a user types: letters, files like Fashion's."""

import hashlib
from pathlib import Path

import pandas as pd
import pytest
from safetensors.numpy import load_file

from normlab.data import datasets, idx
from normlab.data.datasets import FASHION_MNIST, SPLITS
from normlab.files import read_json
from tests.data import letters
from tests.pipeline.copies import assert_in_order, copy, data, git, run, stages_run

pytestmark = [pytest.mark.timeout(3600), pytest.mark.usefixtures("all_elsewhere")]

LETTERS = "data/own/letters"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    copy(folder)
    letters.write(folder / LETTERS)
    # As many bytes as Fashion-MNIST's, in its place: MNIST in negative.
    text = (folder / "normlab/data/datasets.py").read_text()
    for name, content in data().items():
        other = idx.encode(255 - idx.decode(content)) if "images" in name else content
        (folder / "data/incoming" / name).write_bytes(other)
        text = text.replace(FASHION_MNIST.files[name].sha256, hashlib.sha256(other).hexdigest())
    (folder / "normlab/data/datasets.py").write_text(text)
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "Begin")
    return folder


def test_an_experiment_takes_fashion_mnist(project: Path) -> None:
    done = run(project, "dvc", "exp", "run", "-S", "dataset=fashion_mnist", "download")
    assert stages_run(done) == ["download"]
    assert done.stderr.count("got SHA-256") == 0, "what is in place is known for another's"
    for split, names in SPLITS.items():
        assert datasets.read(project / "data" / split) == FASHION_MNIST
        for name in names:
            placed = project / "data/incoming" / name
            assert (project / "data" / split / name).read_bytes() == placed.read_bytes()


def test_letters_of_ones_own_go_through_the_pipeline_and_stay_as_they_are(project: Path) -> None:
    own = ["-S", f"dataset={LETTERS}", "-S", "val_size=60", "-S", "train_size=null"]
    done = run(project, "dvc", "exp", "run", *own, "-S", "seeds=[0]", "dvc.yaml")
    assert_in_order(stages_run(done))
    record = read_json(project / "data/test" / datasets.DESCRIPTION)
    assert (record["name"], len(record["names"]), record["side"]) == ("letters", 26, 24)
    weights = load_file(project / "models/ln/seed0/epoch01.safetensors")
    assert weights["linear.weight"].shape == (26, 14)
    assert weights["norm1.weight"].shape == (12, 22, 22)
    confusion = pd.read_csv(project / "reports/confusion.csv")
    assert len(confusion) == 3 * 26**2
    assert confusion.groupby("variant")["count"].sum().tolist() == [26 * 6] * 3
    assert len(list((project / "reports/figures").iterdir())) == 9
    assert run(project, "dvc", "status", "dvc.yaml").stdout.endswith("up to date.\n")

    labels = project / LETTERS / SPLITS["train"][1]
    labels.write_bytes(labels.read_bytes()[:-1] + b"\0")
    refused = run(project, "dvc", "repro", "download", check=False)
    assert refused.returncode != 0
    assert f"error: {LETTERS}/{labels.name}: got SHA-256 " in refused.stderr
    assert "Traceback" not in refused.stderr
    (project / LETTERS / "SHA256SUMS").unlink()
    assert stages_run(run(project, "dvc", "repro", "download")) == ["download"]
