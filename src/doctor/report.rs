//! What a run has found: one line a finding, or all of them as JSON.
//!
//! Threads write findings down as they come; they are printed in the order of the catalogue. A check that nothing was found
//! of stands there as skipped, with what it needs.

use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use super::catalogue::{ALL, Check, RUN_WHOLE};

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// All is well.
    Pass,
    /// It works, and somebody will be sorry.
    Warn,
    /// It does not work.
    Fail,
    /// Nothing can be said of it.
    Skip,
}

impl State {
    const ALL: [Self; 4] = [Self::Pass, Self::Warn, Self::Fail, Self::Skip];

    fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Warn => "warn",
            Self::Fail => "fail",
            Self::Skip => "skip",
        }
    }

    /// Whether there is something to mend.
    fn is_trouble(self) -> bool {
        match self {
            Self::Warn | Self::Fail => true,
            Self::Pass | Self::Skip => false,
        }
    }
}

/// One line of a report.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    /// What was looked at.
    pub(super) check: &'static Check,
    /// Of whom: a URI, a relay, an address; empty where there is only one.
    pub(super) subject: String,
    /// How it came out.
    pub(super) state: State,
    /// What was seen, in plain words.
    pub(super) text: String,
    /// What to do, where the catalogue does not say it well enough.
    pub(super) fix: Option<String>,
}

impl Finding {
    fn fix(&self) -> Option<&str> {
        self.state
            .is_trouble()
            .then(|| self.fix.as_deref().unwrap_or(self.check.fix))
    }

    fn line(&self) -> String {
        let (word, id) = (self.state.word(), self.check.id);
        let subject = if self.subject.is_empty() {
            String::new()
        } else {
            format!("{}: ", self.subject)
        };
        let fix = self.fix().map(|fix| format!("; fix: {fix}"));
        let fix = fix.unwrap_or_default();
        format!("{word}  {id:<20}  {subject}{}{fix}", self.text)
    }

    fn json(&self) -> Value {
        json!({
            "id": self.check.id,
            "state": self.state.word(),
            "subject": self.subject,
            "text": self.text,
            "fix": self.fix(),
        })
    }
}

/// Where findings are written down.
#[derive(Debug, Default)]
pub(super) struct Report {
    findings: Mutex<Vec<Finding>>,
}

impl Report {
    /// Writes a finding down.
    pub(super) fn add(&self, finding: Finding) {
        let mut findings = self.findings.lock().unwrap_or_else(PoisonError::into_inner);
        findings.push(finding);
    }

    fn note(&self, state: State, check: &'static Check, subject: &str, text: String) {
        self.add(Finding {
            check,
            subject: subject.to_owned(),
            state,
            text,
            fix: None,
        });
    }

    /// All is well with `subject`.
    pub(super) fn pass(&self, check: &'static Check, subject: &str, text: impl Into<String>) {
        self.note(State::Pass, check, subject, text.into());
    }

    /// It works, for the time being or for some.
    pub(super) fn warn(&self, check: &'static Check, subject: &str, text: impl Into<String>) {
        self.note(State::Warn, check, subject, text.into());
    }

    /// It does not work.
    pub(super) fn fail(&self, check: &'static Check, subject: &str, text: impl Into<String>) {
        self.note(State::Fail, check, subject, text.into());
    }

    /// Nothing can be said of it.
    pub(super) fn skip(&self, check: &'static Check, subject: &str, text: impl Into<String>) {
        self.note(State::Skip, check, subject, text.into());
    }

    /// As [`Report::fail`], with a remedy of its own.
    pub(super) fn fail_with(
        &self,
        check: &'static Check,
        subject: &str,
        text: impl Into<String>,
        fix: impl Into<String>,
    ) {
        self.add(Finding {
            check,
            subject: subject.to_owned(),
            state: State::Fail,
            text: text.into(),
            fix: Some(fix.into()),
        });
    }

