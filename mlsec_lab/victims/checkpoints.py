"""Trained victims: safetensors files that are refused when a byte differs from what their manifest says.

`data/checkpoints/manifest.json` names for each shipped file its network, its SHA-256 and the accuracy it had. What learners
train themselves (`mlsec-lab train NAME`) lies in a folder of their own, beside the same kind of manifest.
"""
import hashlib
import json
from pathlib import Path

from mlsec_lab.home import COURSE, work_folder, write_whole
from mlsec_lab.victims.language import small_transformer
from mlsec_lab.victims.networks import pooled_cnn, small_cnn, small_resnet
from mlsec_lab.victims.self_supervised import self_supervised_cnn

SHIPPED = COURSE / "data" / "checkpoints"
NETWORKS = {make.__name__: make for make in (small_cnn, small_resnet, pooled_cnn, self_supervised_cnn, small_transformer)}


def load_model(name):
    """A trained network, in eval mode: a shipped one, else one that you trained.  A language model brings its `vocabulary` along.

    name: "signs_cnn", "signs_cnn_robust", "gtsrb_cnn", "chat_aligned", …; `mlsec-lab list` shows which there are.
    Raises FileNotFoundError, with the command that trains it, where there is none of that name; ValueError where the
    file is not, byte for byte, the one that its manifest names.
    """
    for folder in (SHIPPED, own_folder()):
        entry = read_manifest(folder).get(name)
        if entry is not None:
            return _load(folder / f"{name}.safetensors", entry)
    raise FileNotFoundError(f"there is no checkpoint named {name!r}; shipped are {', '.join(read_manifest())}, "
                            f"and `mlsec-lab train {name}` makes the others that have a recipe")


def save_model(model, name, *, network, shape, folder=None, **facts):
    """Write `model` as NAME.safetensors into `folder` (default: yours) and enter it in the manifest there.

    network, shape: the function in NETWORKS that builds it, by name, and its arguments.
    facts: what else the manifest should say (accuracy, data, training).  Returns the manifest's entry.
    """
    from safetensors.torch import save
    folder = Path(folder or own_folder())
    content = save({key: value.contiguous() for key, value in model.state_dict().items()})
    entry = {"network": network, "shape": shape, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content), **facts}
    write_whole(folder / f"{name}.safetensors", content)
    manifest = {**read_manifest(folder), name: entry}
    write_whole(folder / "manifest.json", (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode())
    return entry


def read_manifest(folder=SHIPPED):
    """The manifest of a checkpoint folder: {name: entry}; empty where there is none.  ValueError where it is damaged."""
    path = Path(folder) / "manifest.json"
    try:
        manifest = json.loads(path.read_text())
        if any(not {"network", "shape", "sha256"} <= set(entry) for entry in manifest.values()):
            raise ValueError("an entry lacks its network, shape or sha256")
        return manifest
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error}): {_remedy(path)}") from error


def own_folder():
    """Where the checkpoints lie that a learner trained."""
    return work_folder() / "checkpoints"


def _load(path, entry):
    from safetensors.torch import load
    if entry["network"] not in NETWORKS:
        raise ValueError(f"{path.name} names the network {entry['network']!r}, which is none of {', '.join(NETWORKS)}: {_remedy(path)}")
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing though its manifest names it: {_remedy(path)}") from None
    got = hashlib.sha256(content).hexdigest()  # of the very bytes that are loaded below, not of the file at another moment
    if got != entry["sha256"]:
        raise ValueError(f"{path.name} is not the file that was published (its SHA-256 begins {got[:12]}, not "
                         f"{entry['sha256'][:12]}): {_remedy(path)}")
    try:
        model = NETWORKS[entry["network"]](**entry["shape"])
        model.load_state_dict(load(content))
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path.name} does not fit the shape {entry['shape']!r:.200} that its manifest names: {_remedy(path)}") from error
    return model.eval()


def _remedy(path):
    if path.parent == SHIPPED:
        return "restore it with `git checkout -- data/checkpoints`"
    if path.name == "manifest.json":
        return "delete it, and `mlsec-lab train NAME` makes again what it named"
    return f"`mlsec-lab train {path.stem}` makes it again"
