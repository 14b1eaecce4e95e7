//! The members of an etcd cluster, and calls to them that outlast a member.
//!
//! Every member has a client of its own: one client for all balances over them, and would go on choosing a dead one. A call
//! stays with the member that answered last; when that one fails, the next is asked.

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use etcd_client::{Certificate, Client, ConnectOptions, Error, Identity, TlsOptions};
use tokio::time::{Instant, timeout};
use tonic::{Code, Status};

use super::fault::Fault;
use super::{EtcdConfig, StoreError};

/// How long one member is given for one answer.
pub(super) const TRY: Duration = Duration::from_millis(500);
/// How long a call is tried at all: longer than a cluster takes to elect a leader.
const TOTAL: Duration = Duration::from_secs(3);
/// How long a call is tried while no member takes connections.
const TOTAL_REFUSED: Duration = Duration::from_secs(1);
/// The rest after each member has failed once.
pub(super) const REST: Duration = Duration::from_millis(100);
/// etcd closes connections of clients that ask more often than each 5 s.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// How long a login may take: the password is checked by a slow hash on purpose.
const LOGIN: Duration = Duration::from_secs(2);

/// The members of a cluster.
pub(super) struct Link {
    members: Vec<Member>,
    /// Who answered last.
    preferred: AtomicUsize,
    options: ConnectOptions,
}

struct Member {
    endpoint: String,
    /// Made, and logged in, at the first call.
    client: Mutex<Option<Client>>,
}

/// Why a call failed.
#[derive(Debug)]
pub(super) struct Failed {
    endpoint: String,
    error: Error,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { endpoint, error } = self;
        match self.status() {
            Some(status) => write!(f, "etcd at {endpoint}: {}", status.message()),
            None => write!(f, "etcd at {endpoint}: {error}"),
        }
    }
}

impl std::error::Error for Failed {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.status().and_then(std::error::Error::source)
    }
}

impl Failed {
    /// The store's error where nothing more is known.
    pub(super) fn into_store_error(self, doing: &'static str) -> StoreError {
        if self.says(Code::ResourceExhausted, "space exceeded") {
            return StoreError::Full;
        }
        let retryable = self.is_passing() || self.code() == Some(Code::ResourceExhausted);
        if let Some(Fault { key, what }) = Fault::of(&self.error) {
            return StoreError::Refused {
                key,
                what,
                retryable,
                source: Box::new(self),
            };
        }
        StoreError::Backend {
            doing,
            retryable,
            source: Box::new(self),
        }
    }

    /// Whether another member, or the same one later, may answer.
    pub(super) fn is_passing(&self) -> bool {
        let code = match &self.error {
            Error::GRpcStatus(status) => status.code(),
            Error::InvalidArgs(_) | Error::InvalidUri(_) | Error::InvalidMetadataValue(_) => {
                return false;
            }
            Error::IoError(_)
            | Error::TransportError(_)
            | Error::WatchError(_)
            | Error::Utf8Error(_)
            | Error::LeaseKeepAliveError(_)
            | Error::ElectError(_)
            | Error::EndpointError(_)
            | Error::EndpointsNotManaged
            | Error::Internal(_) => return !self.is_without_lease(),
        };
        match code {
            Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::Aborted
            | Code::Unknown
            | Code::Internal => true,
            Code::Ok
            | Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::DataLoss
            | Code::Unauthenticated => false,
        }
    }

    pub(super) fn status(&self) -> Option<&Status> {
        if let Error::GRpcStatus(status) = &self.error {
            Some(status)
        } else {
            None
        }
    }

    pub(super) fn code(&self) -> Option<Code> {
        self.status().map(Status::code)
    }

    /// Whether etcd says `text` with `code`.
    pub(super) fn says(&self, code: Code, text: &str) -> bool {
        let says = |status: &Status| status.code() == code && status.message().contains(text);
        self.status().is_some_and(says)
    }

    /// Whether etcd has ended the lease that was to be kept.
    pub(super) fn is_without_lease(&self) -> bool {
        let kept =
            matches!(&self.error, Error::LeaseKeepAliveError(text) if text.contains("not found"));
        kept || self.says(Code::NotFound, "lease")
    }

    /// Whether the token of the login is no longer good.
    fn is_logged_out(&self) -> bool {
        self.code() == Some(Code::Unauthenticated)
            || self.says(Code::InvalidArgument, "auth: revision")
    }

    /// Whether nothing was sent: no connection came about.
    fn is_refused(&self) -> bool {
        let refused = |status: &Status| {
            status.code() == Code::Unavailable && std::error::Error::source(status).is_some()
        };
        self.status().is_some_and(refused)
    }
}

/// How long a call goes on, and through whom.
pub(super) struct Tries {
    began: Instant,
    refused_only: bool,
    left: usize,
    logins: usize,
}

