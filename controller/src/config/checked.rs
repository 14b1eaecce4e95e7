//! The controller's configuration when it has been checked: nothing behind this file looks at a raw value again.

mod abuse;
mod acme;
mod dns;
mod matrix;
mod store;
mod telemetry;
mod tenants;
mod webhooks;

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use md5::{Digest as _, Md5};
use sha2::Sha256;
use turnfleet_proto::credentials::SharedSecret;
use turnfleet_proto::{ConfigError, ConfigErrors, PortRange, private_file};

use super::{PortPlan, ProbeMode, RawApiToken, RawConfig, RawLists, RawProbe, RawTls, RawUser};
use crate::abuse::Settings;
use crate::fleet::ListSettings;
use crate::fleet::record::{Policy, Scope, StaticUser, Terms};

#[cfg(test)]
pub(crate) use abuse::usual_abuse;
pub use acme::AcmeConfig;
pub use dns::{DnsConfig, NameServer};
pub use matrix::MatrixConfig;
pub use store::{ControllerConfig, StoreConfig};
pub use telemetry::{LogConfig, LogFormat};
pub use webhooks::WebhookConfig;

/// The shortest token that may be configured, in characters.
const MIN_TOKEN: usize = 16;
/// The longest username in bytes, RFC 8489 §14.3.
const MAX_NAME: usize = 508;
/// The most networks in `peers.allow` and `peers.deny`, users, and API tokens.
const MAX_ENTRIES: usize = 1024;

/// The controller's configuration, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The directory of the embedded store, and of what the controller leaves for its operator.
    pub state_dir: PathBuf,
    /// Where the fleet's state is kept.
    pub store: StoreConfig,
    /// What the other controllers know this one by.
    pub controller: ControllerConfig,
    /// The HTTP API.
    pub http: ListenerConfig,
    /// Origins whose pages may call the API, or the single entry `*`.
    pub cors_origins: Vec<String>,
    /// Proxies that are believed about the addresses of clients.
    pub trusted_proxies: Vec<IpNet>,
    /// The gRPC listener; has a certificate unless its address is loopback.
    pub grpc: ListenerConfig,
    /// The certificates that relays show there.
    pub relay_certificates: RelayCertificates,
    /// The region of this controller.
    pub region: String,
    /// What every relay enforces.
    pub policy: Policy,
    /// The secret that the operator gives.
    pub shared_secret: Option<SharedSecret>,
    /// Users with a long-term key.
    pub users: Vec<StaticUser>,
    /// How the ports of a public address are shared out.
    pub ports: PortPlan,
    /// How old an active secret grows before another one follows it.
    pub rotate_secrets_every: Option<Duration>,
    /// How long a credential is good for where the caller does not say.
    pub credential_ttl: Duration,
    /// The probe.
    pub probe: ProbeConfig,
    /// How lists are made.
    pub lists: ListSettings,
    /// The DNS responder; `None` where no zone is delegated to it.
    pub dns: Option<DnsConfig>,
    /// The fleet's certificate.
    pub acme: Option<AcmeConfig>,
    /// The homeserver whose users get lists by their access tokens.
    pub matrix: Option<MatrixConfig>,
    /// The rules that find abuse.
    pub abuse: Settings,
    /// The join token that the operator gives.
    pub join_token: Option<Opaque>,
    /// API tokens that the operator gives.
    pub api_tokens: Vec<ApiTokenConfig>,
    /// Tenants by name, each with what holds for its users.
    pub tenants: Vec<(String, Terms)>,
    /// Whether users and the addresses of clients are hidden.
    pub privacy: bool,
    /// Receivers of events.
    pub webhooks: Vec<WebhookConfig>,
    /// What the process shell logs.
    pub log: LogConfig,
    /// The collector that it sends traces to.
    pub otlp_endpoint: Option<String>,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerConfig {
    /// The address.
    pub address: SocketAddr,
    /// The certificate, where it speaks TLS.
    pub tls: Option<TlsFiles>,
}

/// The certificates of relays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayCertificates {
    /// Who signs them; `None` where none are asked for.
    pub ca: Option<PathBuf>,
    /// Whether a relay has to have one.
    pub required: bool,
}

/// A certificate with its key, as PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate chain.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// The probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeConfig {
    /// What it decides.
    pub mode: ProbeMode,
    /// Time between two probes of a relay.
    pub interval: Duration,
    /// What TLS listeners are checked against.
    pub ca: Option<PathBuf>,
}

