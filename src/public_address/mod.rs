//! Finds the address that clients and peers see of a relay behind 1:1 NAT, where nobody can write it down before the machine is
//! there: a cloud's metadata service, a STUN server, the environment or a file tells it.
//!
//! It is asked once, before the relay starts, and becomes the key `public_ips`. Every source has a bound on its time and on
//! what is read from it; a source without an answer keeps the relay from starting, since a relay with a wrong address serves
//! nobody.

mod metadata;
mod stun;

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use metadata::Cloud;

/// The key that the answer becomes.
const KEY: &str = "public_ips";
/// Addresses that a machine may have.
const MOST: usize = 16;
/// Bytes of a file or an answer.
const MAX_LEN: u64 = 4096;
/// How often a source is asked: a machine may boot faster than its network.
const ATTEMPTS: usize = 5;
/// Between two attempts.
const PAUSE: Duration = Duration::from_secs(2);

/// Who is asked, as a flag.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct Args {
    /// Finds the address that clients and peers see and sets `public_ips` to it: from the metadata service of `aws`, `google`
    /// or `azure`, by a STUN server (`stun:HOST:PORT`), from an environment variable (`env:NAME`) or a file (`file:PATH`)
    #[arg(
        long,
        value_name = "SOURCE",
        env = "TURNFLEET_RELAY_PUBLIC_IP_FROM",
        hide_env_values = true
    )]
    public_ip_from: Option<Source>,
    /// Where the metadata service is, for tests
    #[arg(long, hide = true, default_value = metadata::USUAL)]
    metadata_url: String,
}

impl Args {
    /// The key and value that the configuration gets, if the flag is there.
    ///
    /// # Errors
    /// When the source has no address, and what it said instead.
    pub(crate) async fn find(&self) -> Result<Option<(String, String)>> {
        let Some(source) = self.public_ip_from.clone() else {
            return Ok(None);
        };
        let metadata_url = self.metadata_url.clone();
        let asked = tokio::task::spawn_blocking(move || source.ask(&metadata_url));
        let found = asked.await.context("--public-ip-from")??;
        let texts: Vec<String> = found.iter().map(ToString::to_string).collect();
        Ok(Some((KEY.to_owned(), texts.join(","))))
    }
}

/// Who knows the address.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    /// The metadata service of a cloud.
    Cloud(Cloud),
    /// A STUN server, `HOST:PORT`.
    Stun(String),
    /// An environment variable.
    Environment(String),
    /// A file.
    File(PathBuf),
}

impl Source {
    /// Asks until there is an answer, or patience ends.
    fn ask(&self, metadata_url: &str) -> Result<Vec<IpAddr>> {
        let mut attempt = 1;
        loop {
            let asked = match self {
                Self::Cloud(cloud) => cloud.ask(metadata_url),
                Self::Stun(server) => stun::ask(server).map(|ip| vec![ip]),
                Self::Environment(name) => from_environment(name),
                Self::File(path) => from_file(path),
            };
            match asked {
                Ok(found) => return Ok(found),
                Err(_) if self.is_far() && attempt < ATTEMPTS => attempt += 1,
                Err(error) => {
                    return Err(error.context(format!(
                        "cannot find this machine's public address (--public-ip-from {self})"
                    )));
                }
            }
            std::thread::park_timeout(PAUSE);
        }
    }

