//! `turnfleet credentials`: mints and verifies ephemeral credentials on the spot, with no fleet at hand.

use std::env::VarError;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use turnfleet_proto::credentials::{SharedSecret, mint, verify};
use turnfleet_proto::private_file;

/// What to do with a credential.
#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Makes a username and a password
    Mint(Mint),
    /// Checks a username and a password
    Verify(Verify),
}

/// Where every command finds the shared secret that no flag names.
pub(crate) const VARIABLE: &str = "TURNFLEET_SHARED_SECRET";

/// The shared secret of the fleet.
#[derive(Args, Clone, Debug)]
#[group(multiple = false)]
pub(crate) struct SecretArgs {
    /// The shared secret that ephemeral credentials are made with [env: TURNFLEET_SHARED_SECRET, where no flag names another]
    #[arg(long, allow_hyphen_values = true)]
    secret: Option<String>,
    /// A file that holds the shared secret; space around it is ignored
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
}

impl SecretArgs {
    /// The secret of a flag, or of the environment; nothing where neither has one.
    ///
    /// # Errors
    /// When the file cannot be read, or the secret is empty.
    pub(crate) fn read(&self) -> anyhow::Result<Option<SharedSecret>> {
        let secret = match (&self.secret, &self.secret_file) {
            (Some(secret), _) => secret.clone(),
            (None, Some(file)) => read_line(file)?,
            (None, None) => match std::env::var(VARIABLE) {
                Ok(secret) => secret,
                Err(VarError::NotPresent) => return Ok(None),
                // The error would show it.
                Err(VarError::NotUnicode(_)) => bail!("{VARIABLE}: expected UTF-8"),
            },
        };
        if secret.is_empty() {
            bail!("the shared secret is empty");
        }
        Ok(Some(SharedSecret::new(secret)))
    }

    fn required(&self) -> anyhow::Result<SharedSecret> {
        let secret = self.read()?;
        secret.with_context(|| format!("--secret, --secret-file or {VARIABLE} is needed"))
    }
}

/// The text of a file without the space around it.
///
/// # Errors
/// When the file cannot be read.
pub(crate) fn read_line(file: &Path) -> anyhow::Result<String> {
    private_file::read_secret(file).with_context(|| format!("cannot read {}", file.display()))
}

/// Flags of `credentials mint`.
#[derive(Args, Debug)]
pub(crate) struct Mint {
    #[command(flatten)]
    secret: SecretArgs,
    /// Whom the credential is for; empty makes a username that is the bare expiry
    #[arg(long, default_value = "")]
    user: String,
    /// How long it is good for: seconds, or a number with s, m, h or d
    #[arg(long, default_value = "3600", value_parser = duration)]
    ttl: Duration,
    /// Prints one JSON object
    #[arg(long)]
    json: bool,
}

/// Flags of `credentials verify`.
#[derive(Args, Debug)]
pub(crate) struct Verify {
    #[command(flatten)]
    secret: SecretArgs,
    /// The username: `<expiry>` or `<expiry>:<user>`
    #[arg(long)]
    username: String,
    /// The password
    #[arg(long, allow_hyphen_values = true)]
    password: String,
}

/// Runs the command.
///
/// # Errors
/// When the secret cannot be read, or the credential is no good.
pub(crate) fn run(action: &Action) -> anyhow::Result<()> {
    let now = unix_now()?;
    let mut out = std::io::stdout().lock();
    match action {
        Action::Mint(args) => {
            let ttl = args.ttl.as_secs();
            let credential = mint(&args.secret.required()?, &args.user, now + ttl);
            if args.json {
                let json = serde_json::json!({
                    "username": credential.username,
                    "password": credential.password,
                    "ttl": ttl,
                    "expires_at": credential.expires_at,
                });
                writeln!(out, "{json}")?;
            } else {
                writeln!(out, "username: {}", credential.username)?;
                writeln!(out, "password: {}", credential.password)?;
                writeln!(out, "ttl: {ttl}")?;
            }
        }
        Action::Verify(args) => {
            verify(
                &args.secret.required()?,
                &args.username,
                &args.password,
                now,
            )?;
            let expiry = args.username.split(':').next().unwrap_or_default();
            let left = expiry.parse::<u64>().unwrap_or(now).saturating_sub(now);
            writeln!(out, "valid for {left} seconds")?;
        }
    }
    Ok(())
}

/// Unix seconds.
///
/// # Errors
/// When the clock is before 1970.
pub(crate) fn unix_now() -> anyhow::Result<u64> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Ok(since.context("the system clock is before 1970")?.as_secs())
}

/// Reads seconds, or a number with a unit.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match text.get(digits.len()..) {
        Some("" | "s") => Some(1),
        Some("m") => Some(60),
        Some("h") => Some(3600),
        Some("d") => Some(86_400),
        Some(_) | None => None,
    };
    let number = digits.parse::<u32>().ok().filter(|number| *number > 0);
    match (number, factor) {
        (Some(number), Some(factor)) => Ok(Duration::from_secs(u64::from(number) * factor)),
        _ => Err("expected seconds, or a number with s, m, h or d, such as 3600 or 1h".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_seconds_or_has_a_unit() {
        let seconds = |text| duration(text).map(|duration| duration.as_secs()).ok();
        assert_eq!(
            [seconds("90"), seconds("90s"), seconds("2m")],
            [Some(90), Some(90), Some(120)]
        );
        assert_eq!([seconds("1h"), seconds("1d")], [Some(3600), Some(86_400)]);
        assert_eq!(
            [
                seconds(""),
                seconds("0"),
                seconds("1w"),
                seconds("h"),
                seconds("-1")
            ],
            [None; 5]
        );
    }
}