/// An API token that the operator gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiTokenConfig {
    /// What the operator calls the bearer.
    pub name: String,
    /// The token.
    pub token: Opaque,
    /// What it opens.
    pub scopes: Vec<Scope>,
    /// The tenant that it is bound to.
    pub tenant: Option<String>,
}

/// A text that no log and no error shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Opaque(String);

impl Opaque {
    /// The text.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Opaque {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Opaque {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opaque(..)")
    }
}

impl TryFrom<RawConfig> for Config {
    type Error = ConfigErrors;

    fn try_from(raw: RawConfig) -> Result<Self, ConfigErrors> {
        let mut check = Check::default();
        let config = check.config(raw);
        match config {
            Some(config) if check.errors.is_empty() => Ok(config),
            Some(_) | None => Err(check.errors),
        }
    }
}

/// Gathers errors; every method gives `None` or a stand-in where it has noted one.
#[derive(Default)]
struct Check {
    errors: ConfigErrors,
}

impl Check {
    fn config(&mut self, raw: RawConfig) -> Option<Config> {
        if raw.state_dir.as_os_str().is_empty() {
            self.fail("state_dir", None, "a directory");
        }
        self.region("region", &raw.region);
        let store = self.store(&raw);
        let controller = self.controller(&raw);
        let policy = self.policy(&raw);
        let http = self.listener("http", &raw.http.address, raw.http.tls);
        let grpc = self.listener("grpc", &raw.grpc.address, raw.grpc.tls);
        let relay_certificates = RelayCertificates {
            ca: raw.grpc.client_ca,
            required: raw.grpc.require_relay_certificate,
        };
        self.for_relays(grpc.as_ref(), &relay_certificates);
        self.origins(&raw.http.cors_origins);
        let trusted_proxies = self.networks("http.trusted_proxies", &raw.http.trusted_proxies);

        let users = self.users(&raw.users, &raw.realm);
        let ports = self.ports(&raw.relay_ports, raw.relays_per_address);
        let rotate = raw.secrets.rotate_every_seconds;
        if rotate > 0 {
            self.within("secrets.rotate_every_seconds", rotate, 3600, 31_536_000);
        }
        let ttl = raw.credentials.ttl_seconds;
        self.within("credentials.ttl_seconds", ttl, 300, 86400);
        let probe = self.probe(raw.probe);
        let shared_secret = self.secret(
            "shared_secret",
            raw.shared_secret,
            raw.shared_secret_file,
            1,
        );
        let join_token = self.secret("join_token", raw.join_token, raw.join_token_file, MIN_TOKEN);
        let api_tokens = self.api_tokens(raw.api_tokens);
        let tenants = self.tenants(raw.tenants, &raw.realm);
        let lists = self.lists(raw.lists);
        let dns = self.dns(raw.dns);
        let matrix = self.matrix(raw.matrix);
        Some(Config {
            state_dir: raw.state_dir,
            store,
            controller: controller?,
            http: http?,
            cors_origins: raw.http.cors_origins,
            trusted_proxies,
            grpc: grpc?,
            relay_certificates,
            region: raw.region,
            policy,
            shared_secret: shared_secret.map(|secret| SharedSecret::new(secret.0)),
            users,
            ports: ports?,
            rotate_secrets_every: (rotate > 0).then(|| Duration::from_secs(rotate)),
            credential_ttl: Duration::from_secs(ttl),
            probe,
            lists,
            dns,
            acme: self.acme(raw.acme),
            matrix,
            abuse: self.abuse(raw.abuse),
            join_token,
            api_tokens,
            tenants,
            privacy: raw.privacy,
            webhooks: self.webhooks(raw.webhooks),
            log: self.log(raw.log),
            otlp_endpoint: self.otlp_endpoint(raw.telemetry),
        })
    }

    fn probe(&mut self, raw: RawProbe) -> ProbeConfig {
        let interval = raw.interval_milliseconds;
        self.within("probe.interval_milliseconds", interval, 200, 60_000);
        ProbeConfig {
            mode: raw.mode,
            interval: Duration::from_millis(interval),
            ca: raw.ca,
        }
    }

    fn lists(&mut self, raw: RawLists) -> ListSettings {
        self.bounded("lists.regions", raw.regions.len());
        for region in &raw.regions {
            self.region("lists.regions", region);
        }
        ListSettings {
            names: raw.names,
            regions: raw.regions,
        }
    }

    fn fail(&mut self, key: impl Into<String>, value: Option<String>, expected: impl Into<String>) {
        self.errors.push(ConfigError::new(key, value, expected));
    }

