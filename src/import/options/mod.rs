//! The one table of coturn's options: what each takes, and what becomes of it here. The command and `docs/coturn-options.md` both
//! come from it. Rules that write keys stand in [`super::rules`].

mod access;
mod network;
mod service;
mod tls;
mod turn;

use super::draft::{Draft, Given};
use super::report::{Kind, Outcome};
use crate::config::distance;

/// What an option takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    /// Nothing, or a word for yes or no.
    Nothing,
    /// A value.
    Text,
    /// A value or nothing.
    Perhaps,
    /// A value that nobody is shown.
    Secret,
}

/// What becomes of an option, whatever its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Translated,
    Default,
    NotNeeded,
    NoEquivalent,
}

impl Verdict {
    pub(super) fn kind(self) -> Kind {
        match self {
            Self::Translated => Kind::Translated,
            Self::Default => Kind::Default,
            Self::NotNeeded => Kind::NotNeeded,
            Self::NoEquivalent => Kind::NoEquivalent,
        }
    }
}

/// Writes what a line says into a draft. The error is what was expected of the value.
pub(super) type Rule = fn(&mut Draft<'_>, &Given<'_>) -> Result<Outcome, String>;

/// An option of coturn.
#[derive(Debug)]
pub(super) struct CoturnOption {
    pub(super) name: &'static str,
    /// Other names, one letter on the command line among them.
    pub(super) others: &'static [&'static str],
    pub(super) takes: Takes,
    pub(super) verdict: Verdict,
    /// The keys that it is translated to.
    pub(super) keys: &'static [&'static str],
    /// Why, or how.
    pub(super) why: &'static str,
    /// Judges its value, where that makes a difference.
    pub(super) rule: Option<Rule>,
    /// Whether every line of it counts, and not only the last.
    pub(super) repeats: bool,
    /// Whether coturn takes the flag for on whatever its value is.
    pub(super) always_on: bool,
}

impl CoturnOption {
    const fn new(
        verdict: Verdict,
        name: &'static str,
        others: &'static [&'static str],
        takes: Takes,
        why: &'static str,
    ) -> Self {
        Self {
            name,
            others,
            takes,
            verdict,
            keys: &[],
            why,
            rule: None,
            repeats: false,
            always_on: false,
        }
    }

    /// It becomes these keys.
    const fn becomes(mut self, keys: &'static [&'static str], rule: Rule) -> Self {
        self.keys = keys;
        self.rule = Some(rule);
        self
    }

    /// The value makes a difference.
    const fn by(mut self, rule: Rule) -> Self {
        self.rule = Some(rule);
        self
    }

    const fn repeated(mut self) -> Self {
        self.repeats = true;
        self
    }

    const fn always_on(mut self) -> Self {
        self.always_on = true;
        self
    }
}

/// An option with keys here; `becomes` names them.
const fn option(
    name: &'static str,
    others: &'static [&'static str],
    takes: Takes,
    why: &'static str,
) -> CoturnOption {
    CoturnOption::new(Verdict::Translated, name, others, takes, why)
}

const fn default(
    name: &'static str,
    others: &'static [&'static str],
    takes: Takes,
    why: &'static str,
) -> CoturnOption {
    CoturnOption::new(Verdict::Default, name, others, takes, why)
}

const fn unneeded(
    name: &'static str,
    others: &'static [&'static str],
    takes: Takes,
    why: &'static str,
) -> CoturnOption {
    CoturnOption::new(Verdict::NotNeeded, name, others, takes, why)
}

const fn none(
    name: &'static str,
    others: &'static [&'static str],
    takes: Takes,
    why: &'static str,
) -> CoturnOption {
    CoturnOption::new(Verdict::NoEquivalent, name, others, takes, why)
}

/// Every option, under the headings of the page.
pub(super) static GROUPS: [(&str, &[CoturnOption]); 5] = [
    ("Addresses and ports", network::OPTIONS),
    ("Who is let in, and to what", access::OPTIONS),
    ("TURN", turn::OPTIONS),
    ("TLS", tls::OPTIONS),
    ("The process", service::OPTIONS),
];

fn all() -> impl Iterator<Item = &'static CoturnOption> {
    GROUPS.iter().flat_map(|(_, options)| options.iter())
}

/// The option of a name; one letter is that of the command line, and capitals count.
pub(super) fn find(name: &str) -> Option<&'static CoturnOption> {
    all().find(|option| option.name == name || option.others.contains(&name))
}

/// The name that was probably meant.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    let names = all().map(|option| option.name);
    let near = names.map(|known| (distance(known, name), known)).min()?;
    (near.0 <= 3 && near.0 * 2 < name.len()).then_some(near.1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_name_stands_twice_and_every_option_says_why() {
        let mut names = BTreeSet::new();
        for option in all() {
            for name in option.others.iter().chain([&option.name]) {
                assert!(names.insert(*name), "{name}");
            }
            assert!(
                !option.why.is_empty() && !option.why.contains('|'),
                "{}",
                option.name
            );
            let translated = option.verdict == Verdict::Translated;
            assert_eq!(translated, !option.keys.is_empty(), "{}", option.name);
        }
        assert!(names.len() > 150, "{}", names.len());
    }

    #[test]
    fn a_slip_is_told_from_a_word() {
        assert_eq!(nearest("static-auth-secert"), Some("static-auth-secret"));
        assert_eq!(nearest("listening-prot"), Some("listening-port"));
        assert_eq!(nearest("something-else"), None);
        assert_eq!(nearest("x"), None);
    }
}
