//! What a run found: a line for each statement, a summary, or all of it as JSON.

use serde_json::{Value, json};

use super::statement::{Level, Shortfall};

/// A statement with what was seen of it.
pub(super) struct Finding {
    /// The statement's id.
    pub(super) id: String,
    /// How much it is asked for.
    pub(super) level: Level,
    /// The statement.
    pub(super) text: String,
    /// Whether it is kept.
    pub(super) result: Result<(), Shortfall>,
}

/// Every finding of a run.
pub(super) struct Report {
    server: String,
    findings: Vec<Finding>,
}

/// How many statements of one level came out how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl Report {
    /// A report on the server that is reached by `server`.
    pub(super) fn new(server: String, findings: Vec<Finding>) -> Self {
        Self { server, findings }
    }

    /// How many statements that a server has to keep it does not keep.
    pub(super) fn failures(&self) -> usize {
        self.count(Level::Must).failed
    }

    fn count(&self, level: Level) -> Count {
        let mut count = Count::default();
        for finding in self
            .findings
            .iter()
            .filter(|finding| finding.level == level)
        {
            match &finding.result {
                Ok(()) => count.passed += 1,
                Err(Shortfall::Failed { .. }) => count.failed += 1,
                Err(Shortfall::Skipped(_)) => count.skipped += 1,
            }
        }
        count
    }

    /// A line for each statement, and a summary.
    pub(super) fn text(&self) -> String {
        let mut lines: Vec<String> = self.findings.iter().map(line).collect();
        lines.push(String::new());
        lines.push(format!(
            "{}: {} statements",
            self.server,
            self.findings.len()
        ));
        for level in [Level::Must, Level::Should, Level::May] {
            let Count {
                passed,
                failed,
                skipped,
            } = self.count(level);
            let level = level.word();
            lines.push(format!(
                "{level:<6}  {passed} passed, {failed} failed, {skipped} skipped"
            ));
        }
        lines.join("\n")
    }

    /// The same for programs.
    pub(super) fn json(&self) -> Value {
        let counts = |level| {
            let Count {
                passed,
                failed,
                skipped,
            } = self.count(level);
            json!({ "passed": passed, "failed": failed, "skipped": skipped })
        };
        let statements: Vec<Value> = self.findings.iter().map(object).collect();
        json!({
            "server": self.server,
            "must": counts(Level::Must),
            "should": counts(Level::Should),
            "may": counts(Level::May),
            "statements": statements,
        })
    }
}

fn line(finding: &Finding) -> String {
    let Finding {
        id,
        level,
        text,
        result,
    } = finding;
    let level = level.word();
    match result {
        Ok(()) => format!("pass  {level:<6}  {id}  {text}"),
        Err(Shortfall::Failed { expected, seen }) => {
            format!("FAIL  {level:<6}  {id}  {text}: expected {expected}; seen {seen}")
        }
        Err(Shortfall::Skipped(why)) => format!("skip  {level:<6}  {id}  {text}: {why}"),
    }
}

fn object(finding: &Finding) -> Value {
    let mut object = json!({
        "id": finding.id,
        "level": finding.level.word(),
        "statement": finding.text,
    });
    match &finding.result {
        Ok(()) => object["result"] = "passed".into(),
        Err(Shortfall::Failed { expected, seen }) => {
            object["result"] = "failed".into();
            object["expected"] = expected.as_str().into();
            object["seen"] = seen.as_str().into();
        }
        Err(Shortfall::Skipped(why)) => {
            object["result"] = "skipped".into();
            object["why"] = why.as_str().into();
        }
    }
    object
}
