//! What a Matrix homeserver tells its users of TURN servers: the settings of `homeserver.yaml` that Synapse has for it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use turnfleet_proto::credentials::SharedSecret;
use turnfleet_proto::{Scheme, TurnUri, UriTransport};
use yaml_rust2::parser::Parser;
use yaml_rust2::{Event, Yaml, YamlLoader};

use super::catalogue::{
    HOMESERVER_GUESTS, HOMESERVER_LIFETIME, HOMESERVER_SECRET, HOMESERVER_URIS,
};
use super::report::Report;
use crate::credentials::read_line;

/// Bytes of a file; that of Synapse's own example has some ten thousand.
const MAX_LEN: u64 = 1024 * 1024;
/// Values in it, each alias (`*name`) counted as all that it stands for: a few lines can mean billions.
const MAX_VALUES: usize = 100_000;
/// Lists and tables within each other.
const MAX_DEPTH: usize = 64;
/// A call begins within this time of the credentials, or not at all.
const SHORTEST: u64 = 600;
/// What lasts longer is of use to whoever finds it.
const LONGEST: u64 = 7 * 86_400;
/// What Synapse takes where nothing is said, in seconds.
const DEFAULT_LIFETIME: u64 = 3600;
/// The units of Synapse's durations, in seconds.
const UNITS: [(char, u64); 6] = [
    ('s', 1),
    ('m', 60),
    ('h', 3600),
    ('d', 86_400),
    ('w', 7 * 86_400),
    ('y', 365 * 86_400),
];

/// The settings about TURN.
#[derive(Clone)]
pub(super) struct Homeserver {
    uris: Vec<String>,
    /// Whether they stand in a list.
    is_listed: bool,
    /// How much stands in the list that is no text.
    strays: usize,
    secret: Option<String>,
    /// Whether there is one that YAML takes for a number.
    is_number: bool,
    /// Whether there is the place of one in a template, which nobody has filled in.
    is_template: bool,
    secret_path: Option<PathBuf>,
    user: Option<(String, String)>,
    lifetime: Yaml,
    has_guests: bool,
    serves_guests: bool,
    /// Where its clients reach it.
    pub(super) url: Option<String>,
}