    /// Whether it is asked over a network, and may answer another time.
    fn is_far(&self) -> bool {
        matches!(self, Self::Cloud(_) | Self::Stun(_))
    }
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(cloud) = Cloud::named(text) {
            return Ok(Self::Cloud(cloud));
        }
        match text.split_once(':') {
            Some(("stun", server)) if is_place(server) => Ok(Self::Stun(server.to_owned())),
            Some(("env", name)) if !name.is_empty() => Ok(Self::Environment(name.to_owned())),
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            Some(_) | None => {
                Err("expected aws, google, azure, stun:HOST:PORT, env:NAME or file:PATH".to_owned())
            }
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cloud(cloud) => f.write_str(cloud.name()),
            Self::Stun(server) => write!(f, "stun:{server}"),
            Self::Environment(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

/// Whether `text` is `HOST:PORT`, with brackets around an IPv6 address.
fn is_place(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let whole = !host.is_empty() && (!host.contains(':') || host.starts_with('['));
    whole && port.parse::<u16>().is_ok_and(|port| port != 0)
}

fn from_environment(name: &str) -> Result<Vec<IpAddr>> {
    let text = std::env::var(name).context("the environment variable cannot be read")?;
    addresses(&text)
}

fn from_file(path: &Path) -> Result<Vec<IpAddr>> {
    let len = std::fs::metadata(path)
        .context("the file cannot be read")?
        .len();
    ensure!(
        len <= MAX_LEN,
        "the file has {len} bytes, {MAX_LEN} at most"
    );
    let text = std::fs::read_to_string(path).context("the file cannot be read")?;
    addresses(&text)
}

/// The addresses in `text`, between commas or white space.
fn addresses(text: &str) -> Result<Vec<IpAddr>> {
    let words = text.split(|it: char| it == ',' || it.is_whitespace());
    let mut found = Vec::new();
    for word in words.filter(|word| !word.is_empty()) {
        let ip = word.parse();
        let ip: IpAddr = ip.with_context(|| format!("{word:?} is no IP address"))?;
        found.push(usable(ip)?);
        ensure!(found.len() <= MOST, "more than {MOST} addresses");
    }
    ensure!(!found.is_empty(), "there is no address in it");
    Ok(found)
}

/// `ip`, unless nobody can be reached there.
fn usable(ip: IpAddr) -> Result<IpAddr> {
    if ip.is_unspecified() || ip.is_multicast() {
        bail!("{ip} is no address of a machine");
    }
    Ok(ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_read_and_shown() {
        for text in [
            "aws",
            "google",
            "azure",
            "stun:stun.example.org:3478",
            "stun:[2001:db8::1]:3478",
            "env:PUBLIC_IP",
            "file:/etc/turnfleet/addresses/node-1",
        ] {
            let source: Source = text.parse().unwrap();
            assert_eq!(source.to_string(), text);
        }
        for text in [
            "",
            "gcp",
            "stun:",
            "stun:host",
            "stun:2001:db8::1:3478",
            "stun:h:0",
            "env:",
            "file:",
        ] {
            let error = text.parse::<Source>().unwrap_err();
            assert!(error.contains("stun:HOST:PORT"), "{text}: {error}");
        }
    }

    #[test]
    fn a_file_has_addresses_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node-1");
        let source = Source::File(path.clone());
        let said = |text: &str| {
            std::fs::write(&path, text).unwrap();
            source.ask("").map_err(|error| format!("{error:#}"))
        };
        let found = said("203.0.113.7, 2001:db8::7\n").unwrap();
        assert_eq!(found.len(), 2);
        for (text, word) in [
            ("", "no address"),
            ("203.0.113.7/32", "no IP address"),
            ("0.0.0.0", "no address of a machine"),
        ] {
            let error = said(text).unwrap_err();
            assert!(error.contains(word) && error.contains("node-1"), "{error}");
        }
        assert!(
            said(&"1".repeat(5000))
                .unwrap_err()
                .contains("4096 at most")
        );
        std::fs::remove_file(&path).unwrap();
        let error = format!("{:#}", source.ask("").unwrap_err());
        assert!(error.contains("--public-ip-from file:"), "{error}");
    }

    #[tokio::test]
    async fn what_is_found_becomes_the_key() {
        let nothing = Args::default();
        assert_eq!(nothing.find().await.unwrap(), None);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ip");
        std::fs::write(&path, "203.0.113.7 2001:db8::7").unwrap();
        let args = Args {
            public_ip_from: Some(Source::File(path)),
            ..Args::default()
        };
        let (key, value) = args.find().await.unwrap().unwrap();
        assert_eq!(
            (key.as_str(), value.as_str()),
            (KEY, "203.0.113.7,2001:db8::7")
        );
    }
}
