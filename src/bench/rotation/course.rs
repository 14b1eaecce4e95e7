//! The course of a run: a secret is pinned, clients come, the secret rotates again and again, and one generation is revoked.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use turnfleet_proto::credentials::{EphemeralCredential, SharedSecret};
use turnfleet_turn::client::Failure;
use turnfleet_turn::wire::ErrorCode;

use super::client::Caller;
use super::load::Load;
use super::operator::{Operator, Secret};
use super::{Args, Report, Spread, as_float, progress};

/// What takes so long has failed.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at the controller.
const LOOK: Duration = Duration::from_millis(20);
/// Between two attempts with a credential that was revoked.
const ATTEMPT: Duration = Duration::from_millis(5);

/// A run under way.
struct Course<'a> {
    args: &'a Args,
    operator: Operator,
    load: Arc<Load>,
    /// The generations that the run has made, the pinned one last.
    made: Vec<u64>,
}

/// Takes the fleet through the run.
///
/// # Errors
/// When the controller refuses, a rotation does not come to its end, or what is to be revoked was not accepted before.
pub(super) async fn run(args: &Args, operator: Operator) -> Result<Report> {
    let relays = operator.relays().await?;
    ensure!(!relays.is_empty(), "no relay is listed that takes UDP");
    let count = relays.len();
    let pinned = random_text()?;
    let pinned_id = operator.pin(&pinned).await?;
    let secret = SharedSecret::new(pinned);
    let hold = Duration::from_millis(args.hold);
    let load = Arc::new(Load::new(operator.clone(), relays, secret, hold));
    let mut course = Course {
        args,
        operator,
        load,
        made: Vec::new(),
    };
    let known = |secret: &Secret| secret.is_known;
    course
        .until(pinned_id, "all relays know of it", known)
        .await?;
    let (end, ended) = watch::channel(false);
    progress(&format!("{} clients a second come", args.rate));
    let clients = tokio::spawn(Arc::clone(&course.load).run(args.rate, ended));
    let told = course.rotate_and_revoke().await;
    end.send_replace(true);
    let came_for = clients.await.context("the load has failed")?;
    let (rotations, revoked) = told?;
    course.refresh_those_that_stayed().await;
    let is_pinned = |secret: &Secret| secret.state == "pinned";
    course.until(pinned_id, "it is pinned", is_pinned).await?;
    // The last one is minted with.
    course.made.pop();
    course.made.push(pinned_id);
    for id in &course.made {
        course.operator.revoke(*id).await?;
    }
    let tally = &course.load.tally;
    let counts = tally.counts();
    Ok(Report {
        relays: count,
        offered_per_second: as_float(course.load.come()) / came_for.as_secs_f64(),
        allocations_per_second: as_float(counts.allocations) / came_for.as_secs_f64(),
        counts,
        rotations: rotations.len(),
        rotation: Spread::of(rotations),
        allocation: Spread::of(tally.take_times()),
        revoked_seconds: revoked.as_secs_f64(),
    })
}

impl Course<'_> {
    /// Every rotation, and a revocation in the end: how long each took.
    async fn rotate_and_revoke(&mut self) -> Result<(Vec<Duration>, Duration)> {
        let mut took = Vec::new();
        for rotation in 1..self.args.rotations {
            took.push(self.rotate().await?);
            progress(&format!("rotation {rotation} of {}", self.args.rotations));
        }
        let doomed = *self.made.last().context("nothing was rotated")?;
        let (credential, _) = self.operator.credential("revoked").await?;
        took.push(self.rotate().await?);
        // Whoever came before the rotation had ended may have a credential of the generation that goes.
        let come = self.load.come();
        self.patiently("clients are served", || self.load.tally.is_past(come))
            .await?;
        let revoked = self.revoke(doomed, &credential).await?;
        self.made.retain(|id| *id != doomed);
        progress(&format!("all refused it after {revoked:?}"));
        // Those that come afterwards are none the worse.
        let more = self.load.come() + u64::from(self.args.rate);
        self.patiently("more clients come", || self.load.come() >= more)
            .await?;
        Ok((took, revoked))
    }

    /// One rotation, and the rest of its time.
    async fn rotate(&mut self) -> Result<Duration> {
        let began = Instant::now();
        let id = self.operator.rotate().await?;
        self.made.push(id);
        self.until(id, "it is minted with", |secret| secret.minted)
            .await?;
        let took = began.elapsed();
        let rest = Duration::from_millis(self.args.every).saturating_sub(took);
        sleep(rest).await;
        Ok(took)
    }

    /// Revokes a generation, and tries a credential of it at every relay until the last one has refused it.
    async fn revoke(&self, id: u64, credential: &EphemeralCredential) -> Result<Duration> {
        for relay in &self.load.relays {
            let attempt = Caller::allocate(*relay, credential).await?;
            let mut caller = attempt.result.map_err(|why| {
                anyhow::anyhow!("{relay} refuses it before it is revoked: {why:?}")
            })?;
            let _ = caller.end().await;
        }
        let began = Instant::now();
        let mut attempts = JoinSet::new();
        for relay in self.load.relays.clone() {
            let credential = credential.clone();
            attempts.spawn(async move {
                let mut refused = None;
                while refused.is_none() && began.elapsed() < PATIENCE {
                    match Caller::allocate(relay, &credential).await?.result {
                        Ok(mut caller) => drop(caller.end().await),
                        Err(Failure::Refused(ErrorCode::UNAUTHENTICATED)) => {
                            refused = Some(began.elapsed());
                        }
                        Err(_) => {}
                    }
                    sleep(ATTEMPT).await;
                }
                refused.with_context(|| format!("{relay} does not refuse what was revoked"))
            });
        }
        self.operator.revoke(id).await?;
        let mut longest = Duration::ZERO;
        while let Some(refused) = attempts.join_next().await {
            longest = longest.max(refused??);
        }
        Ok(longest)
    }

    /// Those that came long ago, with secrets that are gone since, still have their allocations.
    async fn refresh_those_that_stayed(&self) {
        for mut caller in self.load.tally.take_staying() {
            let refreshed = self.load.tally.refreshed(caller.refresh().await);
            if refreshed {
                let _ = caller.end().await;
            }
        }
    }

    /// Waits until a generation is in such a state.
    async fn until(&self, id: u64, what: &str, such: impl Fn(&Secret) -> bool) -> Result<()> {
        let began = Instant::now();
        loop {
            let secrets = self.operator.secrets().await?;
            if secrets.iter().any(|secret| secret.id == id && such(secret)) {
                return Ok(());
            }
            ensure!(
                began.elapsed() < PATIENCE,
                "secret {id}: not within {PATIENCE:?}: {what}"
            );
            sleep(LOOK).await;
        }
    }

    async fn patiently(&self, what: &str, condition: impl Fn() -> bool) -> Result<()> {
        let began = Instant::now();
        while !condition() {
            ensure!(
                began.elapsed() < PATIENCE,
                "not within {PATIENCE:?}: {what}"
            );
            sleep(LOOK).await;
        }
        Ok(())
    }
}

/// A secret that nobody else has.
fn random_text() -> Result<String> {
    let bytes: [u8; 24] = crate::random()?;
    Ok(bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes every text");
        text
    }))
}
