//! The configuration as it grows: keys with the lines that they come from, and what has to be known beside them.
//!
//! Goes over the settings of a source in order and has the rule of each option write its keys.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::options::{self, CoturnOption, Takes, Verdict};
use super::parse::{Setting, Source};
use super::peers::PeerLists;
use super::report::{Judged, Kind, Outcome};

/// Where coturn's file is and where ours goes, both absolute, and what the machine has.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) source: PathBuf,
    pub(super) output: PathBuf,
    pub(super) has_ipv6: bool,
}

impl Place {
    /// The file of the `number`th secret, beside the configuration.
    pub(super) fn secret_file(&self, number: usize) -> PathBuf {
        let extension = match number {
            0 => "secret".to_owned(),
            _ => format!("secret-{}", number + 1),
        };
        self.output.with_extension(extension)
    }

    /// A file that coturn's configuration names: coturn looks for it beside its configuration first.
    pub(super) fn named(&self, path: &str) -> PathBuf {
        let folder = self.source.parent().unwrap_or_else(|| Path::new("/"));
        folder.join(path)
    }
}

/// The part of the file that a key stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// The flags of `up`.
    Up,
    /// `[relay]`.
    Relay,
    /// `[controller]`.
    Controller,
}

/// One key of the configuration.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) part: Part,
    pub(super) name: &'static str,
    pub(super) value: Value,
    /// The settings that it comes from.
    pub(super) from: Vec<Setting>,
}

/// What is imported so far.
#[derive(Debug)]
pub(super) struct Draft<'s> {
    pub(super) source: &'s Source,
    pub(super) place: &'s Place,
    pub(super) peers: PeerLists,
    pub(super) keys: Vec<Key>,
    /// What a person has to know beside the lines.
    pub(super) remarks: Vec<String>,
    pub(super) secrets: Vec<String>,
    /// Transports of clients that are switched off, with the settings that do it.
    pub(super) without: Vec<(&'static str, Setting)>,
    pub(super) more_listeners: Vec<(SocketAddr, Setting)>,
    /// Quotas of the default tenant.
    pub(super) quotas: Vec<(&'static str, i64, Setting)>,
}

/// A setting whose option is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Given<'g> {
    pub(super) setting: &'g Setting,
    pub(super) option: &'static CoturnOption,
}

impl<'g> Given<'g> {
    /// The value.
    ///
    /// # Errors
    /// Where there is none.
    pub(super) fn text(&self) -> Result<&'g str, String> {
        let value = self
            .setting
            .value
            .as_deref()
            .filter(|text| !text.is_empty());
        value.ok_or_else(|| "a value".to_owned())
    }

    /// The value as a whole number within bounds. Coturn reads as many digits as there are, so a comment may follow.
    ///
    /// # Errors
    /// Where it is none.
    pub(super) fn number(&self, least: i64, most: i64) -> Result<i64, String> {
        let expected = || match most {
            i64::MAX => format!("a whole number, {least} or more"),
            _ => format!("a whole number from {least} to {most}"),
        };
        let text = self.text().map_err(|_| expected())?;
        let (digits, rest) = match text.find(|c: char| !c.is_ascii_digit()) {
            Some(end) => text.split_at(end),
            None => (text, ""),
        };
        let rest = rest.trim_start();
        let number = digits.parse::<i64>().ok();
        let number = number.filter(|_| rest.is_empty() || rest.starts_with('#'));
        let number = number.filter(|number| (least..=most).contains(number));
        number.ok_or_else(expected)
    }

    /// The value as an address, with or without brackets.
    ///
    /// # Errors
    /// Where it is none.
    pub(super) fn address(&self) -> Result<IpAddr, String> {
        let text = self.text()?;
        let text = text.strip_prefix('[').unwrap_or(text);
        let text = text.strip_suffix(']').unwrap_or(text);
        text.parse().map_err(|_| "an IP address".to_owned())
    }

    /// Whether the flag is on: alone, with one of coturn's words for yes, or where coturn looks at no word.
    fn is_on(&self) -> Result<bool, String> {
        if self.option.always_on {
            return Ok(true);
        }
        match self
            .setting
            .value
            .as_deref()
            .map(str::to_lowercase)
            .as_deref()
        {
            None | Some("" | "1" | "on" | "yes" | "true" | "t") => Ok(true),
            Some("0" | "off" | "no" | "false" | "f") => Ok(false),
            Some(comment) if comment.starts_with('#') => Ok(true),
            Some(_) => {
                Err("nothing, or one of on, yes, true, t, 1, off, no, false, f, 0".to_owned())
            }
        }
    }
}

impl<'s> Draft<'s> {
    /// Imports every setting of `source`, and tells what became of each.
    pub(super) fn of(source: &'s Source, place: &'s Place) -> (Self, Vec<Judged>) {
        let mut draft = Self {
            source,
            place,
            peers: PeerLists::of(source, |name| is_on(source, name)),
            keys: Vec::new(),
            remarks: Vec::new(),
            secrets: Vec::new(),
            without: Vec::new(),
            more_listeners: Vec::new(),
            quotas: Vec::new(),
        };
        let judged = source.settings.iter();
        let judged = judged.map(|setting| draft.judge(setting)).collect();
        draft.finish();
        (draft, judged)
    }

