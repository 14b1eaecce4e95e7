//! Where the fleet's state is kept, and what this controller is called, checked.

use std::path::PathBuf;

use http::Uri;
use rustls::pki_types::ServerName;
use turnfleet_proto::NodeId;

use super::{Check, TlsFiles};
use crate::config::{RawConfig, RawEtcd};
use crate::store::EtcdConfig;

/// The key file in the state directory, where no other is named.
const KEY_FILE: &str = "store.key";
/// The most members of a cluster.
const MAX_ENDPOINTS: usize = 16;

/// Where the fleet's state is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    /// The file with the key that seals secrets.
    pub key_file: PathBuf,
    /// The cluster; `None` for the embedded store.
    pub etcd: Option<EtcdConfig>,
}

/// What the other controllers know this one by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerConfig {
    /// Its name, unlike that of any other.
    pub id: NodeId,
    /// Where its gRPC listener is reached, `host:port`; empty for the listener's own address.
    pub grpc_address: String,
    /// The same for HTTP.
    pub http_address: String,
    /// The authority of the other controllers' certificates; the public ones where there is none.
    pub peer_ca: Option<PathBuf>,
    /// The name that their certificates are for; the host of the address that they are reached at where there is none.
    pub peer_name: Option<String>,
}

impl Check {
    pub(super) fn store(&mut self, raw: &RawConfig) -> StoreConfig {
        let key_file = raw.store.key_file.clone();
        let etcd = raw.store.etcd.as_ref();
        if etcd.is_some() && key_file.is_none() {
            let expected = "the file with the key that seals secrets, the same for all controllers, because store.etcd is set";
            self.fail("store.key_file", None, expected);
        }
        StoreConfig {
            key_file: key_file.unwrap_or_else(|| raw.state_dir.join(KEY_FILE)),
            etcd: etcd.map(|etcd| self.etcd(etcd)),
        }
    }

    fn etcd(&mut self, raw: &RawEtcd) -> EtcdConfig {
        if raw.endpoints.is_empty() || raw.endpoints.len() > MAX_ENDPOINTS {
            let given = raw.endpoints.len().to_string();
            let expected = format!("1 to {MAX_ENDPOINTS} client URLs");
            self.fail("store.etcd.endpoints", Some(given), expected);
        }
        let scheme = if raw.ca.is_some() { "https" } else { "http" };
        for endpoint in &raw.endpoints {
            let uri = endpoint.parse::<Uri>().ok();
            if !uri.is_some_and(|uri| uri.scheme_str() == Some(scheme) && uri.port().is_some()) {
                let expected = format!(
                    "a URL such as {scheme}://10.0.0.1:2379: https with store.etcd.ca, and http without"
                );
                self.fail("store.etcd.endpoints", Some(endpoint.clone()), expected);
            }
        }
        let client = match (&raw.certificate, &raw.key) {
            (Some(certificate), Some(key)) => Some(TlsFiles {
                certificate: certificate.clone(),
                key: key.clone(),
            }),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => {
                self.fail("store.etcd.key", None, "both certificate and key");
                None
            }
        };
        if client.is_some() && raw.ca.is_none() {
            let expected = "the certificate authority of etcd, because certificate is set";
            self.fail("store.etcd.ca", None, expected);
        }
        let password = self.secret(
            "store.etcd.password",
            raw.password.clone(),
            raw.password_file.clone(),
            1,
        );
        if raw.user.is_some() != password.is_some() {
            let expected = "both user, and password or password_file";
            self.fail("store.etcd.user", raw.user.clone(), expected);
        }
        EtcdConfig {
            endpoints: raw.endpoints.clone(),
            ca: raw.ca.clone(),
            client,
            login: raw.user.clone().zip(password),
        }
    }

    pub(super) fn controller(&mut self, raw: &RawConfig) -> Option<ControllerConfig> {
        let named = raw.id.clone().or_else(host_name);
        let expected = "a name of lower-case letters, digits, '-' and '.', unlike that of any other controller";
        let id = self.parse("id", &named.unwrap_or_default(), expected)?;
        for (key, address) in [
            ("grpc.advertise", &raw.grpc.advertise),
            ("http.advertise", &raw.http.advertise),
        ] {
            let authority = |text: &String| {
                let authority = text.parse::<http::uri::Authority>();
                authority.is_ok_and(|authority| authority.port().is_some())
            };
            if address.as_ref().is_some_and(|text| !authority(text)) {
                let expected = "host:port, such as controller-0.example.org:8081";
                self.fail(key, address.clone(), expected);
            }
        }
        let named = |name: &String| ServerName::try_from(name.as_str()).is_ok();
        if raw.grpc.peer_name.as_ref().is_some_and(|name| !named(name)) {
            let expected = "a DNS name, such as controllers.turnfleet.svc";
            self.fail("grpc.peer_name", raw.grpc.peer_name.clone(), expected);
        }
        Some(ControllerConfig {
            id,
            grpc_address: raw.grpc.advertise.clone().unwrap_or_default(),
            http_address: raw.http.advertise.clone().unwrap_or_default(),
            peer_ca: raw.grpc.peer_ca.clone(),
            peer_name: raw.grpc.peer_name.clone(),
        })
    }
}

/// The name of this machine, as far as a controller can be called so.
fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = name.map(|name| name.trim().to_ascii_lowercase());
    let usable = name.filter(|name| name.parse::<NodeId>().is_ok());
    usable.or_else(|| Some("controller".to_owned()))
}
