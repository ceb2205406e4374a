"""A lab's authority, what a client makes of its certificates, and the sentence that says why not."""
import ssl

import pytest

from mlsec_lab.victims.client import RemoteModel
from mlsec_lab.victims.proxy import Proxy
from mlsec_lab.victims.tls import LabCA, client_context, explain, handshake


@pytest.fixture(scope="module")
def ca():
    return LabCA()


def refusal(context, certificate, host="127.0.0.1"):
    with pytest.raises(ssl.SSLError) as caught:
        handshake(context, certificate, host)
    return explain(caught.value)


def test_a_client_takes_what_its_authority_has_certified_and_nothing_else(ca):
    context = client_context(ca.certificate)
    assert handshake(context, ca.issue()) == "TLSv1.3"
    assert handshake(context, ca.issue("signs.example"), "signs.example") == "TLSv1.3"
    assert "an authority that this client does not know" in refusal(context, LabCA().issue())
    assert "for another host" in refusal(context, ca.issue("127.0.0.2"))
    assert "for another host" in refusal(context, ca.issue(), "signs.example")


def test_a_certificate_holds_from_its_beginning_to_its_end_and_the_sentence_names_the_clock(ca):
    context = client_context(ca.certificate)
    late, early = refusal(context, ca.issue(begins=-3, ends=-1)), refusal(context, ca.issue(begins=1, ends=3))
    assert "out of date" in late and "clock, which is ahead" in late
    assert "not valid yet" in early and "clock is behind" in early
    assert handshake(context, ca.issue(begins=-1, ends=0.001)) == "TLSv1.3"


def test_a_client_that_believes_the_other_authority_takes_the_others_certificate(ca):
    other = LabCA()
    assert handshake(client_context(other.certificate), other.issue()) == "TLSv1.3"
    assert len(client_context(other.certificate).get_ca_certs()) == 1


def test_no_key_and_no_certificate_stays_in_a_file(ca, temporary_files):
    handshake(client_context(ca.certificate), ca.issue())
    with Proxy("http://127.0.0.1:9", certificate=ca.issue()):
        assert list(temporary_files.rglob("*")) == []
    assert list(temporary_files.rglob("*")) == []


@pytest.mark.parametrize("call, words", [
    (lambda ca: ca.issue(host=""), "host must be"), (lambda ca: ca.issue(host=3), "host must be"), (lambda ca: ca.issue(begins=2, ends=1), "ends must be greater than 2"),
    (lambda ca: ca.issue(begins="now"), "begins must be a number"), (lambda ca: client_context("no certificate"), "certificate must be PEM text"),
    (lambda ca: client_context(None), "certificate must be PEM text")])
def test_bad_arguments_are_named(ca, call, words):
    with pytest.raises(ValueError, match=words):
        call(ca)


def test_whatever_is_no_matter_of_tls_keeps_its_own_words():
    assert explain(ConnectionError("nothing answers")) == "nothing answers"


def test_plain_text_where_tls_was_expected_is_said_to_be_none(ca):
    with Proxy("http://127.0.0.1:9") as proxy, pytest.raises(ConnectionError) as caught:
        RemoteModel(proxy.url.replace("http:", "https:"), context=client_context(ca.certificate))
    assert "no TLS at all" in explain(caught.value)
