//! `fleet tenants`: whoever has users of their own.

use clap::{Args, Subcommand};
use serde_json::{Map, Value as Json, json};

use super::call::{Call, encoded};
use super::console::Console;
use super::table::{Table, cell, list, time};

/// What to do with tenants; without a word they are listed.
#[derive(Args, Debug)]
pub(super) struct Tenants {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Every tenant
    List,
    /// All that is known of one tenant
    Show {
        /// Its name
        name: String,
    },
    /// What one tenant takes of its quotas, over the whole fleet
    Usage {
        /// Its name
        name: String,
    },
    /// Makes a tenant, or changes what is named of it; all else stays as it is
    Set(Box<Set>),
    /// Removes a tenant with its secrets; its users are the default tenant's from then on, so revoke what mints for them
    Remove {
        /// Its name
        name: String,
    },
}

/// Flags of `fleet tenants set`. A list replaces the one that is there; an empty one is given as "".
#[derive(Args, Debug)]
struct Set {
    /// Its name: lower-case letters, digits, -, _ and . ; quotas alone can be set for `default`
    name: String,
    /// What its clients may be challenged with; "" for the fleet's realm
    #[arg(long)]
    realm: Option<String>,
    /// The server names that its TLS clients ask for
    #[arg(long = "tls-name", value_name = "NAME", value_delimiter = ',')]
    tls_names: Option<Vec<String>>,
    /// Networks of peers that its users may reach although the fleet's rules refuse them
    #[arg(long = "allow-peer", value_name = "CIDR", value_delimiter = ',')]
    allow_peers: Option<Vec<String>>,
    /// Networks of peers that they may not reach, in addition to the fleet's
    #[arg(long = "deny-peer", value_name = "CIDR", value_delimiter = ',')]
    deny_peers: Option<Vec<String>>,
    /// Whether its clients may have TCP relayed transport addresses (RFC 6062)
    #[arg(long, value_name = "true|false")]
    tcp_relaying: Option<bool>,
    /// Whether none of its users is let in, and what they have ends
    #[arg(long, value_name = "true|false")]
    suspended: Option<bool>,
    #[command(flatten)]
    quotas: Quotas,
}

/// What users may take of the whole fleet; 0 for no limit.
#[derive(Args, Debug)]
struct Quotas {
    /// Allocations of all users together; 0 for no limit, as in the others
    #[arg(long, value_name = "N")]
    allocations: Option<u64>,
    /// Allocations of one user
    #[arg(long, value_name = "N")]
    allocations_per_user: Option<u64>,
    /// Bits a second of all users together, in each direction; k, M and G count thousands
    #[arg(long, value_name = "N", value_parser = amount)]
    bits_per_second: Option<u64>,
    /// Bits a second of one user, in each direction
    #[arg(long, value_name = "N", value_parser = amount)]
    user_bits_per_second: Option<u64>,
    /// Bytes a day of all users together, both directions
    #[arg(long, value_name = "N", value_parser = amount)]
    bytes_per_day: Option<u64>,
    /// Bytes a day of one user, both directions
    #[arg(long, value_name = "N", value_parser = amount)]
    user_bytes_per_day: Option<u64>,
    /// Credentials a minute that are minted for all users together
    #[arg(long, value_name = "N")]
    credentials_per_minute: Option<u64>,
}

/// A whole number, of thousands where a letter says so.
fn amount(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.char_indices().last() {
        Some((end, 'k' | 'K')) => (&text[..end], 1_000),
        Some((end, 'M')) => (&text[..end], 1_000_000),
        Some((end, 'G')) => (&text[..end], 1_000_000_000),
        Some((end, 'T')) => (&text[..end], 1_000_000_000_000),
        Some(_) | None => (text, 1u64),
    };
    let number = digits.parse::<u64>().ok();
    let amount = number.and_then(|number| number.checked_mul(unit));
    amount.ok_or_else(|| "expected a whole number, such as 500k, 10M or 2G".to_owned())
}

