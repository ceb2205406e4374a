"""TLS in the lab: an authority of one's own, what its certificates are worth to a client, and why a client says no.

    ca = LabCA()
    front = Proxy(service.url, certificate=ca.issue())                       # shows the certificate
    RemoteModel(front.url, context=client_context(ca.certificate))           # believes this authority, and no other

Keys and certificates stay in memory; the authority is trustme's, which is made for tests. No name is looked up: hosts are addresses.
"""
import http.client
import ssl
from datetime import datetime, timedelta, timezone

from mlsec_lab.victims.inputs import check_number
from mlsec_lab.victims.proxy_process import server_context


class LabCA:
    """A certificate authority.  certificate: its own, PEM text, which whoever is to believe it loads."""

    def __init__(self):
        import trustme
        self._ca = trustme.CA()
        self.certificate = self._ca.cert_pem.bytes().decode()

    def issue(self, host="127.0.0.1", *, begins=-1, ends=7):
        """A private key and its certificate for `host`, PEM text.  begins, ends: of its time, in days from now; below 0 is in the past."""
        check_number(begins, "begins")
        check_number(ends, "ends", above=begins)
        now = datetime.now(timezone.utc)
        try:
            leaf = self._ca.issue_cert(host, not_before=now + timedelta(days=begins), not_after=now + timedelta(days=ends))
        except (TypeError, ValueError) as error:
            raise ValueError(f"host must be an address or a name, such as '127.0.0.1', not {host!r} ({error})") from error
        return leaf.private_key_and_cert_chain_pem.bytes().decode()


def client_context(certificate):
    """An ssl.SSLContext that believes one authority only, for the host that was asked for, at this time.

    certificate: the authority's, PEM text.  ValueError where it is none.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # from here on it checks the chain, the time and the host
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(cadata=certificate)
    except (ssl.SSLError, TypeError, ValueError) as error:
        raise ValueError(f"certificate must be PEM text of the authority's certificate, such as LabCA().certificate ({error})") from error
    return context


def handshake(context, certificate, host="127.0.0.1"):
    """What a client with `context` makes of `certificate` when it has asked for `host`: returns the version of TLS, or raises ssl.SSLError.

    Both sides are in this process, and no socket between them.
    """
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(back, there, server_hostname=host)
    server = server_context(certificate).wrap_bio(there, back, server_side=True)
    open_ends = [client, server]
    while open_ends:
        for side in list(open_ends):
            try:
                side.do_handshake()
                open_ends.remove(side)
            except ssl.SSLWantReadError:
                pass
    return client.version()


UNKNOWN, EARLY, LATE, HOST = (2, 18, 19, 20, 21), (9,), (10,), (62, 63, 64)  # OpenSSL's numbers, X509_V_ERR_…


def explain(error):
    """One sentence on why an exchange failed, from the exception that came of it: what was found, and what to do."""
    cause = error
    while cause is not None and not isinstance(cause, (ssl.SSLError, http.client.IncompleteRead)):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return str(error)
    if isinstance(cause, http.client.IncompleteRead):
        return f"the answer broke off after {len(cause.partial):,} bytes, {cause.expected:,} before its end: nothing of it was used; ask again"
    code = getattr(cause, "verify_code", None)
    if code in UNKNOWN:
        return ("the certificate is signed by an authority that this client does not know: somebody may stand in the middle; "
                "or load the certificate of the right authority")
    if code in EARLY:
        return "the certificate is not valid yet: it was made for later, or this computer's clock is behind"
    if code in LATE:
        return "the certificate is out of date: have it renewed, or set this computer's clock, which is ahead"
    if code in HOST:
        return "the certificate is for another host than the one that was asked for: check the address, or have one made for it"
    if code is not None:
        return f"the certificate is not accepted: {cause.verify_message}"
    return f"what came is not what the other side has encrypted, or no TLS at all ({cause.reason or cause}): nothing of it was used"