impl Link {
    /// Reads the files of `config`; nothing is sent before the first call.
    pub(super) fn new(config: &EtcdConfig) -> Result<Self, StoreError> {
        let member = |endpoint: &String| Member {
            endpoint: endpoint.clone(),
            client: Mutex::new(None),
        };
        Ok(Self {
            members: config.endpoints.iter().map(member).collect(),
            preferred: AtomicUsize::new(0),
            options: options(config)?,
        })
    }

    /// A call's budget.
    pub(super) fn tries(&self) -> Tries {
        Tries {
            began: Instant::now(),
            refused_only: true,
            left: self.members.len(),
            logins: self.members.len(),
        }
    }

    /// Calls until a member answers or the time is over.
    pub(super) async fn call<T, F>(&self, call: impl Fn(Client) -> F) -> Result<T, Failed>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut tries = self.tries();
        loop {
            match self.try_once(&call).await {
                Ok(answer) => return Ok(answer),
                Err(error) => self.after(error, &mut tries).await?,
            }
        }
    }

    /// Asks one member once.
    pub(super) async fn try_once<T, F>(&self, call: impl Fn(Client) -> F) -> Result<T, Failed>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let (place, client) = self.member().await?;
        let answer = timeout(TRY, call(client)).await;
        answer
            .unwrap_or_else(|_| Err(late()))
            .map_err(|error| self.failed(place, error))
    }

    /// Whether a call that failed shall be tried again: after a rest where each member has failed.
    pub(super) async fn after(&self, failed: Failed, tries: &mut Tries) -> Result<(), Failed> {
        if failed.is_logged_out() && tries.logins > 0 {
            tries.logins -= 1;
            return Ok(());
        }
        tries.refused_only &= failed.is_refused();
        let total = if tries.refused_only {
            TOTAL_REFUSED
        } else {
            TOTAL
        };
        if !failed.is_passing() || tries.began.elapsed() >= total {
            return Err(failed);
        }
        tries.left -= 1;
        if tries.left == 0 {
            tries.left = self.members.len();
            tokio::time::sleep(REST).await;
        }
        Ok(())
    }

    /// The member that answered last, and its place.
    pub(super) async fn member(&self) -> Result<(usize, Client), Failed> {
        let place = self.preferred.load(Ordering::Relaxed) % self.members.len();
        let member = &self.members[place];
        if let Some(client) = &*member.client() {
            return Ok((place, client.clone()));
        }
        let options = Some(self.options.clone());
        let connecting = Client::connect([&member.endpoint], options);
        let connected = timeout(LOGIN, connecting).await;
        let client = connected
            .unwrap_or_else(|_| Err(late()))
            .map_err(|error| self.failed(place, error))?;
        *member.client() = Some(client.clone());
        Ok((place, client))
    }

    /// Notes that the member at `place` failed: where that may pass, the next one is asked from here on; one that no longer
    /// knows the login is logged in to again.
    pub(super) fn failed(&self, place: usize, error: Error) -> Failed {
        let endpoint = self.members[place].endpoint.clone();
        let failed = Failed { endpoint, error };
        if failed.is_logged_out() {
            self.log_out(place);
        }
        if failed.is_passing() {
            let next = (place + 1) % self.members.len();
            let (old, order) = (&self.preferred, Ordering::Relaxed);
            // Somebody else may have passed on already.
            let _ = old.compare_exchange(place, next, order, order);
        }
        failed
    }

    /// Logs in again at the next call of that member.
    pub(super) fn log_out(&self, place: usize) {
        *self.members[place].client() = None;
    }
}

impl Member {
    fn client(&self) -> MutexGuard<'_, Option<Client>> {
        // Only ever replaced as a whole.
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The error of a member that did not answer.
pub(super) fn late() -> Error {
    Error::GRpcStatus(Status::deadline_exceeded("no answer in time"))
}

/// How members are connected to; reads the files of `config`.
pub(super) fn options(config: &EtcdConfig) -> Result<ConnectOptions, StoreError> {
    let mut options = ConnectOptions::new()
        .with_connect_timeout(TRY)
        .with_keep_alive(KEEP_ALIVE, KEEP_ALIVE / 2)
        .with_keep_alive_while_idle(true)
        // A member that lost the others says so instead of staying silent.
        .with_require_leader(true)
        .with_auto_token_refresh(true);
    if let Some((user, password)) = &config.login {
        options = options.with_user(user, password.expose());
    }
    let read = |path: &std::path::Path| {
        std::fs::read(path).map_err(|source| StoreError::File {
            path: path.to_owned(),
            source,
        })
    };
    let Some(ca) = &config.ca else {
        return Ok(options);
    };
    let mut tls = TlsOptions::new().ca_certificate(Certificate::from_pem(read(ca)?));
    if let Some(files) = &config.client {
        let (certificate, key) = (read(&files.certificate)?, read(&files.key)?);
        tls = tls.identity(Identity::from_pem(certificate, key));
    }
    Ok(options.with_tls(tls))
}