impl Tenants {
    /// Lists tenants, or changes one.
    ///
    /// # Errors
    /// When the controller refuses.
    pub(super) fn run(&self, console: &Console) -> anyhow::Result<()> {
        match self.action.as_ref().unwrap_or(&Action::List) {
            Action::List => console.show(&Call::get("/v1/tenants"), table),
            Action::Show { name } => console.show(&Call::get(path(name)), details),
            Action::Usage { name } => {
                console.show(&Call::get(format!("{}/usage", path(name))), usage)
            }
            Action::Set(set) => set.run(console),
            Action::Remove { name } => {
                console.act(&Call::delete(path(name)), &format!("{name} is removed"))
            }
        }
    }
}

fn path(name: &str) -> String {
    format!("/v1/tenants/{}", encoded(name))
}

impl Set {
    fn run(&self, console: &Console) -> anyhow::Result<()> {
        let name = &self.name;
        let tenants = console.ask(&Call::get("/v1/tenants"))?;
        let known = list(&tenants, "/tenants").find(|it| cell(it, "/name") == *name);
        let body = self.body(known);
        let done = match known {
            Some(_) => format!("{name} is changed"),
            None => format!("{name} is made"),
        };
        console.act(&Call::put(path(name)).with(body), &done)
    }

    /// What `known` says, with what the flags say instead.
    fn body(&self, known: Option<&Json>) -> Json {
        let none = json!({});
        let known = known.unwrap_or(&none);
        let kept = |field: &str| known.get(field).cloned().unwrap_or(Json::Null);
        let items = |given: &Option<Vec<String>>, field| match given {
            Some(items) => json!(items.iter().filter(|it| !it.is_empty()).collect::<Vec<_>>()),
            None => kept(field),
        };
        let flag = |given: Option<bool>, field| given.map_or_else(|| kept(field), |it| json!(it));
        let realm = match self.realm.as_deref() {
            Some("") => Json::Null,
            Some(realm) => json!(realm),
            None => kept("realm"),
        };
        let mut quotas = kept("quotas").as_object().cloned().unwrap_or_default();
        quotas.extend(self.quotas.given());
        json!({
            "realm": realm,
            "tls_names": items(&self.tls_names, "tls_names"),
            "allow_peers": items(&self.allow_peers, "allow_peers"),
            "deny_peers": items(&self.deny_peers, "deny_peers"),
            "tcp_relaying": flag(self.tcp_relaying, "tcp_relaying"),
            "suspended": flag(self.suspended, "suspended"),
            "quotas": quotas,
        })
    }
}

impl Quotas {
    fn given(&self) -> Map<String, Json> {
        let all = [
            ("allocations", self.allocations),
            ("allocations_per_user", self.allocations_per_user),
            ("bits_per_second", self.bits_per_second),
            ("user_bits_per_second", self.user_bits_per_second),
            ("bytes_per_day", self.bytes_per_day),
            ("user_bytes_per_day", self.user_bytes_per_day),
            ("credentials_per_minute", self.credentials_per_minute),
        ];
        let given = all.into_iter();
        let given = given.filter_map(|(name, limit)| Some((name.to_owned(), json!(limit?))));
        given.collect()
    }
}

fn table(answer: &Json) -> Table {
    let limit = |tenant: &Json, field: &str| {
        let limit = cell(tenant, &format!("/quotas/{field}"));
        if limit == "0" { String::new() } else { limit }
    };
    let row = |tenant: &Json| {
        vec![
            cell(tenant, "/id"),
            cell(tenant, "/name"),
            cell(tenant, "/realm"),
            joined(tenant, "/tls_names"),
            cell(tenant, "/suspended"),
            cell(tenant, "/has_secret"),
            limit(tenant, "allocations"),
            limit(tenant, "bits_per_second"),
            limit(tenant, "bytes_per_day"),
            cell(tenant, "/configured"),
        ]
    };
    let unrecorded = list(answer, "/unrecorded").filter_map(Json::as_str);
    let unrecorded =
        unrecorded.map(|name| vec![String::new(), name.to_owned(), "(no tenant)".to_owned()]);
    let header = [
        "ID",
        "NAME",
        "REALM",
        "TLS NAMES",
        "SUSPENDED",
        "SECRET",
        "ALLOCATIONS",
        "BIT/S",
        "BYTES/DAY",
        "CONFIGURED",
    ];
    Table::new(header)
        .with(list(answer, "/tenants").map(row))
        .with(unrecorded)
}