    /// Whether one of `checks` has failed for somebody.
    pub(super) fn has_failed(&self, checks: &[&'static Check]) -> bool {
        let findings = self.findings.lock().unwrap_or_else(PoisonError::into_inner);
        findings
            .iter()
            .any(|it| it.state == State::Fail && checks.contains(&it.check))
    }

    /// Whether anything has failed at all.
    pub(super) fn has_failures(&self) -> bool {
        self.has_failed(ALL)
    }

    /// Every finding so far in the order of the catalogue; `is_whole` says whether there was time for all of them.
    pub(super) fn finish(&self, is_whole: bool) -> Findings {
        let mut found = self.findings.lock().unwrap_or_else(PoisonError::into_inner);
        let (state, text) = if is_whole {
            (State::Pass, "everything had its time")
        } else {
            // A check that was cut off half-way has its passes, and nothing else tells that there was more to look at.
            (
                State::Fail,
                "the run was cut off: what passed may have passed in part only",
            )
        };
        found.push(Finding {
            check: RUN_WHOLE,
            subject: String::new(),
            state,
            text: text.to_owned(),
            fix: None,
        });
        let mut ordered = Vec::with_capacity(found.len());
        for check in ALL.iter().copied() {
            let before = ordered.len();
            ordered.extend(found.iter().filter(|it| it.check == check).cloned());
            // Threads come when they come; what is said of one subject stays as it was said.
            ordered[before..].sort_by(|one, other| one.subject.cmp(&other.subject));
            if ordered.len() == before {
                ordered.push(Finding {
                    check,
                    subject: String::new(),
                    state: State::Skip,
                    text: if is_whole {
                        format!("it needs {}", check.needs)
                    } else {
                        "no time was left for it".to_owned()
                    },
                    fix: None,
                });
            }
        }
        Findings(ordered)
    }
}

/// A finished report.
#[derive(Debug)]
pub(super) struct Findings(Vec<Finding>);

impl Findings {
    /// How many have this state.
    pub(super) fn count(&self, state: State) -> usize {
        self.0.iter().filter(|it| it.state == state).count()
    }

    /// A line for each finding, and a summary.
    pub(super) fn text(&self) -> String {
        let mut lines: Vec<String> = self.0.iter().map(Finding::line).collect();
        let counts = State::ALL.map(|state| format!("{} {}", self.count(state), state.word()));
        lines.push(counts.join(", "));
        lines.join("\n")
    }

    /// The same for programs.
    pub(super) fn json(&self) -> Value {
        self.0.iter().map(Finding::json).collect()
    }
}

/// Every check, as the page about them is made of.
pub(super) fn list(as_json: bool) -> String {
    if as_json {
        let object = |check: &&Check| {
            json!({
                "id": check.id, "what": check.what, "fix": check.fix, "needs": check.needs,
            })
        };
        return Value::from_iter(ALL.iter().map(object)).to_string();
    }
    let lines = ALL
        .iter()
        .map(|check| format!("{:<20}  {}", check.id, check.what));
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::super::catalogue::{DNS_NAMES, REACH_UDP, TLS_CHAIN};
    use super::*;

    #[test]
    fn a_line_has_the_state_the_id_the_subject_and_what_to_do() {
        let report = Report::default();
        report.fail(REACH_UDP, "turn:a", "nobody answers");
        report.pass(DNS_NAMES, "turn:a", "192.0.2.1");
        report.fail_with(TLS_CHAIN, "turns:a", "self-signed", "buy one");
        assert!(report.has_failed(&[REACH_UDP]) && !report.has_failed(&[DNS_NAMES]));
        let findings = report.finish(true);
        let text = findings.text();
        let dns = text.find("pass  dns.names             turn:a: 192.0.2.1\n");
        let udp = text.find(&format!(
            "fail  reach.udp             turn:a: nobody answers; fix: {}\n",
            REACH_UDP.fix
        ));
        assert!(dns.is_some() && dns < udp, "{text}");
        assert!(
            text.contains("turns:a: self-signed; fix: buy one\n"),
            "{text}"
        );
        assert!(
            text.contains("skip  reach.tcp             it needs a URI for TCP\n"),
            "{text}"
        );
        assert_eq!(findings.count(State::Fail), 2);
        let json = findings.json();
        let udp = json
            .as_array()
            .unwrap()
            .iter()
            .find(|it| it["id"] == "reach.udp");
        assert_eq!(udp.unwrap()["state"], "fail");
        assert!(
            text.contains("pass  run.whole             everything had its time\n"),
            "{text}"
        );
    }

    #[test]
    fn a_run_that_is_cut_off_has_failed_whatever_passed() {
        let report = Report::default();
        report.pass(REACH_UDP, "turn:a", "a Binding is answered");
        let findings = report.finish(false);
        assert_eq!(findings.count(State::Fail), 1);
        let text = findings.text();
        assert!(
            text.contains("fail  run.whole             the run was cut off"),
            "{text}"
        );
        assert!(
            text.contains("skip  reach.tcp             no time was left for it\n"),
            "{text}"
        );
    }
}