impl Homeserver {
    /// # Errors
    /// When the file cannot be read, or is no YAML.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let shown = || format!("--homeserver {}", path.display());
        let file = File::open(path).with_context(shown)?;
        let mut text = String::new();
        let read = file.take(MAX_LEN + 1).read_to_string(&mut text);
        let len = read.with_context(shown)?;
        ensure!(
            u64::try_from(len).is_ok_and(|len| len <= MAX_LEN),
            "{}: it is longer than {MAX_LEN} bytes, which no homeserver.yaml is",
            shown()
        );
        Self::parse(&text).with_context(shown)
    }

    fn parse(text: &str) -> Result<Self> {
        weigh(text)?;
        let documents = YamlLoader::load_from_str(text)?;
        let settings = documents.first().unwrap_or(&Yaml::Null);
        ensure!(
            settings.is_hash(),
            "it is no homeserver.yaml: expected settings at the top"
        );
        let text = |key: &str| settings[key].as_str().map(str::to_owned);
        let uris = &settings["turn_uris"];
        let one = std::slice::from_ref(uris);
        let listed = uris.as_vec().map_or(one, Vec::as_slice).iter();
        let texts = listed.clone().filter_map(Yaml::as_str);
        let is_listed = uris.is_array();
        let secret = &settings["turn_shared_secret"];
        Ok(Self {
            uris: texts.map(str::to_owned).collect(),
            is_listed,
            strays: match is_listed {
                true => listed.filter(|it| it.as_str().is_none()).count(),
                false => 0,
            },
            is_number: matches!(secret, Yaml::Integer(_) | Yaml::Real(_)),
            // Without quotes, {{ secret }} is a table to YAML.
            is_template: secret.is_hash() || secret.as_str().is_some_and(is_template),
            secret: text("turn_shared_secret")
                .filter(|secret| !secret.is_empty() && !is_template(secret)),
            secret_path: text("turn_shared_secret_path").map(PathBuf::from),
            user: text("turn_username").zip(text("turn_password")),
            lifetime: settings["turn_user_lifetime"].clone(),
            has_guests: switch(&settings["allow_guest_access"]).unwrap_or(false),
            serves_guests: switch(&settings["turn_allow_guests"]).unwrap_or(true),
            url: text("public_baseurl"),
        })
    }

    /// The secret that its credentials are made with.
    ///
    /// # Errors
    /// When its file cannot be read.
    pub(super) fn secret(&self) -> Result<Option<SharedSecret>> {
        let secret = match (&self.secret, &self.secret_path) {
            (Some(secret), _) => secret.clone(),
            (None, Some(path)) => read_line(path).context("turn_shared_secret_path")?,
            (None, None) => return Ok(None),
        };
        Ok(Some(SharedSecret::new(secret)))
    }

    /// The one user whose password everybody gets.
    pub(super) fn user(&self) -> Option<&(String, String)> {
        self.user.as_ref()
    }

    /// Looks at every setting; the URIs that can be used are returned. `secret` is what the relays are said to have.
    pub(super) fn look(&self, secret: Option<&SharedSecret>, report: &Report) -> Vec<TurnUri> {
        self.look_at_secret(secret, report);
        self.look_at_lifetime(report);
        match (self.has_guests, self.serves_guests) {
            (true, false) => report.warn(
                HOMESERVER_GUESTS,
                "",
                "guests may join (allow_guest_access), and get no relay",
            ),
            (_, true) => report.pass(HOMESERVER_GUESTS, "", "guests get a relay"),
            (false, false) => report.pass(HOMESERVER_GUESTS, "", "there are no guests"),
        }
        self.look_at_uris(report)
    }

    fn look_at_uris(&self, report: &Report) -> Vec<TurnUri> {
        if self.uris.is_empty() {
            report.fail(
                HOMESERVER_URIS,
                "",
                "turn_uris is missing or empty: no call gets a relay",
            );
        }
        if self.strays > 0 {
            let text = format!(
                "{} of what turn_uris lists is no text: browsers then take none of it",
                self.strays
            );
            report.fail(HOMESERVER_URIS, "", text);
        }
        if !self.is_listed && !self.uris.is_empty() {
            let text = "turn_uris is one text, and there are clients that take a list only";
            report.warn(HOMESERVER_URIS, "", text);
        }
        let mut good = Vec::new();
        for text in &self.uris {
            match judge_uri(text) {
                Ok((uri, None)) => {
                    report.pass(HOMESERVER_URIS, text, "it is a URI that browsers use");
                    good.push(uri);
                }
                Ok((uri, Some(warning))) => {
                    report.warn(HOMESERVER_URIS, text, warning);
                    good.push(uri);
                }
                Err(problem) => report.fail(HOMESERVER_URIS, text, problem),
            }
        }
        let is_udp =
            |uri: &TurnUri| uri.scheme == Scheme::Turn && uri.transport != Some(UriTransport::Tcp);
        if !good.is_empty() && !good.iter().any(is_udp) {
            report.warn(
                HOMESERVER_URIS,
                "",
                "none is for UDP, which carries calls best; TCP and TLS are for networks without it",
            );
        }
        good
    }

    fn look_at_secret(&self, known: Option<&SharedSecret>, report: &Report) {
        match (self.secret(), known, &self.user) {
            (Err(error), _, _) => report.fail(HOMESERVER_SECRET, "", format!("{error:#}")),
            (Ok(_), _, _) if self.is_template => report.fail_with(
                HOMESERVER_SECRET,
                "",
                "turn_shared_secret is a place in a template, such as ${SECRET} or {{ secret }}, which nobody has filled in",
                "look at the homeserver.yaml that Synapse reads, once the template is filled in, or put the secret in the place",
            ),
            (Ok(Some(own)), Some(known), _) if own != *known => report.fail(
                HOMESERVER_SECRET,
                "",
                "turn_shared_secret is another one than that of the relays (--secret-file)",
            ),
            (Ok(Some(_)), Some(_), _) => {
                report.pass(HOMESERVER_SECRET, "", "it is the secret of the relays");
            }
            (Ok(Some(_)), None, _) => report.pass(HOMESERVER_SECRET, "", "there is one"),
            (Ok(None), _, _) if self.is_number => report.fail_with(
                HOMESERVER_SECRET,
                "",
                "turn_shared_secret is a number to YAML, and no text: users get no credentials",
                "put the value of turn_shared_secret into quotes",
            ),
            (Ok(None), _, Some(_)) => report.warn(
                HOMESERVER_SECRET,
                "",
                "turn_username and turn_password give every user the same lasting credentials",
            ),
            (Ok(None), _, None) => report.fail(
                HOMESERVER_SECRET,
                "",
                "neither turn_shared_secret nor turn_shared_secret_path is set: users get no credentials",
            ),
        }
    }

    fn look_at_lifetime(&self, report: &Report) {
        let (seconds, written) = match seconds_of(&self.lifetime) {
            Ok(found) => found,
            Err(problem) => return report.fail(HOMESERVER_LIFETIME, "", problem),
        };
        let text = format!("credentials are good for {seconds} s ({written})");
        if seconds < SHORTEST {
            let text =
                format!("{text}: calls that begin later, or are taken up again, get no relay");
            report.fail(HOMESERVER_LIFETIME, "", text);
        } else if seconds > LONGEST {
            let text = format!("{text}: whoever finds one has a relay for as long");
            report.warn(HOMESERVER_LIFETIME, "", text);
        } else {
            report.pass(HOMESERVER_LIFETIME, "", text);
        }
    }
}