fn joined(value: &Json, pointer: &str) -> String {
    let texts: Vec<_> = list(value, pointer).filter_map(Json::as_str).collect();
    texts.join(",")
}

fn details(tenant: &Json) -> Table {
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let quotas = tenant.get("quotas").and_then(Json::as_object);
    let quotas = quotas.into_iter().flatten().map(|(name, limit)| {
        let limit = limit.as_u64().filter(|limit| *limit > 0);
        let limit = limit.map_or_else(|| "no limit".to_owned(), |limit| limit.to_string());
        vec![name.replace('_', " "), limit]
    });
    let name = cell(tenant, "/name");
    Table::new(["TENANT", name.as_str()])
        .with([
            row("id", cell(tenant, "/id")),
            row("realm", cell(tenant, "/realm")),
            row("TLS names", joined(tenant, "/tls_names")),
            row("peers allowed", joined(tenant, "/allow_peers")),
            row("peers denied", joined(tenant, "/deny_peers")),
            row("TCP relaying", cell(tenant, "/tcp_relaying")),
            row("suspended", cell(tenant, "/suspended")),
            row("secret of its own", cell(tenant, "/has_secret")),
            row("made", time(tenant, "/created_at", 1)),
            row("configured", cell(tenant, "/configured")),
        ])
        .with(quotas)
}

fn usage(answer: &Json) -> Table {
    let row = |quota: &&str| {
        let field = |field: &str| cell(answer, &format!("/{quota}/{field}"));
        let limit = match field("limit").as_str() {
            "0" => "no limit".to_owned(),
            limit => limit.to_owned(),
        };
        vec![
            quota.replace('_', " "),
            limit,
            field("used"),
            field("exceeded"),
        ]
    };
    let quotas = ["allocations", "bits_per_second", "bytes_per_day"];
    Table::new(["QUOTA", "LIMIT", "USED", "EXCEEDED"]).with(quotas.iter().map(row))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        set: Set,
    }

    fn set(words: &[&str]) -> Set {
        let words = ["set", "acme"].iter().chain(words);
        Line::try_parse_from(words).unwrap().set
    }

    #[test]
    fn what_no_flag_names_stays_as_it_is() {
        let known = json!({
            "id": 1, "name": "acme", "realm": "acme.example", "tls_names": ["a.example"], "suspended": true,
            "allow_peers": [], "deny_peers": ["192.0.2.0/24"], "tcp_relaying": true, "created_at": 7,
            "quotas": { "allocations": 5, "bytes_per_day": 9 },
        });
        let flags = set(&[
            "--suspended",
            "false",
            "--deny-peer",
            "",
            "--bits-per-second",
            "10M",
        ]);
        assert_eq!(
            flags.body(Some(&known)),
            json!({
                "realm": "acme.example", "tls_names": ["a.example"], "suspended": false,
                "allow_peers": [], "deny_peers": [], "tcp_relaying": true,
                "quotas": { "allocations": 5, "bytes_per_day": 9, "bits_per_second": 10_000_000 },
            })
        );
        let realm = set(&["--realm", ""]).body(Some(&known));
        assert_eq!(realm["realm"], Json::Null);
    }

    #[test]
    fn an_amount_may_be_told_in_thousands() {
        for (text, meant) in [
            ("0", Some(0)),
            ("64k", Some(64_000)),
            ("2G", Some(2_000_000_000)),
            ("1T", Some(1_000_000_000_000)),
            ("", None),
            ("M", None),
            ("1.5M", None),
            ("20000000000G", None),
        ] {
            assert_eq!(amount(text).ok(), meant, "{text}");
        }
    }
}
