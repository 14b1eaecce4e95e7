//! One request a connection over HTTPS: what the authority's API needs of HTTP.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::issue::Issuer;

/// A request, with the names of its headers in lower case.
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: Vec<u8>,
}

/// An answer.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: String,
}

pub(super) fn server_config(issuer: &Issuer) -> Arc<ServerConfig> {
    let (chain, key) = issuer.own("localhost");
    let chain = CertificateDer::from_pem_slice(chain.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![chain], key)
        .unwrap();
    Arc::new(config)
}

/// Answers the one request of `stream`; whoever leaves early gets nothing.
pub(super) fn serve(
    stream: TcpStream,
    tls: Arc<ServerConfig>,
    answer: impl FnOnce(&Request) -> Answer,
) {
    let limit = Some(Duration::from_secs(10));
    if stream.set_read_timeout(limit).is_err() || stream.set_nodelay(true).is_err() {
        return;
    }
    let mut stream = StreamOwned::new(ServerConnection::new(tls).unwrap(), stream);
    let Some(request) = read(&mut stream) else {
        return;
    };
    let Answer {
        status,
        headers,
        body,
    } = answer(&request);
    let headers: String = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} .\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n"
    );
    let body = if request.method == "HEAD" { "" } else { &body };
    let _ = stream.write_all((head + body).as_bytes());
    stream.conn.send_close_notify();
    let _ = stream.flush();
}

fn read(stream: &mut StreamOwned<ServerConnection, TcpStream>) -> Option<Request> {
    let mut bytes = Vec::new();
    let mut part = [0; 4096];
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|it| it == b"\r\n\r\n") {
            break end;
        }
        match stream.read(&mut part) {
            Ok(count) if count > 0 => bytes.extend_from_slice(&part[..count]),
            _ => return None,
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).ok()?;
    let mut lines = head.split("\r\n");
    let mut words = lines.next()?.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let headers: BTreeMap<_, _> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers.get("content-length");
    let length = length.map_or(Some(0), |length| length.parse::<usize>().ok())?;
    let mut body = bytes.split_off(end + 4);
    while body.len() < length {
        match stream.read(&mut part) {
            Ok(count) if count > 0 => body.extend_from_slice(&part[..count]),
            _ => return None,
        }
    }
    Some(Request {
        method,
        path,
        headers,
        body,
    })
}