    fn judge(&mut self, setting: &Setting) -> Judged {
        let Some(option) = options::find(&setting.name) else {
            let words = match options::nearest(&setting.name) {
                Some(near) => format!("coturn has no such option (did you mean {near}?)"),
                None => "coturn has no such option".to_owned(),
            };
            let outcome = Outcome::new(Kind::Unknown, words);
            return Judged::new(setting, None, outcome);
        };
        let given = Given { setting, option };
        let outcome = match self.outcome(&given) {
            Ok(outcome) => outcome,
            Err(expected) => Outcome::new(Kind::Wrong, format!("expected {expected}")),
        };
        Judged::new(setting, Some(option), outcome)
    }

    fn outcome(&mut self, given: &Given<'_>) -> Result<Outcome, String> {
        let option = given.option;
        if let Some(later) = self.overridden_by(given) {
            let words = format!("line {later} stands over it");
            return Ok(Outcome::new(Kind::NotNeeded, words));
        }
        if option.takes == Takes::Nothing && !given.is_on()? {
            return Ok(Outcome::new(Kind::NotNeeded, "it is switched off"));
        }
        match option.rule {
            Some(rule) => rule(self, given),
            None => Ok(Outcome::new(option.verdict.kind(), option.why)),
        }
    }

    /// The later line that coturn goes by, for an option that can be set once.
    fn overridden_by(&self, given: &Given<'_>) -> Option<usize> {
        if given.option.repeats {
            return None;
        }
        let same = |setting: &&Setting| setting.name == given.option.name;
        let last = self.source.settings.iter().rev().find(same)?;
        (last.line > given.setting.line).then_some(last.line)
    }

    /// Whether a flag is on anywhere in the file.
    pub(super) fn is_on(&self, name: &str) -> bool {
        is_on(self.source, name)
    }

    /// The last setting of an option.
    pub(super) fn last(&self, name: &str) -> Option<&'s Setting> {
        let mut settings = self.source.settings.iter().rev();
        settings.find(|setting| setting.name == name)
    }

    /// The last value of an option.
    pub(super) fn value_of(&self, name: &str) -> Option<&'s str> {
        self.last(name)?.value.as_deref()
    }

    /// Whether a setting of this name is there.
    pub(super) fn has(&self, name: &str) -> bool {
        let mut settings = self.source.settings.iter();
        settings.any(|setting| setting.name == name)
    }

    /// Writes a key; what stood there makes way.
    pub(super) fn set(
        &mut self,
        part: Part,
        name: &'static str,
        value: impl Into<Value>,
        from: &Setting,
    ) -> Outcome {
        let key = self.key(part, name);
        key.value = value.into();
        key.from.push(from.clone());
        translated(part, name)
    }

    /// Writes another entry of a list.
    pub(super) fn push(
        &mut self,
        part: Part,
        name: &'static str,
        entry: impl ToString,
        from: &Setting,
    ) -> Outcome {
        let key = self.key(part, name);
        let entry = Value::String(entry.to_string());
        if let Value::Array(list) = &mut key.value
            && !list.contains(&entry)
        {
            list.push(entry);
        }
        if key.from.last() != Some(from) {
            key.from.push(from.clone());
        }
        translated(part, name)
    }

    /// The key, an empty list where it is not there.
    fn key(&mut self, part: Part, name: &'static str) -> &mut Key {
        let is_it = |key: &Key| key.part == part && key.name == name;
        let at = self.keys.iter().position(is_it);
        let at = at.unwrap_or_else(|| {
            self.keys.push(Key {
                part,
                name,
                value: Value::Array(Vec::new()),
                from: Vec::new(),
            });
            self.keys.len() - 1
        });
        &mut self.keys[at]
    }

    /// The value of a key that is written.
    pub(super) fn written(&self, name: &str) -> Option<&Value> {
        let key = self.keys.iter().find(|key| key.name == name)?;
        Some(&key.value)
    }

    /// The files of the secrets, with their contents.
    pub(super) fn secret_files(&self, place: &Place) -> Vec<(PathBuf, String)> {
        let secrets = self.secrets.iter().enumerate();
        secrets
            .map(|(number, secret)| (place.secret_file(number), format!("{secret}\n")))
            .collect()
    }

    /// Writes what follows from several lines, or from none.
    fn finish(&mut self) {
        if !self.quotas.is_empty() {
            let mut quotas = Table::new();
            let mut from = Vec::new();
            for (name, bits, setting) in std::mem::take(&mut self.quotas) {
                quotas.insert(name.to_owned(), Value::Integer(bits));
                from.push(setting);
            }
            let mut tenant = Table::new();
            tenant.insert("name".to_owned(), Value::String("default".to_owned()));
            tenant.insert("quotas".to_owned(), Value::Table(quotas));
            self.keys.push(Key {
                part: Part::Controller,
                name: "tenants",
                value: Value::Array(vec![Value::Table(tenant)]),
                from,
            });
        }
        super::rules::finish(self);
        self.keys.sort_by_key(|key| key.part);
    }
}

fn is_on(source: &Source, name: &str) -> bool {
    let mut settings = source.settings.iter().rev();
    let setting = settings.find(|setting| setting.name == name);
    setting.is_some_and(|setting| {
        options::find(name).is_some_and(|option| {
            let given = Given { setting, option };
            option.takes != Takes::Nothing || given.is_on() == Ok(true)
        })
    })
}

fn translated(part: Part, name: &str) -> Outcome {
    let key = match part {
        Part::Up => name.to_owned(),
        Part::Relay => format!("relay.{name}"),
        Part::Controller => format!("controller.{name}"),
    };
    Outcome::new(Verdict::Translated.kind(), key)
}