/// Counts what would have to be held of `text`, before anything is.
fn weigh(text: &str) -> Result<()> {
    let mut parser = Parser::new_from_str(text);
    let mut anchored: BTreeMap<usize, usize> = BTreeMap::new();
    // The anchor of each list and table that is open, and the values that it has so far.
    let mut open: Vec<(usize, usize)> = Vec::new();
    let mut all = 0_usize;
    loop {
        let (event, _) = parser.next_token()?;
        // With its anchor, the values in it, and how many of them are held besides those that were counted.
        let (anchor, values, mut held) = match event {
            Event::StreamEnd => return Ok(()),
            Event::Nothing | Event::StreamStart | Event::DocumentStart | Event::DocumentEnd => {
                continue;
            }
            Event::SequenceStart(anchor, _) | Event::MappingStart(anchor, _) => {
                ensure!(
                    open.len() < MAX_DEPTH,
                    "more than {MAX_DEPTH} of its lists and tables stand within each other"
                );
                open.push((anchor, 1));
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let (anchor, values) = open.pop().unwrap_or_default();
                (anchor, values, 1)
            }
            Event::Scalar(_, _, anchor, _) => (anchor, 1, 1),
            Event::Alias(id) => {
                let values = anchored.get(&id).copied().unwrap_or(1);
                (0, values, values)
            }
        };
        // What has an anchor is held once more, for the aliases.
        if anchor > 0 {
            anchored.insert(anchor, values);
            held = values.saturating_add(held);
        }
        all = all.saturating_add(held);
        ensure!(
            all <= MAX_VALUES,
            "it has more than {MAX_VALUES} values, with what its aliases (*name) stand for"
        );
        if let Some((_, outer)) = open.last_mut() {
            *outer = outer.saturating_add(values);
        }
    }
}

/// The URI with what is to be said of it, or why no browser can use it.
fn judge_uri(text: &str) -> Result<(TurnUri, Option<&'static str>), String> {
    let uri: TurnUri = text
        .trim()
        .parse()
        .map_err(|error| format!("no browser understands it: {error}"))?;
    match (uri.scheme, uri.transport) {
        (Scheme::Turns, Some(UriTransport::Udp)) => {
            return Err(
                "turns: with transport=udp is DTLS, which no browser speaks: write transport=tcp"
                    .to_owned(),
            );
        }
        (Scheme::Stun | Scheme::Stuns, _) => {
            return Ok((uri, Some("a stun: URI leads to no relay")));
        }
        (Scheme::Turn | Scheme::Turns, _) => {}
    }
    let warning = uri.port.is_none().then_some(
        "it has no port: clients take 3478 for turn: and 5349 for turns:, or ask DNS, each as it likes",
    );
    Ok((uri, warning))
}

/// Whether a template is to put something else there: `${NAME}`, `$(command)`, `{{ name }}` or `<% name %>`.
fn is_template(text: &str) -> bool {
    let text = text.trim();
    [("${", "}"), ("$(", ")"), ("{{", "}}"), ("<%", "%>")]
        .into_iter()
        .any(|(begin, end)| text.starts_with(begin) && text.ends_with(end))
}

/// A switch as Synapse reads it: YAML 1.1 has more words for one than YAML 1.2.
fn switch(value: &Yaml) -> Option<bool> {
    match value.as_str().map(str::to_ascii_lowercase).as_deref() {
        Some("yes" | "on") => Some(true),
        Some("no" | "off") => Some(false),
        Some(_) | None => value.as_bool(),
    }
}

