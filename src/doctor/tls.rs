//! What TLS shows of a server: the chain of its certificate, the names, how long it is good for, and the versions.
//!
//! A client of the doctor takes any certificate, so that the rest is looked at too; what is wrong with one is a finding.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion, version};
use turnfleet_proto::DangerAnybody;
use turnfleet_proto::certificate::validity_of;

use super::catalogue::{TLS_CHAIN, TLS_EXPIRY, TLS_NAME, TLS_VERSIONS};
use super::old_tls;
use super::report::Report;
use super::way::{CONNECT_TIMEOUT, Way};
use crate::credentials::unix_now;
use crate::link::Tls;

/// How long a handshake may take once the connection is let in.
const PATIENCE: Duration = Duration::from_secs(2);
/// Less than this is left of a certificate that ought to have been renewed.
const SOON: u64 = 14 * DAY;
const DAY: u64 = 86_400;

/// Whom browsers trust, and whom they are told to.
pub(super) struct Trust {
    public: RootCertStore,
    /// Those of `--ca`.
    own: RootCertStore,
    provider: Arc<CryptoProvider>,
    anything: Arc<ClientConfig>,
}

impl Trust {
    /// The public authorities, and those of a file.
    pub(super) fn new(ca: Option<&Path>) -> Result<Self> {
        let mut public = RootCertStore::empty();
        public.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        let mut own = RootCertStore::empty();
        if let Some(ca) = ca {
            let shown = || format!("--ca {}", ca.display());
            for certificate in CertificateDer::pem_file_iter(ca).with_context(shown)? {
                own.add(certificate.with_context(shown)?)
                    .with_context(shown)?;
            }
        }
        let provider = Arc::new(ring::default_provider());
        let anything = config(&provider, rustls::ALL_VERSIONS)?;
        Ok(Self {
            public,
            own,
            provider,
            anything,
        })
    }

    /// How TLS is spoken with `host`, whatever certificate it shows; `None` where that is no name.
    pub(super) fn of(&self, host: &str) -> Option<Tls> {
        let name = ServerName::try_from(host.to_owned()).ok()?;
        Some((Arc::clone(&self.anything), name))
    }

    /// Looks at everything that TLS shows on the way.
    pub(super) fn look(&self, way: &Way, report: &Report) {
        let Some((_, name)) = &way.tls else {
            return;
        };
        // Where no connection is let in, reach.tls has said so.
        if connect(way.candidate.address).is_err() {
            return;
        }
        let subject = way.to_string();
        let versions = [("1.2", &version::TLS12), ("1.3", &version::TLS13)];
        let chains = versions.map(|(shown, version)| {
            let chain = config(&self.provider, &[version])
                .and_then(|config| handshake(way.candidate.address, config, name));
            (shown, chain)
        });
        versions_of(way, &chains, report);
        let chain = chains.into_iter().find_map(|(_, chain)| chain.ok());
        let Some(chain) = chain.filter(|chain| !chain.is_empty()) else {
            return;
        };
        self.judge(&chain, name, &subject, report);
    }

