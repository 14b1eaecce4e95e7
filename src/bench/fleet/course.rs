//! The course of a run: the nodes come, rest, are told of changes, and come back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tonic::transport::Endpoint;

use super::node::{Node, Surroundings};
use super::roll::{News, Roll, Word};
use super::{Args, Processes, Report, Spread, progress};

/// Enrolments on their way at a time.
const ENROLLING: usize = 32;
/// A run in which nothing happens for so long has failed.
const PATIENCE: Duration = Duration::from_secs(60);
/// A fleet that stays whole for so long has come to rest.
const SETTLED: Duration = Duration::from_secs(1);
/// What an operator may take to restart the controller.
const RESTART_PATIENCE: Duration = Duration::from_secs(600);
/// Words that nodes may be ahead.
const WORDS: usize = 4096;

/// A run under way.
struct Course<'a> {
    surroundings: Surroundings,
    join_token: &'a str,
    words: mpsc::Receiver<Word>,
    roll: Roll,
    nodes: usize,
    tasks: JoinSet<()>,
}

/// Takes the fleet through the run.
///
/// # Errors
/// When the controller cannot be reached or refuses, or the fleet does not come as far as it should.
pub(super) async fn run(
    args: &Args,
    endpoint: Endpoint,
    join_token: &str,
    processes: &Processes,
) -> Result<Report> {
    let nodes = usize::try_from(args.nodes)?;
    let (tell, words) = mpsc::channel(WORDS);
    let (end, ended) = watch::channel(false);
    let mut course = Course {
        surroundings: Surroundings {
            endpoint: endpoint.tcp_nodelay(true),
            words: tell,
            end: ended,
        },
        join_token,
        words,
        roll: Roll::new(nodes),
        nodes,
        tasks: JoinSet::new(),
    };
    let mut report = Report {
        nodes: args.nodes,
        ..Report::default()
    };
    course.arrive(&mut report).await?;
    if args.rest > 0 {
        let measured = !processes.is_empty();
        let rest = Duration::from_secs(args.rest);
        let cpu = course.rest(rest, processes).await?;
        report.controller_cores_at_rest = measured.then(|| cpu.as_secs_f64() / rest.as_secs_f64());
        report.controller_memory_bytes = measured.then(|| processes.resident_bytes());
    }
    report.push = course.pushes(args.pushes).await?;
    report.snapshot_bytes = course.roll.snapshot_bytes;
    if args.restart {
        report.back = course.come_back().await?;
    }
    end.send_replace(true);
    drop(course.words);
    while course.tasks.join_next().await.is_some() {}
    Ok(report)
}

