"""What is attacked: data sets, networks, training and shipped checkpoints.

    x, y, classes = load_data("signs", "test", n=512)
    model = load_model("signs_cnn")
"""
from mlsec_lab.victims.checkpoints import load_model
from mlsec_lab.victims.datasets import load_data
from mlsec_lab.victims.language import answer, generate, log_probabilities, perplexity, small_transformer, train_language
from mlsec_lab.victims.networks import LabelOnly, QueryCounter, frozen, penultimate, pooled_cnn, small_cnn, small_resnet
from mlsec_lab.victims.training import accuracy, predict, train

__all__ = ["LabelOnly", "QueryCounter", "accuracy", "answer", "frozen", "generate", "load_data", "load_model", "log_probabilities", "penultimate",
           "perplexity", "pooled_cnn", "predict", "small_cnn", "small_resnet", "small_transformer", "train", "train_language"]
