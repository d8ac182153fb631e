//! Every parameter that libpq knows, and what becomes of it: it works, it changes nothing, or it is refused by name.
//!
//! The list is the PostgreSQL manual's "Parameter Key Words" up to version 18, and the two that it has dropped.

/// What becomes of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Treatment {
    /// It is obeyed.
    Works,
    /// These values (besides none at all) ask for what happens anyway; others are refused, with what to do instead.
    Only(&'static [&'static str], &'static str),
}

use Treatment::{Only, Works};

const CLIENT_CERTIFICATE: &str =
    "client certificates are not supported: log in with a password, best from password_file";
const REVOCATION: &str =
    "revocation lists are not read: leave it out and trust authorities whose certificates live shortly";
const KERBEROS: &str = "Kerberos and GSSAPI are not supported: leave it out and log in with a password";
const SERVICE: &str = "service files are not read: write the service's parameters into this URL";
const OAUTH: &str = "OAuth is not supported: leave it out and log in with a password";
const SCRAM: &str = "SCRAM keys are not supported: leave it out and write the password into password_file";

/// Every parameter.
pub(super) const KEYS: &[(&str, Treatment)] = &[
    ("host", Works),
    ("hostaddr", Works),
    ("port", Works),
    ("dbname", Works),
    ("user", Works),
    ("password", Works),
    ("passfile", Works),
    ("require_auth", Only(&[], "leave it out; channel_binding=require makes sure that the server knows the password")),
    ("channel_binding", Works),
    ("connect_timeout", Works),
    ("client_encoding", Only(&["utf8", "utf-8", "unicode", "auto"], "the driver speaks UTF8 only: leave it out")),
    ("options", Works),
    ("application_name", Works),
    ("fallback_application_name", Works),
    ("keepalives", Works),
    ("keepalives_idle", Works),
    ("keepalives_interval", Works),
    ("keepalives_count", Works),
    ("tcp_user_timeout", Works),
    ("replication", Only(&["false", "off", "no", "0"], "a replication connection answers no queries: leave it out")),
    ("gssencmode", Only(&["disable", "prefer"], KERBEROS)),
    ("sslmode", Works),
    ("requiressl", Only(&[], "it is obsolete: write sslmode=require or sslmode=verify-full")),
    ("sslnegotiation", Works),
    ("sslcompression", Only(&["0"], "TLS compression is insecure and gone: leave it out")),
    ("sslcert", Only(&[], CLIENT_CERTIFICATE)),
    ("sslkey", Only(&[], CLIENT_CERTIFICATE)),
    ("sslkeylogfile", Only(&[], "session keys are never written to a file: leave it out")),
    ("sslpassword", Only(&[], CLIENT_CERTIFICATE)),
    ("sslcertmode", Only(&["disable", "allow"], CLIENT_CERTIFICATE)),
    ("sslrootcert", Works),
    ("sslcrl", Only(&[], REVOCATION)),
    ("sslcrldir", Only(&[], REVOCATION)),
    ("sslsni", Only(&["1"], "the host's name is always sent (SNI): leave it out")),
    ("requirepeer", Only(&[], "a socket's owner is not checked: leave it out and protect the socket's directory")),
    (
        "ssl_min_protocol_version",
        Only(&["tlsv1", "tlsv1.1", "tlsv1.2"], "at least TLS 1.2 always holds; to demand 1.3 set it on the server"),
    ),
    ("ssl_max_protocol_version", Only(&["tlsv1.3"], "leave it out: the newest version that both sides know is used")),
    ("min_protocol_version", Only(&["3.0"], "the driver speaks protocol 3.0: leave it out")),
    ("max_protocol_version", Only(&["3.0", "3.2", "latest"], "the driver speaks protocol 3.0: leave it out")),
    ("krbsrvname", Only(&["postgres"], KERBEROS)),
    ("gsslib", Only(&["gssapi"], KERBEROS)),
    ("gssdelegation", Only(&["0"], KERBEROS)),
    ("scram_client_key", Only(&[], SCRAM)),
    ("scram_server_key", Only(&[], SCRAM)),
    ("service", Only(&[], SERVICE)),
    ("servicefile", Only(&[], SERVICE)),
    ("target_session_attrs", Works),
    ("load_balance_hosts", Only(&["disable"], "declare each host as an alias, and a group with balance = \"random\"")),
    ("oauth_issuer", Only(&[], OAUTH)),
    ("oauth_client_id", Only(&[], OAUTH)),
    ("oauth_client_secret", Only(&[], OAUTH)),
    ("oauth_scope", Only(&[], OAUTH)),
];

/// What becomes of the parameter of this name; none when libpq does not know it either.
pub(super) fn treatment(name: &str) -> Option<(&'static str, Treatment)> {
    KEYS.iter().find(|(key, _)| *key == name).copied()
}