    fn within(&mut self, key: &str, value: u64, least: u64, most: u64) {
        if !(least..=most).contains(&value) {
            self.fail(
                key,
                Some(value.to_string()),
                format!("a number from {least} to {most}"),
            );
        }
    }

    fn parse<T: FromStr>(&mut self, key: &str, text: &str, expected: &str) -> Option<T> {
        let value = text.parse().ok();
        if value.is_none() {
            self.fail(key, Some(text.to_owned()), expected);
        }
        value
    }

    fn region(&mut self, key: &str, region: &str) {
        if !is_name(region) {
            self.fail(key, Some(region.to_owned()), NAME);
        }
    }

    fn listener(
        &mut self,
        key: &str,
        address: &str,
        tls: Option<RawTls>,
    ) -> Option<ListenerConfig> {
        let expected = "an address of the form ip:port, such as 127.0.0.1:8080";
        let address = self.parse(&format!("{key}.address"), address, expected)?;
        let tls = tls.map(|tls| TlsFiles {
            certificate: tls.certificate,
            key: tls.key,
        });
        Some(ListenerConfig { address, tls })
    }

    /// Whether relays can come to the gRPC listener as they shall.
    fn for_relays(&mut self, grpc: Option<&ListenerConfig>, certificates: &RelayCertificates) {
        if let Some(grpc) = grpc.filter(|grpc| grpc.tls.is_none()) {
            let expected = "a certificate and key, because";
            if !grpc.address.ip().is_loopback() {
                let why = "grpc.address is not a loopback address";
                self.fail("grpc.tls", None, format!("{expected} {why}"));
            } else if certificates.ca.is_some() {
                self.fail(
                    "grpc.tls",
                    None,
                    format!("{expected} grpc.client_ca is set"),
                );
            }
        }
        if certificates.required && certificates.ca.is_none() {
            let expected = "the authority of the relays' certificates, because grpc.require_relay_certificate is set";
            self.fail("grpc.client_ca", None, expected);
        }
    }

    fn origins(&mut self, origins: &[String]) {
        for origin in origins {
            let rest = origin
                .strip_prefix("https://")
                .or_else(|| origin.strip_prefix("http://"));
            let plain = rest.is_some_and(|rest| {
                !rest.is_empty() && rest.chars().all(|c| c.is_ascii_graphic() && c != '/')
            });
            if !plain && origin != "*" {
                let expected = "an origin such as https://meet.example.org, without a path, or *";
                self.fail("http.cors_origins", Some(origin.clone()), expected);
            }
        }
    }

    fn policy(&mut self, raw: &RawConfig) -> Policy {
        let realm = &raw.realm;
        if realm.is_empty() || realm.chars().count() > 127 || realm.chars().any(char::is_control) {
            let expected = "1 to 127 characters without control characters";
            self.fail("realm", Some(realm.clone()), expected);
        }
        let limits = &raw.limits;
        self.within(
            "limits.allocations_per_user",
            limits.allocations_per_user.into(),
            1,
            u32::MAX.into(),
        );
        let lifetime = limits.max_lifetime_seconds;
        self.within("limits.max_lifetime_seconds", lifetime.into(), 600, 86400);
        let session = limits.max_session_seconds;
        if session != 0 {
            let key = "limits.max_session_seconds";
            self.within(key, session.into(), 600, u32::MAX.into());
        }
        Policy {
            realm: realm.clone(),
            allow_peers: self.networks("peers.allow", &raw.peers.allow),
            deny_peers: self.networks("peers.deny", &raw.peers.deny),
            danger_allow_loopback: raw.peers.danger_allow_loopback,
            allocations_per_user: limits.allocations_per_user,
            max_lifetime_seconds: lifetime,
            max_session_seconds: session,
            strict_expiry: limits.strict_expiry,
            tcp_relaying: raw.tenant.tcp_relaying,
        }
    }

    fn networks(&mut self, key: &str, texts: &[String]) -> Vec<IpNet> {
        self.bounded(key, texts.len());
        let expected = "a network such as 10.1.0.0/16, or an address";
        texts
            .iter()
            .filter_map(|text| match text.parse() {
                Ok(ip) => Some(IpNet::from(std::net::IpAddr::to_canonical(&ip))),
                Err(_) => self
                    .parse::<IpNet>(key, text, expected)
                    .map(|net| net.trunc()),
            })
            .collect()
    }

    fn bounded(&mut self, key: &str, entries: usize) {
        if entries > MAX_ENTRIES {
            self.fail(
                key,
                Some(entries.to_string()),
                format!("at most {MAX_ENTRIES} entries"),
            );
        }
    }

