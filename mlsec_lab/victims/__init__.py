"""What is attacked: data sets, networks, training and shipped checkpoints.

    x, y, classes = load_data("signs", "test", n=512)
    model = load_model("signs_cnn")
"""
from mlsec_lab.victims.checkpoints import load_model
from mlsec_lab.victims.datasets import load_data
from mlsec_lab.victims.networks import LabelOnly, QueryCounter, frozen, penultimate, pooled_cnn, small_cnn, small_resnet
from mlsec_lab.victims.training import accuracy, predict, train

__all__ = ["LabelOnly", "QueryCounter", "accuracy", "frozen", "load_data", "load_model", "penultimate", "pooled_cnn", "predict", "small_cnn",
           "small_resnet", "train"]
