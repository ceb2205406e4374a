"""One backdoored network and one clean one for all tests of this folder."""
import pytest

from mlsec_lab.data_to_model.backdoors import BadNets
from mlsec_lab.victims import load_data, pooled_cnn, train


@pytest.fixture(scope="session")
def attack():
    return BadNets(target=3)


@pytest.fixture(scope="session")
def training_set():
    x, y, _ = load_data("signs", "train", n=6000)
    return x, y


@pytest.fixture(scope="session")
def backdoored(attack, training_set):
    return attack.implant(pooled_cnn(width=8), *training_set, 200, epochs=5, progress=False)


@pytest.fixture(scope="session")
def clean(training_set):
    return train(pooled_cnn(width=8), *training_set, epochs=5, progress=False)


@pytest.fixture(scope="session")
def trusted():
    x, y, _ = load_data("signs", "train", n=200, seed=50)
    return x, y


@pytest.fixture(scope="session")
def test_set():
    x, y, _ = load_data("signs", "test", n=400)
    return x, y