/// A duration as Synapse reads it, and how it is written.
fn seconds_of(lifetime: &Yaml) -> Result<(u64, String), String> {
    let expected = |shown: &str| {
        format!(
            "turn_user_lifetime: {shown}: expected a number with s, m, h, d, w or y, such as 1h"
        )
    };
    match lifetime {
        Yaml::BadValue | Yaml::Null => Ok((DEFAULT_LIFETIME, "by default".to_owned())),
        Yaml::Integer(millis) => {
            let seconds = u64::try_from(*millis).map_err(|_| expected(&millis.to_string()))? / 1000;
            Ok((
                seconds,
                format!("turn_user_lifetime: {millis}, in milliseconds"),
            ))
        }
        Yaml::String(text) => {
            let unit = UNITS.iter().find(|(unit, _)| text.ends_with(*unit));
            let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
            let number: u64 = number.parse().map_err(|_| expected(text))?;
            let shown = format!("turn_user_lifetime: {text}");
            Ok(match unit {
                Some((_, seconds)) => (number.saturating_mul(*seconds), shown),
                None => (number / 1000, format!("{shown}, in milliseconds")),
            })
        }
        Yaml::Real(_) | Yaml::Boolean(_) | Yaml::Array(_) | Yaml::Hash(_) | Yaml::Alias(_) => {
            Err(expected("it"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::catalogue::Check;
    use super::*;

    const GOOD: &str = "server_name: example.org\n\
        turn_uris: [\"turn:turn.example.org:3478?transport=udp\", \"turns:turn.example.org:5349?transport=tcp\"]\n\
        turn_shared_secret: north\nturn_user_lifetime: 1h\n";

    fn failed(text: &str, check: &'static Check) -> bool {
        let report = Report::default();
        let secret = SharedSecret::new("north");
        Homeserver::parse(text)
            .unwrap()
            .look(Some(&secret), &report);
        report.has_failed(&[check])
    }

    #[test]
    fn the_settings_of_the_manual_are_good() {
        let report = Report::default();
        let uris = Homeserver::parse(GOOD).unwrap().look(None, &report);
        assert_eq!(uris.len(), 2);
        assert!(!report.has_failures());
    }

    #[test]
    fn each_bad_setting_is_found_where_it_is() {
        let changed = |from: &str, to: &str| {
            assert!(GOOD.contains(from), "{from}");
            GOOD.replace(from, to)
        };
        for (from, to, check) in [
            ("5349?transport=tcp", "5349?transport=udp", HOMESERVER_URIS),
            ("turn:turn.", "turn://turn.", HOMESERVER_URIS),
            ("udp\"", "tls\"", HOMESERVER_URIS),
            ("turn_uris", "turn_uri", HOMESERVER_URIS),
            ("secret: north", "secret: south", HOMESERVER_SECRET),
            ("turn_shared_secret", "shared_secret", HOMESERVER_SECRET),
            ("secret: north", "secret: 1234567890", HOMESERVER_SECRET),
            ("secret: north", "secret: ${TURN_SECRET}", HOMESERVER_SECRET),
            ("secret: north", "secret: '{{ secret }}'", HOMESERVER_SECRET),
            ("secret: north", "secret: {{ secret }}", HOMESERVER_SECRET),
            ("\"turns:", "null, \"turns:", HOMESERVER_URIS),
            ("1h", "86400", HOMESERVER_LIFETIME),
            ("1h", "5m", HOMESERVER_LIFETIME),
            ("1h", "soon", HOMESERVER_LIFETIME),
        ] {
            let text = changed(from, to);
            for other in [HOMESERVER_URIS, HOMESERVER_SECRET, HOMESERVER_LIFETIME] {
                assert_eq!(failed(&text, other), other == check, "{to}: {}", other.id);
            }
        }
        assert!(Homeserver::parse("- a\n- b\n").is_err());
    }

    #[test]
    fn what_a_file_means_is_counted_before_it_is_held() {
        let refused = |text: &str| format!("{:#}", Homeserver::parse(text).err().unwrap());
        let mut bomb = format!("{GOOD}a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..=9 {
            let inner = vec![format!("*a{}", level - 1); 10].join(", ");
            bomb += &format!("a{level}: &a{level} [{inner}]\n");
        }
        assert!(refused(&bomb).contains("aliases"), "{}", refused(&bomb));
        let deep = format!("{GOOD}deep: {}{}\n", "[".repeat(100), "]".repeat(100));
        assert!(refused(&deep).contains("within each other"));
        let few = format!("{GOOD}one: &one [x, y]\ntwo: [*one, *one]\n");
        assert!(Homeserver::parse(&few).is_ok());

        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("homeserver.yaml");
        let long = usize::try_from(MAX_LEN).unwrap();
        std::fs::write(&file, format!("{GOOD}# {}\n", "x".repeat(long))).unwrap();
        let error = format!("{:#}", Homeserver::read(&file).err().unwrap());
        assert!(error.contains("longer than"), "{error}");
        std::fs::write(&file, GOOD).unwrap();
        assert!(Homeserver::read(&file).is_ok());
    }

    #[test]
    fn switches_are_read_as_by_synapse() {
        for (word, serves) in [
            ("no", false),
            ("Off", false),
            ("false", false),
            ("YES", true),
        ] {
            let text = format!("{GOOD}turn_allow_guests: {word}\n");
            assert_eq!(
                Homeserver::parse(&text).unwrap().serves_guests,
                serves,
                "{word}"
            );
        }
    }
}
