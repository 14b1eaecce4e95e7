//! Looks for the answers to challenges by real connections: TLS-ALPN-01 (RFC 8737) and HTTP-01 (RFC 8555 §8.3).

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use ring::digest::{SHA256, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct as Signed, SignatureScheme};

/// Whether a key was shown.
type Possessed = Result<HandshakeSignatureValid, rustls::Error>;

const LIMIT: Duration = Duration::from_secs(5);
const ALPN: &[u8] = b"acme-tls/1";
/// The critical extension acmeIdentifier with an octet string of 32 bytes, up to these.
const IDENTIFIER: &[u8] = &[
    6, 8, 0x2b, 6, 1, 5, 5, 7, 1, 0x1f, 1, 1, 0xff, 4, 0x22, 4, 0x20,
];

/// Whether `place` shows the certificate that answers for `domain`.
pub(super) fn tls_alpn(place: SocketAddr, domain: &str, authorization: &str) -> Result<(), String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    let name = ServerName::try_from(domain.to_owned()).unwrap();
    let mut tls = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = connect(place)?;
    while tls.is_handshaking() {
        let done = tls.complete_io(&mut stream);
        done.map_err(|error| format!("no handshake with {place}: {error}"))?;
    }
    if tls.alpn_protocol() != Some(ALPN) {
        return Err("acme-tls/1 was not negotiated".to_owned());
    }
    let chain = tls.peer_certificates().unwrap_or_default();
    let [only] = chain else {
        return Err("more than one certificate was shown".to_owned());
    };
    let digest = digest(&SHA256, authorization.as_bytes());
    let identifier = [IDENTIFIER, digest.as_ref()].concat();
    let named = [
        &[0x82, u8::try_from(domain.len()).unwrap()][..],
        domain.as_bytes(),
    ]
    .concat();
    let has = |wanted: &[u8]| only.windows(wanted.len()).any(|it| it == wanted);
    match (has(&named), has(&identifier)) {
        (true, true) => Ok(()),
        (false, _) => Err(format!("the certificate is not for {domain}")),
        (true, false) => Err("the certificate has not the digest".to_owned()),
    }
}

/// Whether `place` serves the text that answers for `domain`.
pub(super) fn http(
    place: SocketAddr,
    domain: &str,
    token: &str,
    authorization: &str,
) -> Result<(), String> {
    let mut stream = connect(place)?;
    let path = format!("/.well-known/acme-challenge/{token}");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {domain}\r\nConnection: close\r\n\r\n");
    let mut answer = String::new();
    let told = stream.write_all(request.as_bytes());
    told.and_then(|()| stream.read_to_string(&mut answer))
        .map_err(|error| format!("no answer from {place}: {error}"))?;
    let body = answer
        .split_once("\r\n\r\n")
        .map(|(_, body)| body.trim_end());
    match answer.starts_with("HTTP/1.1 200 ") && body == Some(authorization) {
        true => Ok(()),
        false => Err(format!("another answer: {answer:?}")),
    }
}

fn connect(place: SocketAddr) -> Result<TcpStream, String> {
    let stream = TcpStream::connect_timeout(&place, LIMIT);
    let stream = stream.map_err(|error| format!("no connection to {place}: {error}"))?;
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    Ok(stream)
}

/// Takes every certificate, to look at it, and believes that its key is there.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(&self, _: &[u8], _: &CertificateDer<'_>, _: &Signed) -> Possessed {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(&self, _: &[u8], _: &CertificateDer<'_>, _: &Signed) -> Possessed {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use rcgen::{CertificateParams, CustomExtension, KeyPair};
    use rustls::pki_types::PrivateKeyDer;
    use rustls::sign::{CertifiedKey, SingleCertAndKey};
    use rustls::{ServerConfig, ServerConnection};

    use super::*;

    /// What is found at a server that shows a certificate for `domain` with the digest of `authorization`.
    fn found_at(domain: &str, authorization: &str, alpn: &[u8]) -> Result<(), String> {
        let digest = digest(&SHA256, authorization.as_bytes());
        let mut parameters = CertificateParams::new([domain.to_owned()]).unwrap();
        let extension = CustomExtension::new_acme_identifier(digest.as_ref());
        parameters.custom_extensions = vec![extension];
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap().der().clone();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let key = rustls::crypto::ring::sign::any_supported_type(&key).unwrap();
        // The extension keeps it from being read as the certificate of a server.
        let pair = CertifiedKey::new(vec![certificate], key);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
        config.alpn_protocols = vec![alpn.to_vec()];
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let place = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut tls = ServerConnection::new(Arc::new(config)).unwrap();
            // A client that has seen enough leaves.
            while tls.is_handshaking() && tls.complete_io(&mut stream).is_ok() {}
        });
        let found = tls_alpn(place, "turn.example.org", "token.thumb");
        server.join().unwrap();
        found
    }

    #[test]
    fn only_the_right_certificate_is_an_answer() {
        found_at("turn.example.org", "token.thumb", ALPN).unwrap();
        found_at("turn.example.org", "other.thumb", ALPN).unwrap_err();
        found_at("other.example.org", "token.thumb", ALPN).unwrap_err();
        found_at("turn.example.org", "token.thumb", b"stun.turn").unwrap_err();
    }

    #[test]
    fn only_the_right_text_is_an_answer() {
        let found = |answer: &'static str| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let place = listener.local_addr().unwrap();
            let server = thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut part = [0; 1024];
                let count = stream.read(&mut part).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
                String::from_utf8(part[..count].to_vec()).unwrap()
            });
            let found = http(place, "turn.example.org", "token", "token.thumb");
            let asked = server.join().unwrap();
            assert!(asked.starts_with("GET /.well-known/acme-challenge/token HTTP/1.1\r\n"));
            found
        };
        found("HTTP/1.1 200 OK\r\n\r\ntoken.thumb").unwrap();
        found("HTTP/1.1 200 OK\r\n\r\ntoken.other").unwrap_err();
        found("HTTP/1.1 404 Not Found\r\n\r\ntoken.thumb").unwrap_err();
    }
}