impl Course<'_> {
    /// Enrols every node, and opens every session.
    async fn arrive(&mut self, report: &mut Report) -> Result<()> {
        progress(&format!("{} relays enrol", self.nodes));
        let started = Instant::now();
        let nodes = self.enrol().await?;
        report.enrolments_per_second = f64::from(report.nodes) / started.elapsed().as_secs_f64();
        let rate = report.enrolments_per_second;
        progress(&format!(
            "{rate:.0} have enrolled in a second; their sessions open"
        ));
        let started = Instant::now();
        for node in nodes {
            let surroundings = self.surroundings.clone();
            self.tasks.spawn(node.live(surroundings));
        }
        let whole = self.settle().await?;
        report.sessions_seconds = whole.duration_since(started).as_secs_f64();
        progress(&format!(
            "all were open after {:.2} s",
            report.sessions_seconds
        ));
        Ok(())
    }

    async fn enrol(&self) -> Result<Vec<Node>> {
        let seats = Arc::new(Semaphore::new(ENROLLING));
        let mut enrolments = JoinSet::new();
        for number in 0..self.nodes {
            let (seats, endpoint) = (Arc::clone(&seats), self.surroundings.endpoint.clone());
            let join_token = self.join_token.to_owned();
            enrolments.spawn(async move {
                let _seat = seats.acquire().await?;
                Node::enrol(&endpoint, number, &join_token).await
            });
        }
        let mut nodes = Vec::with_capacity(self.nodes);
        while let Some(enrolled) = enrolments.join_next().await {
            nodes.push(enrolled?.context("a relay cannot enrol")?);
        }
        Ok(nodes)
    }

    /// Waits until the fleet is whole and stays so; says since when it has been.
    async fn settle(&mut self) -> Result<Instant> {
        let mut whole_since = self.roll.is_whole().then(Instant::now);
        loop {
            let patience = whole_since.map_or(PATIENCE, |_| SETTLED);
            match tokio::time::timeout(patience, self.words.recv()).await {
                Ok(Some(word)) => {
                    let was_whole = self.roll.is_whole();
                    self.roll.hear(&word);
                    match (was_whole, self.roll.is_whole()) {
                        (false, true) => whole_since = Some(word.at),
                        (_, false) => whole_since = None,
                        (true, true) => {}
                    }
                }
                Ok(None) => bail!("every relay has gone"),
                Err(_) => match whole_since {
                    Some(since) => return Ok(since),
                    None => bail!(
                        "{} of {} relays have a session after {PATIENCE:?} without a change",
                        self.roll.open(),
                        self.nodes
                    ),
                },
            }
        }
    }

    /// Lets the fleet rest; says what CPU time that took.
    async fn rest(&mut self, rest: Duration, processes: &Processes) -> Result<Duration> {
        progress(&format!("they rest for {rest:?}"));
        let before = processes.whole_cpu_time();
        let until = tokio::time::Instant::now() + rest;
        while let Ok(word) = tokio::time::timeout_at(until, self.words.recv()).await {
            self.roll.hear(&word.context("every relay has gone")?);
        }
        let cpu = processes.whole_cpu_time().saturating_sub(before);
        if self.roll.open() < self.nodes {
            bail!(
                "{} of {} relays have a session",
                self.roll.open(),
                self.nodes
            );
        }
        Ok(cpu)
    }

    /// Has one more relay come again and again, so that the policy changes, and waits each time for all the others.
    async fn pushes(&mut self, pushes: u32) -> Result<Option<Spread>> {
        let mut times = Vec::new();
        for push in 0..usize::try_from(pushes)? {
            let number = self.nodes + push;
            progress(&format!("change {} of {pushes}", push + 1));
            let endpoint = self.surroundings.endpoint.clone();
            let node = Node::enrol(&endpoint, number, self.join_token);
            let node = node.await.context("one more relay cannot enrol")?;
            let generation = self.roll.newest() + 1;
            let started = Instant::now();
            self.tasks.spawn(node.live(self.surroundings.clone()));
            while !self.roll.all_run(generation) {
                let word = tokio::time::timeout(PATIENCE, self.words.recv()).await;
                let word = word.context("not all relays have acknowledged the change")?;
                let word = word.context("every relay has gone")?;
                let before = self.roll.runs(word.node);
                self.roll.hear(&word);
                if before < Some(generation) && self.roll.runs(word.node) >= Some(generation) {
                    times.push(word.at.saturating_duration_since(started));
                }
            }
            self.settle().await?;
        }
        Ok(Spread::of(times))
    }

    /// Waits until the controller has gone and is there again, and then for every session.
    async fn come_back(&mut self) -> Result<Option<Spread>> {
        progress("restart the controller");
        let mut times = Vec::new();
        let mut there_since = None;
        let mut lost = false;
        while !(lost && self.roll.open() == self.nodes) {
            let word = tokio::time::timeout(RESTART_PATIENCE, self.words.recv()).await;
            let word = word.context("not all relays have come back")?;
            let word = word.context("every relay has gone")?;
            let had = self.roll.open();
            self.roll.hear(&word);
            match word.news {
                News::Lost => lost |= self.roll.open() == 0,
                News::Connected if lost => {
                    there_since.get_or_insert(word.at);
                }
                News::Runs { .. } if self.roll.open() > had => {
                    let since = there_since.unwrap_or(word.at);
                    times.push(word.at.saturating_duration_since(since));
                }
                News::Connected | News::Runs { .. } => {}
            }
        }
        progress("all are back");
        Ok(Spread::of(times))
    }
}
