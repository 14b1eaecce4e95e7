//! TLS of coturn.

use super::Takes::{Nothing, Secret, Text};
use super::{CoturnOption, default, none, option, unneeded};
use crate::import::rules::tls as rule;

const OLD: &str = "TLS 1.2 and 1.3 are spoken, and nothing older.";
const FIXED: &str = "Only suites with forward secrecy and authenticated encryption are there, and \
         nothing is to be chosen.";

pub(super) const OPTIONS: &[CoturnOption] = &[
    option(
        "cert",
        &[],
        Text,
        "The whole chain, PEM. A relative path is taken from the folder of coturn's file.",
    )
    .becomes(&["tls-cert"], rule::certificate),
    option("pkey", &[], Text, "PEM, without a password.").becomes(&["tls-key"], rule::key),
    none(
        "pkey-pwd",
        &[],
        Secret,
        "Keys are read without a password: `openssl pkey -in KEY -out PLAIN` writes one, \
         which only the service should read.",
    ),
    unneeded("cipher-list", &[], Text, FIXED),
    unneeded("ec-curve-name", &[], Text, FIXED),
    unneeded("dh566", &[], Nothing, FIXED),
    unneeded("dh1066", &[], Nothing, FIXED),
    unneeded("dh2066", &[], Nothing, FIXED),
    unneeded("dh-file", &[], Text, FIXED),
    none(
        "CA-file",
        &[],
        Text,
        "Clients are not asked for certificates: browsers have none to show.",
    ),
    none(
        "raw-public-keys",
        &[],
        Nothing,
        "Raw public keys (RFC 7250) are not spoken: browsers check certificates.",
    ),
    default("no-sslv2", &[], Nothing, OLD),
    default("no-sslv3", &[], Nothing, OLD),
    default("no-tlsv1", &[], Nothing, OLD),
    default("no-tlsv1_1", &[], Nothing, OLD),
    none(
        "no-tlsv1_2",
        &[],
        Nothing,
        "TLS 1.2 stays for the clients that need it.",
    ),
    none("no-tlsv1_3", &[], Nothing, "TLS 1.3 stays."),
    none(
        "acme-redirect",
        &[],
        Text,
        "Nothing is redirected. The controllers order certificates themselves where their \
         section `acme` says so, and relays answer the challenges.",
    ),
];
