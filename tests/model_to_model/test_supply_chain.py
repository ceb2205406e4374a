"""Supply chain: what the payloads do, what can be seen of them, what refuses them."""
import pickle
import statistics
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from mlsec_lab.model_to_model import supply_chain
from mlsec_lab.model_to_model.quarantine import MARKER, open_in_quarantine
from mlsec_lab.model_to_model.supply_chain import (ALLOWED, BLOCKED, CODE, Call, allowlist_flags, blocklist_flags, fickling_flags, flip_bit, forge, kind_of,
                                                   load_pinned, load_weights, names_in, on_list, pickles_in, picklescan_flags, pin, polyglot, same_beginning,
                                                   torch_file)
from mlsec_lab.victims import small_cnn


@pytest.fixture(scope="module")
def weights():
    return {name: tensor.contiguous() for name, tensor in small_cnn(seed=3).state_dict().items()}


@pytest.fixture(scope="module")
def whole(weights):
    return save(weights)


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    """Whatever wakes up in this process instead of in quarantine leaves its marker here."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not Path(MARKER).exists(), "a payload ran in the process of the tests"


def test_a_forged_pickle_runs_when_it_is_loaded_and_not_before():
    for protocol in range(6):
        assert names_in(forge(exec, CODE, protocol=protocol)) in ({"builtins.exec"}, {"__builtin__.exec"})
    outcomes = open_in_quarantine([("pickle", forge(exec, CODE, protocol=protocol)) for protocol in range(6)])
    assert all(outcome.executed and outcome.names[0].endswith("exec") for outcome in outcomes)


@pytest.mark.slow
def test_every_payload_runs_under_an_open_torch_load_and_none_under_weights_only():
    files = {name: torch_file(call) for name, call in supply_chain.payloads().items()}
    assert len(files) >= 30 and len(set(files.values())) == len(files)
    outcomes = open_in_quarantine([(f"torch.load(weights_only={flag})", data) for flag in (False, True) for data in files.values()], seconds=120)
    assert [name for name, outcome in zip(files, outcomes) if not outcome.executed] == []
    assert [name for name, outcome in zip(files, outcomes[len(files):]) if outcome.executed or outcome.result != "refused"] == []


def test_scanners_read_and_run_nothing_and_none_is_complete_and_silent(weights):
    model = small_cnn(seed=0)
    harmful = [torch_file(call) for call in supply_chain.payloads().values()]
    innocent = {name: torch_file(thing) for name, thing in supply_chain.innocents(model).items()}
    assert len(innocent) >= 8
    missed = {name: sum(not scan(data) for data in harmful) for name, scan in supply_chain.scanners().items()}
    stopped = {name: sum(scan(data) for data in innocent.values()) for name, scan in supply_chain.scanners().items()}
    assert not [name for name in missed if missed[name] == stopped[name] == 0]
    assert missed["ten names"] > len(harmful) / 2 and missed["picklescan --strict"] == 0 < stopped["picklescan --strict"]
    known, = (name for name in missed if name.startswith("picklescan ") and "strict" not in name)
    assert 0 < missed[known] < missed["ten names"]
    assert not any(allowlist_flags(innocent[name]) for name in ("state dict", "one tensor")) and all(map(allowlist_flags, harmful))


def test_fickling_catches_all_payloads_and_stops_plain_weights(weights):
    pytest.importorskip("fickling")
    assert all(fickling_flags(torch_file(call)) for call in supply_chain.payloads().values())
    assert fickling_flags(torch_file(weights))


def test_scanning_leaves_the_loggers_as_they_were():
    import logging
    log = logging.getLogger("picklescan")
    log.setLevel(logging.WARNING)
    assert picklescan_flags(forge(exec, CODE)) and not picklescan_flags(forge(dict))
    assert log.level == logging.WARNING


@pytest.mark.parametrize("protocol", range(6))
def test_names_are_read_in_every_protocol_also_through_the_memo(protocol):
    data = pickle.dumps([1, "os system", Call(statistics.mean, [1]), ["statistics"], Call(statistics.median, [2]), Call(statistics.mean, [])], protocol)
    assert names_in(data) == {"statistics.mean", "statistics.median"}
    assert names_in(pickle.dumps(["builtins", "exec"], protocol)) == set()
    with pytest.raises(ValueError):
        names_in(data[:-1])


def test_a_name_built_by_hand_from_something_else_than_two_strings_is_a_question_mark():
    assert names_in(b"\x80\x04\x8c\x02osK\x01\x93.") == {"?"}
    assert names_in(b"\x80\x04\x93.") == {"?"}


def test_a_list_covers_modules_and_their_submodules_and_no_others():
    names = {"os.path.join", "os.system", "ossuary.open", "torch.load"}
    assert on_list(names, ["os"]) == {"os.path.join", "os.system"} and on_list(names, []) == set()
    assert blocklist_flags(forge(eval, CODE)) and not blocklist_flags(forge(statistics.mean, [1])) and allowlist_flags(forge(statistics.mean, [1]))
    assert "os" in BLOCKED and all("." in name for name in ALLOWED)


def test_kinds_are_told_by_content(whole, weights):
    assert kind_of(whole) == "safetensors" and kind_of(torch_file(weights)) == "zip" and kind_of(supply_chain.numpy_file(Call(exec, CODE))) == "numpy"
    assert [kind_of(forge(exec, CODE, protocol=protocol)) for protocol in range(6)] == ["pickle"] * 6
    assert kind_of(b"") == kind_of(b"hello, this is text") == "unknown"
    assert any("exec" in name for name in names_in(pickles_in(supply_chain.numpy_file(Call(exec, CODE)))[0]))
    assert pickles_in(whole) == []


def test_weights_come_back_as_they_were_and_everything_else_is_told_what_it_is(whole, weights):
    loaded = load_weights(whole)
    assert loaded.keys() == weights.keys() and all(torch.equal(loaded[name], weights[name]) for name in weights)
    for data, words in ((whole[:len(whole) // 2], "cut off or damaged"), (whole[:100], "its header should have .* bytes, and 92 are there"), (b"", "signs is empty"),
                        (forge(exec, CODE), "signs is a pickle, not safetensors"), (torch_file(weights), "zip archive with a pickle inside"),
                        (supply_chain.numpy_file(1), "a numpy file"), (b"hello there, my friend", "no whole safetensors file"), (whole + b"x", "cut off or damaged")):
        with pytest.raises(ValueError, match=words):
            load_weights(data, name="signs")
    with pytest.raises(ValueError, match="data must be the bytes of a file, not str"):
        load_weights("signs.safetensors")


def test_one_file_is_a_model_to_safetensors_and_code_to_pickle(weights):
    for protocol in (0, 1, 2, 4):
        double = polyglot(weights, forge(exec, CODE, protocol=protocol))
        loaded = load_weights(double)
        assert all(torch.equal(loaded[name], weights[name]) for name in weights) and len(loaded) == len(weights) + 1
        outcomes = open_in_quarantine([("pickle", double), ("joblib", double), ("safetensors", double)])
        assert [outcome.executed for outcome in outcomes] == [True, True, False] and outcomes[2].result == "loaded"


def test_a_polyglot_of_many_tensors_works_as_well():
    many = {f"layer {k}": torch.full((3,), float(k)) for k in range(300)}
    double = polyglot(many, forge(exec, CODE))
    assert all(torch.equal(load_weights(double)[name], many[name]) for name in many)
    assert open_in_quarantine([("pickle", double)])[0].executed


def test_a_pin_refuses_every_other_file_and_asks_once(whole, weights):
    asked = []

    def fetch(revision):
        asked.append(revision)
        return whole if len(asked) == 1 else b"something else"

    wanted = pin(whole, "5f2c")
    loaded = load_pinned(fetch, wanted)
    assert asked == ["5f2c"] and all(torch.equal(loaded[name], weights[name]) for name in weights)
    generator = torch.Generator().manual_seed(0)
    for bit in torch.randint(8 * len(whole), (300,), generator=generator).tolist():
        changed = flip_bit(whole, bit)
        assert sum(a != b for a, b in zip(changed, whole)) == 1
        with pytest.raises(ValueError, match="as pinned: do not load it"):
            load_pinned(lambda revision: changed, wanted)
    with pytest.raises(ValueError, match="all 64 hexadecimal digits, not 7"):
        load_pinned(lambda revision: whole, supply_chain.Pin("5f2c", wanted.sha256[:7]))
    with pytest.raises(ValueError, match="bit must be from 0 to 7, not 8"):
        flip_bit(b"x", 8)


def test_short_hashes_can_be_matched(whole):
    alike = same_beginning(whole, b"something else", 3)
    assert alike.startswith(b"something else") and pin(alike, "").sha256[:3] == pin(whole, "").sha256[:3] and pin(alike, "") != pin(whole, "")
    assert alike == same_beginning(whole, b"something else", 3)
    with pytest.raises(ValueError, match="digits must be one of"):
        same_beginning(whole, b"", 12)