    /// Looks at chain and name as they are on a day on which the certificate is valid, and at the day by itself: each has
    /// another remedy.
    fn judge(
        &self,
        chain: &[CertificateDer<'static>],
        name: &ServerName<'_>,
        subject: &str,
        report: &Report,
    ) {
        let now = unix_now().unwrap_or_default();
        let (Some(end), Some((first, last))) = (chain.first(), chain.first().and_then(validity_of))
        else {
            report.fail(TLS_CHAIN, subject, "the certificate cannot be read");
            return;
        };
        let parsed = match ParsedCertificate::try_from(end) {
            Ok(parsed) => parsed,
            Err(error) => {
                report.fail(TLS_CHAIN, subject, format!("the certificate: {error}"));
                return;
            }
        };
        let issuers = &chain[1..];
        let verify = |roots: &RootCertStore, at: u64| {
            verify_server_cert_signed_by_trust_anchor(
                &parsed,
                roots,
                issuers,
                UnixTime::since_unix_epoch(Duration::from_secs(at)),
                self.provider.signature_verification_algorithms.all,
            )
        };
        let day = now.max(first).min(last);
        match (verify(&self.public, day), verify(&self.own, day)) {
            (Ok(()), _) => report.pass(TLS_CHAIN, subject, "it leads to a public authority"),
            (_, Ok(())) => report.pass(
                TLS_CHAIN,
                subject,
                "it leads to the authority of --ca; browsers need that one installed",
            ),
            (Err(error), _) if error.to_string().contains("CaUsedAsEndEntity") => report.fail_with(
                TLS_CHAIN,
                subject,
                "it is the certificate of an authority (CA:TRUE), as `openssl req -x509` makes them, which Firefox, among others, takes for no server's",
                "have an authority sign a certificate for the relay that is none itself (CA:FALSE), and name that authority with --ca",
            ),
            (Err(error), _) => report.fail(
                TLS_CHAIN,
                subject,
                format!(
                    "it leads to no authority that is known ({error}); the server shows {} of the chain",
                    chain.len()
                ),
            ),
        }
        match verify_server_name(&parsed, name) {
            Ok(()) => report.pass(TLS_NAME, subject, format!("it is for {}", name.to_str())),
            Err(error) => report.fail(TLS_NAME, subject, format!("{error}")),
        }
        expiry(now, (first, last), subject, report);
    }
}

/// The certificate of a server and those that it shows behind it.
type Chain = Vec<CertificateDer<'static>>;

fn versions_of(way: &Way, chains: &[(&str, Result<Chain>); 2], report: &Report) {
    let subject = way.to_string();
    let spoken = chains.iter().filter(|(_, chain)| chain.is_ok());
    let spoken: Vec<&str> = spoken.map(|(shown, _)| *shown).collect();
    if spoken.is_empty() {
        return;
    }
    let shown = spoken.join(" and ");
    match (old_tls::takes(way.candidate.address), &spoken[..]) {
        (Some(old), _) => report.warn(
            TLS_VERSIONS,
            &subject,
            format!("TLS {shown} is spoken, and TLS {old} too, which RFC 8996 forbids"),
        ),
        (None, [only]) => report.warn(
            TLS_VERSIONS,
            &subject,
            format!("TLS {only} is spoken, and nothing else"),
        ),
        (None, _) => {
            report.pass(TLS_VERSIONS, &subject, format!("TLS {shown} are spoken"));
        }
    }
}

fn expiry(now: u64, (first, last): (u64, u64), subject: &str, report: &Report) {
    if now < first {
        let text = format!(
            "it is valid only in {} days by the clock here: that clock is wrong, or the one it was made by",
            (first - now).div_ceil(DAY)
        );
        report.fail_with(TLS_EXPIRY, subject, text, "set the clock here, or wait");
    } else if now > last {
        let days = (now - last) / DAY;
        report.fail(TLS_EXPIRY, subject, format!("it expired {days} days ago"));
    } else if last - now < SOON {
        let days = (last - now) / DAY;
        report.warn(TLS_EXPIRY, subject, format!("it expires in {days} days"));
    } else {
        let days = (last - now) / DAY;
        report.pass(TLS_EXPIRY, subject, format!("it is valid for {days} days"));
    }
}

fn config(
    provider: &Arc<CryptoProvider>,
    versions: &[&'static SupportedProtocolVersion],
) -> Result<Arc<ClientConfig>> {
    let config = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(versions)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(DangerAnybody(Arc::clone(provider))))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// The chain that the server shows in a handshake.
fn handshake(
    server: SocketAddr,
    config: Arc<ClientConfig>,
    name: &ServerName<'static>,
) -> Result<Chain> {
    let mut stream = connect(server)?;
    let mut tls = ClientConnection::new(config, name.clone())?;
    while tls.is_handshaking() {
        match tls.complete_io(&mut stream) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("no handshake"),
        }
    }
    let chain = tls.peer_certificates().unwrap_or_default().to_vec();
    tls.send_close_notify();
    // The server may have gone.
    let _ = tls.complete_io(&mut stream);
    Ok(chain)
}

/// Whether TLS is spoken at `server`, with whatever certificate.
pub(super) fn is_spoken(server: SocketAddr, host: &str) -> bool {
    let provider = Arc::new(ring::default_provider());
    let name = ServerName::try_from(host.to_owned());
    let name = name.unwrap_or_else(|_| server.ip().into());
    let config = config(&provider, rustls::ALL_VERSIONS);
    config.is_ok_and(|config| handshake(server, config, &name).is_ok())
}

/// A stream whose every read and write has an end.
pub(super) fn connect(server: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&server, CONNECT_TIMEOUT)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}