    fn users(&mut self, users: &[RawUser], realm: &str) -> Vec<StaticUser> {
        self.bounded("users", users.len());
        let mut names = BTreeSet::new();
        for user in users {
            if user.name.is_empty() || user.name.len() > MAX_NAME {
                let expected = "a username of 1 to 508 bytes";
                self.fail("users.name", Some(user.name.clone()), expected);
            }
            if !names.insert(&user.name) {
                self.fail("users.name", Some(user.name.clone()), "each username once");
            }
            if user.password.is_empty() {
                self.fail(
                    "users.password",
                    None,
                    format!("a password for {:?}", user.name),
                );
            }
        }
        users.iter().map(|user| static_user(user, realm)).collect()
    }

    fn ports(&mut self, range: &str, relays_per_address: u32) -> Option<PortPlan> {
        let range: Option<PortRange> = range
            .parse()
            .inspect_err(|error| {
                let expected = format!("a range of ports such as 49152-65535 ({error})");
                self.fail("relay_ports", Some(range.to_owned()), expected);
            })
            .ok();
        self.within("relays_per_address", relays_per_address.into(), 0, 1024);
        let plan = PortPlan {
            range: range?,
            relays_per_address,
        };
        if relays_per_address != 0 && plan.share() == 0 {
            let expected =
                format!("a range that gives each of {relays_per_address} relays two ports");
            self.fail("relay_ports", Some(plan.range.to_string()), expected);
        }
        Some(plan)
    }

    fn secret(
        &mut self,
        key: &str,
        inline: Option<String>,
        file: Option<PathBuf>,
        least: usize,
    ) -> Option<Opaque> {
        let text = match (inline, file) {
            (Some(_), Some(_)) => {
                self.fail(key, None, format!("one of {key} and {key}_file"));
                return None;
            }
            (Some(text), None) => text,
            (None, Some(path)) => self.file(&format!("{key}_file"), &path)?,
            (None, None) => return None,
        };
        if text.len() < least {
            let plural = if least == 1 { "" } else { "s" };
            self.fail(key, None, format!("at least {least} character{plural}"));
        }
        Some(Opaque(text))
    }

    fn file(&mut self, key: &str, path: &Path) -> Option<String> {
        match private_file::read_secret(path) {
            Ok(text) => Some(text),
            Err(error) => {
                let value = Some(path.display().to_string());
                self.fail(key, value, format!("a readable text file ({error})"));
                None
            }
        }
    }

    fn api_tokens(&mut self, tokens: Vec<RawApiToken>) -> Vec<ApiTokenConfig> {
        self.bounded("api_tokens", tokens.len());
        tokens
            .into_iter()
            .filter_map(|token| self.api_token(token))
            .collect()
    }

    fn api_token(&mut self, raw: RawApiToken) -> Option<ApiTokenConfig> {
        let scopes: Vec<Scope> = raw
            .scopes
            .iter()
            .filter_map(|scope| {
                self.parse(
                    "api_tokens.scopes",
                    scope,
                    "mint, viewer, operator or admin",
                )
            })
            .collect();
        if raw.scopes.is_empty() {
            self.fail(
                "api_tokens.scopes",
                None,
                format!("a scope for {:?}", raw.name),
            );
        }
        if raw.token.is_none() && raw.token_file.is_none() {
            let expected = format!("a token or token_file for {:?}", raw.name);
            self.fail("api_tokens.token", None, expected);
        }
        let tenant = raw.tenant.as_deref();
        if tenant.is_some_and(|tenant| !is_name(tenant)) {
            self.fail("api_tokens.tenant", raw.tenant.clone(), NAME);
        }
        let token = self.secret("api_tokens.token", raw.token, raw.token_file, MIN_TOKEN)?;
        Some(ApiTokenConfig {
            name: raw.name,
            token,
            scopes,
            tenant: raw.tenant,
        })
    }
}

/// What [`is_name`] asks for.
pub(crate) const NAME: &str = "1 to 63 letters, digits, '-', '_' and '.'";

/// Whether `text` can be the name of a region, a tenant or a token.
pub(crate) fn is_name(text: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=63).contains(&text.len()) && text.bytes().all(letter)
}

fn static_user(user: &RawUser, realm: &str) -> StaticUser {
    let text = [&user.name, ":", realm, ":", &user.password].concat();
    StaticUser {
        name: user.name.clone(),
        key: Md5::digest(&text).into(),
        key_sha256: Some(Sha256::digest(&text).into()),
    }
}
